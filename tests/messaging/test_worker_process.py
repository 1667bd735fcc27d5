"""A worker process: keeps house while its runners work, and ends when it should."""

import faulthandler
import os
import signal
import threading
import time

import pytest
from django.db import OperationalError, transaction
from effects import effects, execute, take_effect

from messaging import Retry, consumer, control, send, signals
from messaging.models import Queue, Stat, Worker
from messaging.testing import drain
from messaging.worker import housekeeping, presence
from messaging.worker import process as module
from messaging.worker.allowance import Allowance
from messaging.worker.configuration import consumers_for
from messaging.worker.options import Options
from messaging.worker.process import Process
from messaging.worker.slots import Slots

pytestmark = pytest.mark.django_db(transaction=True)

PATIENCE = 60  # seconds


@pytest.fixture(autouse=True)
def _ends_in_time():
    """Tell a process that never ends to end, fail its test, and restore the signals."""
    numbers = (*module.OBEYED, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    given_up = threading.Event()

    def give_up():
        given_up.set()
        if callable(signal.getsignal(signal.SIGTERM)):
            os.kill(os.getpid(), signal.SIGTERM)

    patience = threading.Timer(PATIENCE, give_up)
    patience.start()
    yield
    patience.cancel()
    assert not given_up.is_set(), f"it did not end in {PATIENCE} seconds"
    for number, handler in before.items():
        signal.signal(number, handler)
    faulthandler.unregister(signal.SIGQUIT)


@pytest.fixture
def process(declared):
    """Return a function that makes the process of a worker for the queues that take effect."""
    for name in ("emails", "invoices"):
        consumer(name)(lambda message: take_effect(f"{message.queue} {message.body}"))
    drain()

    def make(*, parent=None, slots=None, **options):
        options = Options(consumers=consumers_for([]), **options)
        numbers = range(options.slots)
        parent = os.getppid() if parent is None else parent
        return Process(options, slots or Slots(2), numbers, Allowance(None), parent=parent)

    return make


@pytest.fixture
def run(elsewhere):
    """Return a function that runs a process while a script in another thread watches it.

    The process gets SIGTERM when the script has ended, however it ended.
    """

    def run(process, script):
        def play():
            try:
                script()
            finally:
                os.kill(os.getpid(), signal.SIGTERM)

        playing = elsewhere(play)
        code = process.run()
        playing.result()
        return code

    return run


def test_it_gives_signs_of_life_until_it_ends(process, run, until):
    seen = []

    def watch():
        until(Worker.objects.exists)
        seen.append(Worker.objects.get())

    a_process = process(threads=2)
    assert run(a_process, watch) == 0
    (row,) = seen
    assert (row.name, row.pid, row.threads) == (a_process.name, os.getpid(), 2)
    assert (row.queues, row.state) == (["emails", "invoices"], "running")
    assert not Worker.objects.exists()


def test_it_records_what_it_has_done(process, run, until):
    send("invoices", 1)
    run(process(), lambda: until(effects))
    recorded = Stat.objects.filter(acknowledged__gt=0).values_list("queue__name", "acknowledged")
    assert list(recorded) == [("invoices", 1)]


def test_it_makes_due_what_is_due(process, run, until):
    send("invoices", 1, delay=0.3)
    run(process(), lambda: until(effects))
    assert effects() == ["invoices 1"]


def test_it_forgets_what_is_past_its_retention(process, run, until, monkeypatch):
    monkeypatch.setattr(housekeeping, "PRUNE_EVERY", 0.1)
    send("invoices", 1)
    send("emails", 2, delay=3600)

    def watch():
        until(effects)
        execute("UPDATE messaging_message SET published_at = published_at - interval '8 days'")
        until(lambda: execute("SELECT body FROM messaging_message") == [("2",)])

    assert run(process(), watch) == 0


def test_it_ends_by_itself_when_it_drains(process):
    send("invoices", 1)
    send("emails", 2)
    assert process(drain=True).run() == 0
    assert sorted(effects()) == ["emails 2", "invoices 1"]


def test_it_ends_when_its_supervisor_is_gone(process, caplog):
    assert process(parent=0).run() == 0
    assert "its supervisor is gone" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_it_is_told(process, elsewhere, until, number):
    def tell():
        until(Worker.objects.exists)
        os.kill(os.getpid(), number)

    telling = elsewhere(tell)
    assert process().run() == 0
    telling.result()


def test_a_signal_before_it_works_is_not_lost(process):
    send("invoices", 1)
    a_process = process()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    signal.raise_signal(signal.SIGTERM)
    assert a_process.run() == 0
    assert effects() == []


def test_a_closed_terminal_does_not_end_it(process, run, until):
    def close_the_terminal():
        until(Worker.objects.exists)
        os.kill(os.getpid(), signal.SIGHUP)
        send("invoices", 1)
        until(effects)

    assert run(process(), close_the_terminal) == 0


@pytest.mark.usefixtures("way_past_a_pooler")
def test_it_obeys_a_pause_within_moments(process, run, until):
    a_process = process()

    def pause_and_resume():
        until(Worker.objects.exists)
        control.pause("invoices", by="ada")
        until(lambda: a_process._configuration.policy("invoices").paused)
        # It may have looked just before, and be about to claim: it is past that when it has been
        # to the other queue twice.
        for body in ("a", "b"):
            send("emails", body)
            until(lambda body=body: f"emails {body}" in effects())
        send("invoices", "paused")
        # Twice through the other queue: it has come past this one meanwhile.
        for body in (1, 2):
            send("emails", body)
            until(lambda body=body: f"emails {body}" in effects())
        assert "invoices paused" not in effects()
        control.resume("invoices", by="ada")
        until(lambda: "invoices paused" in effects())

    run(a_process, pause_and_resume)


def test_a_changed_policy_is_taken_up(process, run, until):
    a_process = process()

    def change():
        until(Worker.objects.exists)
        Queue.objects.filter(name="invoices").update(max_deliveries=77)
        until(lambda: a_process._configuration.policy("invoices").max_deliveries == 77)

    run(a_process, change)


def test_a_thread_that_breaks_ends_it_with_a_code_that_says_so(process, monkeypatch, caplog):
    def break_down(runner):
        raise AttributeError("a mistake of ours")

    monkeypatch.setattr(module.Runner, "run", break_down)
    assert process(threads=2).run() == 1
    assert "a mistake of ours" in caplog.text


def test_it_waits_for_a_database_that_is_away_at_the_start(process, monkeypatch):
    refresh = module.Configuration.refresh
    answers = [OperationalError("away"), OperationalError("still away")]

    def refuse_twice(configuration):
        if answers:
            raise answers.pop()
        refresh(configuration)

    monkeypatch.setattr(module.Configuration, "refresh", refuse_twice)
    monkeypatch.setattr(module.random, "uniform", lambda least, most: 0.01)
    send("invoices", 1)
    assert process(drain=True).run() == 0
    assert effects() == ["invoices 1"]


def test_trouble_with_the_house_does_not_stop_the_work(process, run, until, monkeypatch, caplog):
    def refuse(connection, heartbeat):
        raise OperationalError("no room for heartbeats")

    monkeypatch.setattr(presence.workers, "beat", refuse)
    send("invoices", 1)
    assert run(process(), lambda: until(effects)) == 0
    assert "Worker cannot keep house" in caplog.text


def test_what_outlasts_the_grace_is_abandoned_and_not_counted(
    process, declared, elsewhere, until, monkeypatch
):
    class Abandoned(BaseException):
        pass

    def abandon(code):
        raise Abandoned(code)

    reached, may_end = threading.Event(), threading.Event()

    @consumer("stuck")
    def hang(message):
        reached.set()
        may_end.wait(60)

    drain()
    send("stuck", 1)
    slots = Slots(2)
    monkeypatch.setattr(module.os, "_exit", abandon)
    # Nobody stops the listener of an abandoned process, which should have ended here.
    monkeypatch.setattr(module.Listener, "start", lambda listener: None)

    def stop_when_stuck():
        until(reached.is_set)
        os.kill(os.getpid(), signal.SIGTERM)

    stopping = elsewhere(stop_when_stuck)
    a_process = process(slots=slots, grace=0.1)
    try:
        with pytest.raises(Abandoned, match="0"):
            a_process.run()
        # Nothing that the supervisor would count.
        assert slots.running(0) is None
    finally:
        may_end.set()
        stopping.result()
        for thread in a_process._threads:
            thread.join(10)


@pytest.mark.parametrize("key", [None, "ada"])
@pytest.mark.parametrize("after", [0, 0.2])
def test_a_retry_comes_when_it_is_due_and_not_at_the_next_look(
    process, run, until, monkeypatch, key, after
):
    monkeypatch.setattr(housekeeping, "DUE_EVERY", 3600.0)

    def fail_once(message):
        if message.attempt == 1:
            raise Retry(after=after)
        take_effect("handled")

    consumer("retried")(fail_once)
    drain()
    a_process = process()

    def play():
        # The first look is over, and the next one is in an hour.
        until(lambda: a_process._house._promoting.at > time.monotonic() + 60)
        send("retried", 1, ordering_key=key)
        until(lambda: effects() == ["handled"])

    run(a_process, play)


def test_what_is_due_and_locked_is_not_asked_for_in_circles(process, elsewhere, until, monkeypatch):
    monkeypatch.setattr(housekeeping, "DUE_EVERY", 3600.0)
    send("invoices", 1, delay=3600)
    execute("UPDATE messaging_scheduled SET due_at = statement_timestamp()")
    locked, may_end = [], []

    def lock():
        with transaction.atomic():
            locked.extend(execute("SELECT id FROM messaging_scheduled FOR UPDATE"))
            until(lambda: may_end)

    locking = elsewhere(lock)
    until(lambda: locked)
    house = process()._house
    asked = time.monotonic()
    house.keep()
    may_end.append(True)
    locking.result()
    # Soon, and not at once.
    assert 0.05 < house._promoting.at - asked < 3600


def test_observers_hear_of_its_start_and_end(process):
    heard = []

    def started(sender, name, **kwargs):
        heard.append(("started", name))

    def stopped(sender, name, **kwargs):
        heard.append(("stopped", name))

    signals.worker_started.connect(started)
    signals.worker_stopped.connect(stopped)
    try:
        a_process = process(drain=True)
        a_process.run()
    finally:
        signals.worker_started.disconnect(started)
        signals.worker_stopped.disconnect(stopped)
    assert heard == [("started", a_process.name), ("stopped", a_process.name)]
