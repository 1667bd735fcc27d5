"""Test: consumers run on the real SQL, inside the test's own transaction."""

import psycopg
import pytest
from django.db import connection, transaction
from django.test import TestCase
from effects import effects, execute, failures, make_due, take_effect, waiting

from messaging import consumer, send, send_many, testing
from messaging.exceptions import UnknownQueue
from messaging.models import Queue
from messaging.testing import drain


@pytest.fixture
def record(declared, db):
    """Declare consumers of two queues that take effect, and create their rows."""
    for name in ("invoices", "emails"):
        consumer(name)(lambda message: take_effect(f"{message.queue} {message.body}"))
    drain()


def test_drain_handles_every_queue_and_says_how_many(record):
    send_many("invoices", [1, 2])
    send("emails", 3)
    assert drain() == 3
    assert sorted(effects()) == ["emails 3", "invoices 1", "invoices 2"]
    assert drain() == 0


def test_drain_handles_only_the_queues_named(record):
    send("invoices", 1)
    send("emails", 2)
    assert drain("emails") == 1
    assert effects() == ["emails 2"]
    assert waiting() == {"ready": 1}


def test_drain_follows_messages_that_handlers_send(declared, db):
    @consumer("countdown")
    def count_down(message):
        take_effect(message.body)
        if message.body:
            send("countdown", message.body - 1)

    drain()
    send("countdown", 3)
    assert drain() == 4
    assert effects() == ["3", "2", "1", "0"]


def test_drain_leaves_what_is_scheduled_until_it_is_due(record):
    send("invoices", 1, delay=60)
    assert drain() == 0
    make_due()
    assert drain() == 1


def test_drain_handles_a_retry_without_delay(declared, db):
    @consumer("invoices", max_deliveries=3, backoff_base=0)
    def fail(message):
        raise ValueError

    drain()
    send("invoices", 1)
    assert drain() == 3
    assert len(failures()) == 3
    assert waiting() == {"dead": 1}


def test_drain_creates_the_queues_that_are_declared(declared, db):
    consumer("brand-new")(lambda message: None)
    drain()
    assert Queue.objects.filter(name="brand-new").exists()


def test_drain_leaves_a_paused_queue_alone(record):
    send("invoices", 1)
    execute("UPDATE messaging_queue SET paused_at = statement_timestamp()")
    assert drain() == 0
    execute("UPDATE messaging_queue SET paused_at = NULL")
    assert drain() == 1


def test_drain_names_a_queue_without_consumer(record):
    with pytest.raises(UnknownQueue, match=r"'invoice'\. Did you mean 'invoices'"):
        drain("invoice")


def test_drain_stops_a_consumer_that_never_ends(declared, db, monkeypatch):
    @consumer("invoices")
    def echo(message):
        send("invoices", message.body)

    monkeypatch.setattr(testing, "MAX_ROUNDS", 50)
    drain()
    send("invoices", 1)
    with pytest.raises(RuntimeError, match="does a consumer send to itself"):
        drain()


def test_drain_goes_on_after_a_conflict(declared, db):
    conflicts = [True, True]

    @consumer("invoices")
    def lose_a_conflict(message):
        if conflicts:
            conflicts.pop()
            execute("DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END $$")
        take_effect(message.body)

    drain()
    send_many("invoices", [1, 2])
    assert drain() == 2
    assert sorted(effects()) == ["1", "2"]
    assert failures() == []


@pytest.mark.usefixtures("declared")
class TestInATestCase(TestCase):
    """Django's own test class, whose tests share one transaction that is rolled back."""

    def test_nothing_is_committed_that_the_test_does_not_commit(self):
        consumer("invoices")(lambda message: take_effect(message.body))
        drain()
        send("invoices", 1)
        assert drain() == 1
        assert connection.in_atomic_block
        with psycopg.connect(**session_parameters()) as other:
            assert other.execute("SELECT count(*) FROM auth_group").fetchone() == (0,)

    def test_hooks_run_when_the_test_asks_for_them(self):
        ran = []

        @consumer("invoices")
        def use_a_hook(message):
            transaction.on_commit(lambda: ran.append(message.body))

        drain()
        send("invoices", 1)
        with self.captureOnCommitCallbacks(execute=True):
            assert drain() == 1
            assert ran == []
        assert ran == [1]


def session_parameters():
    """Return what opens another session on the test's database."""
    names = ("host", "port", "user", "password", "dbname")
    parameters = connection.get_connection_params()
    return {name: parameters[name] for name in names if name in parameters}
