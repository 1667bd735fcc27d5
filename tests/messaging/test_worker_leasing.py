"""Leased consumers: a message is held, handled in a transaction of its own, and settled in time."""

import pytest
from django.db import OperationalError, connection, transaction
from effects import (
    break_the_commit,
    effects,
    execute,
    failures,
    let_leases_end,
    make_due,
    take_effect,
    waiting,
)
from psycopg import errors

from messaging import LeaseLost, NotSupported, Reject, Retry, receive, send, send_many, signals
from messaging.models import DeadLetter
from messaging.testing import drain
from messaging.worker.leasing import INNOCENT_LOSSES

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cut():
    """Return a function that has the server end this session."""
    return lambda: execute("SELECT pg_terminate_backend(pg_backend_pid())")


class TestALeasedHandler:
    def test_takes_effect_and_is_acknowledged_together(self, declare):
        declare(lambda message: take_effect(message.body), lease=30)
        send_many("invoices", [1, 2, 3])
        assert drain() == 3
        assert effects() == ["1", "2", "3"]
        assert waiting() == {}

    def test_holds_its_message_while_it_runs(self, declare):
        found = []

        def look(message):
            found.append((waiting(), float(execute(
                "SELECT extract(epoch FROM leased_until - leased_at) FROM messaging_lease"
            )[0][0])))  # fmt: skip

        declare(look, lease=77)
        send("invoices", 1)
        drain()
        assert found == [({"leased": 1}, 77)]

    def test_has_no_transaction_open_until_it_uses_the_database(self, declare):
        states = []

        def look(message):
            states.append(connection.connection.info.transaction_status.name)
            execute("SELECT 1")
            states.append(connection.connection.info.transaction_status.name)

        declare(look, lease=30)
        send("invoices", 1)
        assert drain() == 1
        assert states == ["IDLE", "INTRANS"]

    def test_that_needs_no_database_is_acknowledged_too(self, declare):
        declare(lambda message: None, lease=30)
        send("invoices", 1)
        assert drain() == 1
        assert (waiting(), failures()) == ({}, [])

    def test_runs_what_it_wants_done_after_the_commit(self, declare):
        found = []
        declare(lambda message: transaction.on_commit(lambda: found.append(waiting())), lease=30)
        send("invoices", 1)
        drain()
        assert found == [{}]

    def test_handles_messages_of_a_key_in_order_and_one_at_a_time(self, declare):
        handled = []

        def handle(message):
            handled.append(message.body)
            if message.body == 2 and message.attempt == 1:
                raise Retry(after=0)

        declare(handle, lease=30)
        send_many("invoices", [1, 2, 3], ordering_key="customer-1")
        drain()
        make_due()
        drain()
        assert handled == [1, 2, 2, 3]
        assert waiting() == {}


class TestFailures:
    def test_a_failing_handler_leaves_nothing_and_is_retried(self, declare):
        def fail(message):
            take_effect(message.body)
            raise ValueError("No.")

        declare(fail, lease=30, backoff_base=60)
        sent = send("invoices", 1)
        assert drain() == 1
        assert (effects(), waiting()) == ([], {"scheduled": 1})
        assert failures() == [(sent, "ValueError")]

    def test_at_the_limit_it_is_dead(self, declare):
        declare(lambda message: 1 / 0, lease=30, max_deliveries=2, backoff_base=0)
        send("invoices", 1)
        assert drain() == 2
        assert DeadLetter.objects.get().reason == "max_deliveries"
        assert waiting() == {"dead": 1}

    def test_a_rejected_message_is_dead_at_once(self, declare):
        def reject(message):
            raise Reject("No such order.")

        declare(reject, lease=30)
        send("invoices", 1)
        drain()
        assert DeadLetter.objects.get().description == "No such order."

    def test_a_retry_that_does_not_count_does_not(self, declare):
        def wait(message):
            raise Retry(after=60, counts=False)

        declare(wait, lease=30)
        send("invoices", 1)
        drain()
        assert execute("SELECT attempt FROM messaging_scheduled") == [(1,)]

    def test_a_commit_that_is_refused_counts_as_a_failure(self, declare):
        def orphan(message):
            take_effect(message.body)
            break_the_commit()

        declare(orphan, lease=30, backoff_base=60)
        sent = send("invoices", 1)
        assert drain() == 1
        assert effects() == []
        assert [message_id for message_id, _ in failures()] == [sent]
        assert waiting() == {"scheduled": 1}

    def test_a_handler_that_ends_its_transaction_fails(self, declare):
        def commit(message):
            take_effect(message.body)
            connection.connection.commit()

        declare(commit, lease=30, backoff_base=60)
        send("invoices", 1)
        assert drain() == 1
        assert waiting() == {"scheduled": 1}

    def test_a_handler_that_closes_the_connection_fails(self, declare):
        declare(lambda message: connection.close(), lease=30, backoff_base=60)
        send("invoices", 1)
        assert drain() == 1
        assert waiting() == {"scheduled": 1}


