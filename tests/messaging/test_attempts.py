"""Attempts: what counts as a failed delivery, and what does not."""

import time

import pytest
from effects import execute, failures, let_leases_end, make_due, waiting

from messaging import Reject, Retry, receive, release_many, send
from messaging.models import DeadLetter, Delivery
from messaging.testing import drain

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def deliver(declare):
    """Return a function that has the deliveries end as told, and returns their numbers."""

    def run(*ends, **options):
        numbers, left = [], list(ends)

        def handle(given):
            (message,) = given if isinstance(given, list) else [given]
            numbers.append(message.attempt)
            if left:
                left.pop(0)()

        declare(handle, **{"max_deliveries": 3, "backoff_base": 0, **options})
        send("invoices", 1)
        while waiting().keys() - {"dead"}:
            drain("invoices")
            make_due()
        return numbers

    return run


def fail():
    raise ValueError


def take_too_long():
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pass


def take_too_long_in_sql():
    execute("SELECT pg_sleep(60)")


def lose_a_conflict():
    execute("DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40P01'; END $$")


def lose_the_connection():
    execute("SELECT pg_terminate_backend(pg_backend_pid())")


class TestADelivery:
    @pytest.mark.parametrize(
        ("end", "error", "options"),
        [
            (fail, "ValueError", {}),
            (fail, "ValueError", {"lease": 30}),
            (take_too_long, "HandlerTimeout", {"timeout": 0.05}),
            (take_too_long, "HandlerTimeout", {"timeout": 0.05, "lease": 30}),
            (take_too_long_in_sql, "HandlerTimeout", {"timeout": 0.05}),
            (take_too_long_in_sql, "HandlerTimeout", {"timeout": 0.05, "lease": 30}),
            (take_too_long_in_sql, "HandlerTimeout", {"timeout": 0.05, "batch": 5}),
        ],
    )
    def test_that_fails_counts_up_to_the_queues_limit(self, deliver, end, error, options):
        assert deliver(end, end, **options) == [1, 2, 3]
        assert [name for _, name in failures()] == [error] * 2
        assert waiting() == {}

    @pytest.mark.parametrize("end", [fail, take_too_long])
    def test_that_fails_at_the_limit_is_the_last(self, deliver, end):
        assert deliver(*[end] * 3, timeout=0.05) == [1, 2, 3]
        assert DeadLetter.objects.get().attempts == 3

    def test_whose_lease_ended_counts(self, deliver, elsewhere):
        assert deliver(lambda: elsewhere(let_leases_end).result(10), lease=30) == [1, 2]
        assert [name for _, name in failures()] == ["LeaseExpired"]

    @pytest.mark.parametrize("options", [{}, {"lease": 30}], ids=["plain", "leased"])
    def test_that_asks_not_to_be_counted_is_not(self, deliver, options):
        def ask():
            raise Retry(after=0, counts=False)

        assert deliver(*[ask] * 5, **options) == [1] * 6
        assert waiting() == {}

    @pytest.mark.parametrize("end", [lose_a_conflict, lose_the_connection])
    def test_that_the_database_undid_is_not_counted(self, deliver, end):
        # Under a lease, because drain() leaves it to its caller to connect again otherwise.
        assert deliver(end, lease=30, max_deliveries=1) == [1, 1]
        assert (failures(), waiting()) == ([], {})

    def test_that_is_rejected_is_the_last_at_once(self, deliver):
        def reject():
            raise Reject("no")

        assert deliver(reject) == [1]
        assert DeadLetter.objects.get().attempts == 1


class TestAReceivedMessage:
    @pytest.mark.parametrize(
        "release",
        [
            lambda message: message.release(),
            lambda message: message.release(after=60),
            lambda message: release_many([message]),
        ],
        ids=["now", "later", "with others"],
    )
    def test_that_is_released_does_not_count_however_often(self, queue, release):
        queue("invoices", max_deliveries=1)
        sent = send("invoices", 1)
        for _ in range(3):
            (message,) = receive("invoices")
            assert (message.id, message.attempt) == (sent, 1)
            release(message)
            make_due()
        assert failures() == []

    def test_whose_lease_ended_counts(self, queue):
        queue("invoices", max_deliveries=2, backoff_base=0)
        send("invoices", 1)
        for attempt in (1, 2):
            (message,) = receive("invoices")
            assert message.attempt == attempt
            let_leases_end()
        assert receive("invoices") == []
        assert (DeadLetter.objects.get().attempts, DeadLetter.objects.get().reason) == (
            2,
            "timeout",
        )


class TestAGracefulStop:
    @pytest.mark.parametrize("options", [{"transaction_size": 10}, {"lease": 30}, {"batch": 2}])
    def test_counts_nothing_of_what_it_leaves(self, declare, runner, options):
        def stop(given):
            a_runner.stop()

        declare(stop, max_deliveries=1, **options)
        for number in range(4):
            send("invoices", number)
        a_runner = runner()
        a_runner.run()
        left = Delivery.objects.values_list("attempt", flat=True)
        assert 1 <= len(left) <= 3
        assert set(left) == {1}
        assert (failures(), waiting()) == ([], {"ready": len(left)})
