"""Deadlines: say in a slot which message of an event loop is past its hard timeout.

The slot names the next one whose time is over, before it is, so that the supervisor needs no help
from a process that hangs. When the time has come and the loop does not answer, the handler that
holds it up is to blame, from its own hard timeout on, and not those that wait for the loop: unless
it has none, and they do.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..messages import Delivered
from .slots import Slots

# How long a loop may take to answer, seconds.
ANSWER = 0.25
# How long after a hard timeout the supervisor acts if nobody here is able to, seconds.
GRACE = 1.0
# The thread ends when nothing has had a hard timeout for so long, seconds.
IDLE = 5.0


class Run(NamedTuple):
    """A message whose handler is running, and when its time is over."""

    delivered: Delivered
    deadline: float
    loop: asyncio.AbstractEventLoop


class Deadlines:
    """The hard timeouts of one event loop, with a thread that watches while there are any."""

    def __init__(self, slots: Slots, slot: int) -> None:
        self._slots = slots
        self._slot = slot
        self._runs: dict[asyncio.Task[Any] | None, Run] = {}
        self._first: Run | None = None
        self._named: Run | None = None
        self._changed = threading.Condition()
        self._is_watched = False

    @contextmanager
    def kept(self, delivered: Delivered, hard_timeout: float | None) -> Iterator[None]:
        """Watch over the handler that the current task calls in a block."""
        if hard_timeout is None:
            yield
            return
        task = asyncio.current_task()
        deadline = time.monotonic() + hard_timeout
        with self._changed:
            self._runs[task] = Run(delivered, deadline, asyncio.get_running_loop())
            self._name_first()
            if not self._is_watched:
                self._is_watched = True
                threading.Thread(
                    target=self._watch, name="messaging-deadlines", daemon=True
                ).start()
        try:
            yield
        finally:
            with self._changed:
                del self._runs[task]
                self._name_first()

    def _name_first(self) -> None:
        """Have the slot name the first whose time is over."""
        first = min(self._runs.values(), key=lambda run: run.deadline, default=None)
        if first is not self._first:
            self._first = first
            self._changed.notify()
        if first is None:
            self._named = None
            self._slots.clear(self._slot)
        elif first is not self._named:
            self._name(first, GRACE)

    def _name(self, run: Run, grace: float = 0.0) -> None:
        self._named = run
        self._slots.start(self._slot, run.delivered, run.deadline + grace)

    def _watch(self) -> None:
        while late := self._next_late():
            answers = self._answers(late.loop)
            with self._changed:
                if late is self._first:
                    self._name(late if answers else self._holding_up(late))
                    # Until the supervisor has acted, or the loop goes on.
                    self._changed.wait(ANSWER)

    def _next_late(self) -> Run | None:
        """Wait until a time is over; None: there has been nothing to watch for a while."""
        with self._changed:
            while True:
                if self._first is None:
                    if not self._changed.wait(IDLE) and self._first is None:
                        self._is_watched = False
                        return None
                elif (wait := self._first.deadline - time.monotonic()) > 0:
                    self._changed.wait(wait)
                else:
                    return self._first

    def _answers(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Tell whether the loop runs anything but one handler, and give it time to."""
        answered = threading.Event()
        try:
            loop.call_soon_threadsafe(answered.set)
        except RuntimeError:  # it is closed: its messages have ended
            return True
        return answered.wait(ANSWER)

    def _holding_up(self, late: Run) -> Run:
        return self._runs.get(asyncio.current_task(late.loop), late)