class TestLostConnections:
    def test_a_lost_connection_has_the_handler_run_again_and_does_not_count(self, declare, cut):
        runs = []

        def handle(message):
            take_effect(message.body)
            runs.append(message.attempt)
            if len(runs) == 1:
                cut()

        declare(handle, lease=30)
        send("invoices", 1)
        assert drain() == 1
        assert (runs, effects(), failures(), waiting()) == ([1, 1], ["1"], [], {})

    def test_a_message_that_loses_every_connection_fails(self, declare, cut):
        runs = []

        def handle(message):
            runs.append(1)
            cut()

        declare(handle, lease=30, backoff_base=60)
        send("invoices", 1)
        assert drain() == 1
        assert len(runs) == INNOCENT_LOSSES
        assert waiting() == {"scheduled": 1}

    def test_a_conflict_has_the_handler_run_again_and_does_not_count(self, declare):
        runs = []

        def handle(message):
            take_effect(message.body)
            runs.append(1)
            if len(runs) == 1:
                raise OperationalError("deadlock") from errors.DeadlockDetected("deadlock")

        declare(handle, lease=30)
        send("invoices", 1)
        assert drain() == 1
        assert (len(runs), effects(), failures()) == (2, ["1"], [])


class TestLostLeases:
    def test_a_handler_that_is_too_late_leaves_no_effect_and_its_lease_is_counted_once(
        self, declare, elsewhere
    ):
        def dawdle(message):
            take_effect(message.attempt)
            if message.attempt == 1:
                elsewhere(let_leases_end).result(10)

        declare(dawdle, lease=30, backoff_base=0)
        sent = send("invoices", 1)
        assert drain() == 1
        assert effects() == ["2"]
        assert failures() == [(sent, "LeaseExpired")]
        assert waiting() == {}

    def test_a_handler_whose_message_went_to_another_leaves_no_effect(self, declare, elsewhere):
        received = []

        def steal():
            let_leases_end()
            received.extend(receive("invoices"))

        def dawdle(message):
            take_effect("late")
            elsewhere(steal).result(10)

        declare(dawdle, lease=30, backoff_base=0)
        send("invoices", 1)
        drain()
        assert effects() == []
        assert received[0].attempt == 2
        received[0].acknowledge()
        assert waiting() == {}

    def test_a_failure_that_is_too_late_is_not_counted(self, declare, elsewhere):
        def fail_late(message):
            elsewhere(let_leases_end).result(10)
            raise ValueError

        declare(fail_late, lease=30, backoff_base=60)
        sent = send("invoices", 1)
        assert drain() == 0
        assert (failures(), waiting()) == ([(sent, "LeaseExpired")], {"scheduled": 1})

    def test_the_worker_says_so(self, declare, elsewhere, caplog):
        declare(lambda message: elsewhere(let_leases_end).result(10), lease=30)
        sent = send("invoices", 1)
        drain()
        assert f"Message lost its lease and is not settled id={sent} queue=invoices" in caplog.text


class TestTheMessage:
    @pytest.mark.parametrize(
        ("settle", "remedy"),
        [
            (lambda message: message.acknowledge(), "return from the handler instead"),
            (lambda message: message.release(), r"raise Retry\(after=..., counts=False\) instead"),
            (lambda message: message.reject("No."), r"raise Reject\(reason\) instead"),
        ],
    )
    def test_cannot_be_settled_by_its_handler_which_is_told_what_to_do(
        self, declare, settle, remedy
    ):
        def handle(message):
            with pytest.raises(NotSupported, match=remedy):
                settle(message)

        declare(handle, lease=30)
        send("invoices", 1)
        assert drain() == 1
        assert (failures(), waiting()) == ([], {})

    def test_can_be_extended_by_its_handler(self, declare):
        def extend(message):
            message.extend(3600)
            take_effect(
                execute(
                    "SELECT leased_until > statement_timestamp() + interval '3000 seconds'"
                    " FROM messaging_lease"
                )[0][0]
            )

        declare(extend, lease=30)
        send("invoices", 1)
        assert drain() == 1
        assert effects() == ["True"]

    def test_that_lost_its_lease_cannot_be_extended(self, declare, elsewhere):
        def extend(message):
            elsewhere(let_leases_end).result(10)
            with pytest.raises(LeaseLost):
                message.extend(60)

        declare(extend, lease=30)
        send("invoices", 1)
        assert drain() == 0


def test_a_leased_consumer_runs_in_the_transaction_of_a_test(declare):
    declare(lambda message: take_effect(message.body), lease=30)
    with transaction.atomic():
        send("invoices", 1)
        assert drain() == 1
        assert effects() == ["1"]
        transaction.set_rollback(True)
    assert (effects(), waiting()) == ([], {})


def test_observers_are_told_once(declare):
    told = []

    def receiver(sender, message, **facts):
        told.append(message.body)

    signals.message_handled.connect(receiver)
    try:
        declare(lambda message: None, lease=30)
        send("invoices", 5)
        drain()
    finally:
        signals.message_handled.disconnect(receiver)
    assert told == [5]
