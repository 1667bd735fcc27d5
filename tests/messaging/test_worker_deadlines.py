"""Deadlines: the slot of an event loop names the message that its process may have to die for."""

import asyncio
import threading
import time

import pytest

from messaging.messages import Delivered
from messaging.worker import deadlines
from messaging.worker.deadlines import Deadlines
from messaging.worker.slots import Slots


class Loop:
    """An event loop in a thread, whose handlers run until they are told to end."""

    def __init__(self):
        self.slots = Slots(1)
        self._deadlines = Deadlines(self.slots, 0)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._ends = {}

    def handle(self, number, hard_timeout, *, blocking=False):
        """Start a handler that waits, and holds up the loop if it blocks."""
        end = self._ends[number] = threading.Event()
        started = threading.Event()

        async def run():
            with self._deadlines.kept(delivered(number), hard_timeout):
                started.set()
                if blocking:
                    end.wait(20)
                while not end.is_set():
                    await asyncio.sleep(0.005)

        future = asyncio.run_coroutine_threadsafe(run(), self._loop)
        assert started.wait(10)
        return future

    def end(self, number):
        """Have a handler end."""
        self._ends[number].set()

    def named(self):
        """Return the number of the message that the slot names."""
        running = self.slots.running(0)
        return running and running.message_id

    def overdue(self, seconds=0.0):
        """Tell whether the supervisor would kill the process in so many seconds, as it looks."""
        return self.slots.is_overdue(0, time.monotonic() + seconds)

    def close(self):
        for end in self._ends.values():
            end.set()
        asyncio.run_coroutine_threadsafe(self._finish(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _finish(self):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.gather(*others, return_exceptions=True)


def delivered(number):
    return Delivered(
        id=number, queue_id=1, priority=0, message_id=number, attempt=1, subscription_id=None
    )


@pytest.fixture
def loop():
    running = Loop()
    yield running
    running.close()


def test_the_one_whose_time_is_over_first_is_named_before_it_is_over(loop):
    loop.handle(1, 60)
    loop.handle(2, 30)
    loop.handle(3, None)
    assert loop.named() == 2
    assert not loop.overdue()
    # Nobody in the process need be able to run for the supervisor to see it.
    assert loop.overdue(32)


def test_the_next_one_is_named_when_it_ends_and_nothing_when_all_have(loop):
    first, second = loop.handle(1, 60), loop.handle(2, 30)
    loop.end(2)
    second.result(10)
    assert loop.named() == 1
    assert not loop.overdue(32)
    loop.end(1)
    first.result(10)
    assert loop.named() is None


def test_a_handler_without_a_hard_timeout_may_take_as_long_as_it_likes(loop):
    loop.handle(1, None)
    assert loop.named() is None


def test_a_handler_that_goes_on_past_its_time_is_overdue(loop, until):
    loop.handle(1, 0.05)
    loop.handle(2, 60)
    until(loop.overdue, seconds=deadlines.GRACE)
    assert loop.named() == 1


def test_the_handler_that_holds_up_the_loop_is_to_blame_for_those_that_wait_for_it(loop, until):
    loop.handle(1, 0.2)
    loop.handle(2, 0.4, blocking=True)
    until(loop.overdue, seconds=5)
    assert loop.named() == 2


def test_a_handler_that_holds_up_the_loop_has_until_its_own_time_is_over(loop, until):
    waiting = loop.handle(1, 0.1)
    blocking = loop.handle(2, 60, blocking=True)
    until(lambda: loop.named() == 2)
    assert not loop.overdue(30)
    loop.end(1)
    loop.end(2)
    for each in (blocking, waiting):
        each.result(10)
    assert loop.named() is None


def test_one_that_waits_is_overdue_after_all_when_the_loop_goes_on_without_its_end(loop, until):
    loop.handle(1, 0.1)
    blocking = loop.handle(2, 60, blocking=True)
    until(lambda: loop.named() == 2)
    loop.end(2)
    blocking.result(10)
    until(loop.overdue, seconds=deadlines.GRACE)
    assert loop.named() == 1


def test_one_that_waits_is_overdue_though_what_holds_up_the_loop_has_no_hard_timeout(loop, until):
    loop.handle(1, 0.1)
    loop.handle(2, None, blocking=True)
    until(loop.overdue)
    assert loop.named() == 1


def test_the_thread_that_watches_ends_when_there_is_nothing_to_watch(loop, until, monkeypatch):
    monkeypatch.setattr(deadlines, "IDLE", 0.01)

    def watchers():
        return [t for t in threading.enumerate() if t.name == "messaging-deadlines"]

    before = len(watchers())
    loop.handle(1, 60)
    assert len(watchers()) == before + 1
    loop.end(1)
    until(lambda: len(watchers()) <= before)
    loop.handle(2, 0.05)
    until(loop.overdue, seconds=deadlines.GRACE)
