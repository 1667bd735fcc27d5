"""Casualties: what a process died of is counted once the database has let go of it."""

import os
import signal
import threading

import pytest
from django.db import OperationalError, connection, connections, transaction
from effects import (
    delivered,
    effects,
    execute,
    failures,
    make_due,
    take_effect,
    waiting,
)

from messaging import send, signals
from messaging.delivery import deliver
from messaging.engines import engine
from messaging.models import DeadLetter, Delivery, Scheduled
from messaging.store.configuration import policies
from messaging.testing import drain
from messaging.worker import casualties as module
from messaging.worker.casualties import Casualties
from messaging.worker.slots import Slots

pytestmark = [
    pytest.mark.django_db(transaction=True),
    # Tests have threads where the supervisor has none, and fork with care.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


@pytest.fixture
def slots():
    return Slots(2)


@pytest.fixture
def casualties(slots):
    return Casualties(slots, None)


@pytest.fixture
def killed_by(queue, slots, casualties):
    """Return a function that has a process die of a message; returns the message's id."""
    queue("invoices", max_deliveries=2, backoff="fixed", backoff_base=60, jitter="none")

    def die(exit_code=-signal.SIGKILL):
        sent = send("invoices", {"n": 1}, priority=3)
        slots.start(1, the_delivery())
        assert casualties.add(1, exit_code, "worker 1")
        return sent

    return die


def the_delivery():
    return delivered(Delivery.objects.get())


def test_an_idle_process_has_died_of_nothing(slots, casualties):
    assert not casualties.add(0, -9, "worker 1")
    assert not casualties
    assert casualties.slots == set()


def test_a_death_is_a_failed_attempt_that_backs_off(casualties, slots, killed_by):
    sent = killed_by()
    assert casualties.slots == {1}
    casualties.settle()
    assert not casualties
    assert slots.running(1) is None
    again = Scheduled.objects.get()
    assert (again.message_id, again.attempt, again.priority) == (sent, 2, 3)
    assert failures() == [(sent, "WorkerDied")]
    assert waiting() == {"scheduled": 1}


def test_a_death_at_the_limit_is_a_dead_letter(casualties, killed_by, slots):
    sent = killed_by()
    casualties.settle()
    make_due()
    execute(
        "INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt)"
        " SELECT queue_id, priority, message_id, attempt FROM messaging_scheduled"
    )
    Scheduled.objects.all().delete()
    slots.start(0, the_delivery())
    casualties.add(0, 3, "worker 2")
    casualties.settle()
    dead = DeadLetter.objects.get()
    assert (dead.message_id, dead.reason, dead.attempts) == (sent, "worker_died", 2)
    assert "exit code 3" in dead.description
    assert waiting() == {"dead": 1}


@pytest.mark.parametrize(
    ("exit_code", "how"),
    [
        (-signal.SIGSEGV, "signal 11 (SIGSEGV)"),
        (-70, "signal 70"),
        (0, "exit code 0"),
        (None, "exit code None"),
    ],
)
def test_the_attempt_says_how_the_process_ended(casualties, killed_by, exit_code, how):
    killed_by(exit_code)
    casualties.settle()
    assert execute("SELECT description, worker FROM messaging_attempt") == [
        (f"The worker process ended while it handled this message: {how}.", "worker 1")
    ]


def test_a_delivery_that_a_session_still_holds_waits(
    casualties, killed_by, elsewhere, until, slots
):
    killed_by()
    held, may_let_go = [], []

    def hold():
        with transaction.atomic():
            held.extend(execute("SELECT id FROM messaging_delivery FOR UPDATE"))
            until(lambda: may_let_go)

    holding = elsewhere(hold)
    until(lambda: held)
    casualties.settle()
    assert casualties
    assert slots.running(1) is not None
    assert failures() == []
    may_let_go.append(True)
    holding.result()
    casualties.settle()
    assert not casualties
    assert len(failures()) == 1


def test_a_delivery_that_was_committed_before_the_death_is_not_counted(
    casualties, killed_by, slots
):
    killed_by()
    Delivery.objects.all().delete()
    casualties.settle()
    assert not casualties
    assert slots.running(1) is None
    assert failures() == []


def test_nothing_is_forgotten_while_the_database_is_away(casualties, killed_by, monkeypatch):
    killed_by()

    def refuse(using):
        raise OperationalError("the server is away")

    with monkeypatch.context() as away:
        away.setattr(module, "connection_for", refuse)
        casualties.settle()
    assert casualties
    casualties.settle()
    assert len(failures()) == 1


def test_no_connection_is_left_for_the_next_process_to_inherit(casualties, killed_by):
    killed_by()
    casualties.settle()
    assert connections["default"].connection is None


def test_receivers_hear_of_it(casualties, killed_by):
    heard = []

    def hear(sender, **kwargs):
        heard.append((sender, kwargs["retry_after"]))

    signals.message_failed.connect(hear)
    try:
        killed_by()
        casualties.settle()
    finally:
        signals.message_failed.disconnect(hear)
    assert heard == [("worker 1", 60)]


def test_a_process_that_is_really_killed_in_its_transaction_is_counted(
    queue, slots, casualties, until
):
    queue("invoices")
    sent = send("invoices", 1)
    delivery = the_delivery()
    connections.close_all()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        transaction.atomic().__enter__()
        execute("DELETE FROM messaging_delivery")
        slots.start(0, delivery)
        os.write(writing, b"!")
        signal.pause()
    os.read(reading, 1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    casualties.add(0, -signal.SIGKILL, "worker 1")

    def settled():
        casualties.settle()
        return not casualties

    until(settled)
    connection.ensure_connection()
    assert failures() == [(sent, "WorkerDied")]


def test_a_death_with_a_key_is_counted_though_another_process_finds_the_message_first(
    declare, runner, slots, casualties
):
    handled = []
    declare(lambda message: handled.append(message.body), transaction_size=5)
    sent = [send("invoices", body, ordering_key="ada") for body in (1, 2)]
    policy = policies(connection, names=["invoices"])[0]
    with transaction.atomic():
        (first, *_), _ = deliver(engine().source(policy, None), 5)
        slots.start(1, first.delivery)
        transaction.set_rollback(True)  # its process is killed
    casualties.add(1, -signal.SIGKILL, "worker 1")
    send("invoices", 3, ordering_key="bob")
    a_runner = runner(slots=slots, slot=0)
    a_runner.run_round()
    assert handled == [3]
    casualties.settle()
    assert failures() == [(sent[0], "WorkerDied")]
    make_due()
    drain()
    assert handled == [3, 1, 2]


def test_who_finds_what_a_process_died_of_leaves_it_to_the_supervisor(
    declare, runner, slots, casualties, elsewhere, until
):
    declare(take_effect)
    sent = send("invoices", 1)
    slots.start(1, the_delivery())
    casualties.add(1, -signal.SIGKILL, "worker 1")
    a_runner = runner(slots=slots, slot=0)
    pausing, counted = threading.Event(), threading.Event()

    def pause(seconds):
        pausing.set()
        assert counted.wait(15)

    a_runner._transactor._pause = pause
    running = elsewhere(a_runner.run_round)
    assert pausing.wait(15)
    casualties.settle()
    assert failures() == [(sent, "WorkerDied")]
    counted.set()
    running.result()
    assert effects() == []
