"""Acknowledge: what a delivery comes to, by its outcome and its queue's policy."""

import pytest
from effects import effects, execute, failures, make_due, take_effect, waiting

from messaging import Reject, Retry, consumer, publish, send
from messaging.acknowledgement import outcome_of_death
from messaging.messages import Delivered, Settlement
from messaging.models import Attempt, DeadLetter, Queue, Scheduled
from messaging.policies import QueuePolicy
from messaging.testing import drain

pytestmark = pytest.mark.django_db

SECONDS_LEFT = """
    SELECT extract(epoch FROM due_at - statement_timestamp())::float8 FROM messaging_scheduled
"""


def seconds_left():
    """Return how long the one scheduled delivery has to wait, by the database's clock."""
    ((seconds,),) = execute(SECONDS_LEFT)
    return seconds


def raises(error):
    def handler(message):
        raise error

    return handler


def deliver_until_dead(limit=20):
    """Deliver again and again, without waiting; return the waits and the number of deliveries."""
    waits = []
    for _ in range(limit):
        drain("invoices")
        if not Scheduled.objects.exists():
            return waits, len(waits) + 1
        waits.append(seconds_left())
        make_due()
    raise AssertionError(f"alive after {limit} deliveries")


class TestAHandledMessage:
    def test_is_gone_and_never_delivered_again(self, declare):
        declare(lambda message: take_effect(message.id))
        sent = send("invoices", 1)
        assert drain("invoices") == 1
        assert drain("invoices") == 0
        assert effects() == [str(sent)]
        assert waiting() == {}
        assert failures() == []

    def test_stays_in_the_log(self, declare):
        declare(lambda message: None)
        sent = send("invoices", {"n": 1})
        drain("invoices")
        assert execute("SELECT id, body FROM messaging_message") == [(sent, '{"n": 1}')]


class TestRetry:
    def test_after_says_when_to_deliver_again(self, declare):
        declare(raises(Retry(after=30)), backoff_base=1)
        send("invoices", 1)
        drain("invoices")
        assert 29 < seconds_left() <= 30
        assert Scheduled.objects.get().attempt == 2
        assert failures()[0][1] == "Retry"

    def test_without_a_time_backs_off_as_the_queue_says(self, declare):
        declare(raises(Retry()), backoff="fixed", backoff_base=77, jitter="none")
        send("invoices", 1)
        drain("invoices")
        assert 76 < seconds_left() <= 77

    def test_that_does_not_count_never_uses_up_the_deliveries(self, declare):
        declare(raises(Retry(after=60, counts=False)), max_deliveries=1)
        send("invoices", 1)
        for _ in range(3):
            drain("invoices")
            make_due()
            assert Scheduled.objects.get().attempt == 1
        assert waiting() == {"scheduled": 1}

    def test_that_counts_ends_in_the_dead_letters(self, declare):
        declare(raises(Retry(after=60)), max_deliveries=3)
        send("invoices", 1)
        assert deliver_until_dead()[1] == 3
        assert DeadLetter.objects.get().reason == "max_deliveries"

    def test_keeps_priority_and_subscription(self, declare, topic, subscribe):
        topic("bills.sent")
        declare(raises(Retry(after=60)), max_deliveries=2)
        subscription = subscribe("bills.*", "invoices")
        publish("bills.sent", 1, priority=7)
        drain("invoices")
        again = Scheduled.objects.get()
        assert (again.priority, again.subscription_id) == (7, subscription.pk)
        deliver_until_dead()
        dead = DeadLetter.objects.get()
        assert (dead.priority, dead.subscription_id) == (7, subscription.pk)

    def test_after_whole_seconds_shares_a_transaction_with_one_that_backs_off(self, declare):
        def fail_in_two_ways(message):
            raise Retry(after=60) if message.body else ValueError

        declare(fail_in_two_ways, transaction_size=10, backoff_base=60.5, jitter="none")
        send("invoices", True)
        send("invoices", False)
        assert drain("invoices") == 2
        assert waiting() == {"scheduled": 2}

    def test_is_handled_when_it_succeeds_at_last(self, declare):
        attempts = []

        def succeed_later(message):
            attempts.append(message.attempt)
            if message.attempt < 3:
                raise Retry(after=60)
            take_effect("done")

        declare(succeed_later, max_deliveries=3)
        send("invoices", 1)
        deliver_until_dead()
        assert attempts == [1, 2, 3]
        assert effects() == ["done"]
        assert waiting() == {}


class TestReject:
    def test_is_dead_at_once_with_the_reason_given(self, declare):
        declare(raises(Reject("No such order: 7.")), max_deliveries=5)
        sent = send("invoices", 1)
        assert drain("invoices") == 1
        dead = DeadLetter.objects.get()
        assert (dead.message_id, dead.reason, dead.attempts) == (sent, "rejected", 1)
        assert (dead.error, dead.description) == ("Reject", "No such order: 7.")
        assert waiting() == {"dead": 1}


class TestBackOff:
    @pytest.mark.parametrize(
        ("policies", "waits"),
        [
            ({"backoff": "fixed", "backoff_base": 5}, [5, 5, 5, 5]),
            ({"backoff": "linear", "backoff_base": 5}, [5, 10, 15, 20]),
            ({"backoff": "exponential", "backoff_base": 5}, [5, 10, 20, 40]),
            ({"backoff": "exponential", "backoff_base": 5, "backoff_cap": 12}, [5, 10, 12, 12]),
            ({"backoff": "list", "backoff_delays": [1, 60, 9]}, [1, 60, 9, 9]),
        ],
    )
    def test_grows_as_the_policy_says(self, declare, policies, waits):
        declare(raises(ValueError()), max_deliveries=5, jitter="none", **policies)
        send("invoices", 1)
        found, deliveries = deliver_until_dead()
        assert found == pytest.approx(waits, abs=1)
        assert deliveries == 5

    def test_follows_the_row_and_not_the_declaration(self, declare):
        declare(raises(ValueError()), max_deliveries=5, backoff="fixed", backoff_base=5)
        Queue.objects.filter(name="invoices").update(
            backoff_base=500, jitter="none", max_deliveries=2
        )
        send("invoices", 1)
        found, deliveries = deliver_until_dead()
        assert found == pytest.approx([500], abs=1)
        assert deliveries == 2


class TestADeadLetter:
    @pytest.mark.parametrize("limit", [1, 2, 5])
    def test_comes_after_exactly_so_many_deliveries(self, declare, limit):
        declare(raises(ValueError("no")), max_deliveries=limit)
        send("invoices", 1)
        assert deliver_until_dead()[1] == limit
        assert DeadLetter.objects.get().attempts == limit
        assert waiting() == {"dead": 1}

    def test_tells_what_where_and_why(self, declare, topic, subscribe):
        topic("bills.sent")
        declare(raises(KeyError("total")), max_deliveries=2, backoff_base=60)
        subscribe("bills.*", "invoices")
        sent = publish("bills.sent", {"n": 1}, headers={"a": "b"}, ordering_key="k", priority=3)
        deliver_until_dead()
        dead = DeadLetter.objects.get()
        assert dead.message_id == sent
        assert (dead.origin.name, dead.queue.name) == ("invoices", "invoices.dlq")
        assert (dead.topic.name, dead.ordering_key, dead.priority) == ("bills.sent", "k", 3)
        assert (dead.body, dead.headers) == ({"n": 1}, {"a": "b"})
        assert (dead.reason, dead.attempts) == ("max_deliveries", 2)
        assert (dead.error, dead.description) == ("KeyError", "'total'")
        assert "raise error" in dead.traceback
        assert dead.traceback.rstrip().endswith("KeyError: 'total'")
        assert len(dead.fingerprint) == 16
        assert dead.died_at > dead.published_at

    def test_keeps_its_payload_when_the_log_loses_it(self, declare):
        declare(raises(Reject("no")))
        send("invoices", {"n": 1})
        drain("invoices")
        execute("DELETE FROM messaging_message")
        assert DeadLetter.objects.get().body == {"n": 1}

    def test_has_the_history_of_its_attempts(self, declare):
        def fail_differently(message):
            raise [ValueError, KeyError, Reject][message.attempt - 1](f"try {message.attempt}")

        declare(fail_differently, backoff_base=60)
        sent = send("invoices", 1)
        deliver_until_dead()
        history = Attempt.objects.filter(message_id=sent).values_list(
            "attempt", "outcome", "error", "description", "worker"
        )
        assert list(history) == [
            (1, "retry", "ValueError", "try 1", "drain"),
            (2, "retry", "KeyError", "'try 2'", "drain"),
            (3, "rejected", "Reject", "try 3", "drain"),
        ]
        for row in Attempt.objects.all():
            assert row.duration >= 0
            assert "fail_differently" in row.traceback

    def test_is_held_under_its_queue_when_that_has_no_dead_letter_queue(self, declare):
        declare(raises(Reject("no")))
        Queue.objects.filter(name="invoices").update(dead_letter_queue=None)
        send("invoices", 1)
        drain("invoices")
        assert DeadLetter.objects.get().queue.name == "invoices"


class TestAnErrorThatIsHardToStore:
    class Unspeakable(Exception):
        def __str__(self):
            raise RuntimeError("even its text fails")

    @pytest.mark.parametrize(
        ("error", "shown"),
        [
            (ValueError("a\0b"), "a\\0b"),
            (ValueError("a\ud800b"), "a\\ud800b"),
            (ValueError("x" * 1_000_000), "x" * 2000),
            (Unspeakable(), "(the error's text cannot be shown)"),
        ],
        ids=["NUL", "lone surrogate", "huge", "no text"],
    )
    def test_is_stored_all_the_same(self, declare, error, shown):
        declare(raises(error))
        send("invoices", 1)
        drain("invoices")
        assert Attempt.objects.get().description == shown

    def test_has_the_end_of_a_long_traceback(self, declare):
        def recurse(message, depth=0):
            if depth == 200:
                raise ValueError("x" * 30_000 + " the end")
            recurse(message, depth + 1)

        declare(recurse)
        send("invoices", 1)
        drain("invoices")
        traceback = Attempt.objects.get().traceback
        assert len(traceback) == 20_000
        assert traceback.rstrip().endswith("the end")

    def test_is_told_with_what_caused_it(self, declare):
        def chain(message):
            try:
                raise KeyError("cause")
            except KeyError as error:
                raise ValueError("effect") from error

        declare(chain)
        send("invoices", 1)
        drain("invoices")
        assert "KeyError: 'cause'" in Attempt.objects.get().traceback


class TestTheFingerprint:
    def of(self, *errors):
        """Return the fingerprints of the same place failing with these errors in turn."""
        remaining = list(errors)

        @consumer("invoices", max_deliveries=1)
        def handler(message):
            raise remaining.pop(0)

        drain("invoices")
        for _ in errors:
            send("invoices", 1)
            drain("invoices")
        return list(DeadLetter.objects.order_by("pk").values_list("fingerprint", flat=True))

    def test_is_the_same_for_the_same_error_whatever_its_text(self, declared):
        first, second = self.of(ValueError("order 1"), ValueError("order 2"))
        assert first == second

    def test_differs_for_another_error(self, declared):
        first, second = self.of(ValueError("order 1"), KeyError("order 1"))
        assert first != second

    def test_differs_for_another_place(self, declare):
        def fail_here():
            raise ValueError

        def fail_there():
            raise ValueError

        declare(lambda message: fail_here() if message.body else fail_there(), max_deliveries=1)
        for body in (True, False):
            send("invoices", body)
        drain("invoices")
        first, second = DeadLetter.objects.values_list("fingerprint", flat=True)
        assert first != second


class TestADeathOfTheWorker:
    def outcome(self, attempt):
        policy = QueuePolicy(id=1, name="invoices", max_deliveries=3, backoff_base=5, jitter="none")
        delivered = Delivered(
            id=1, queue_id=1, priority=0, message_id=1, attempt=attempt, subscription_id=None
        )
        return outcome_of_death(policy, delivered, "signal 9 (SIGKILL)")

    def test_is_retried_with_back_off_while_deliveries_are_left(self):
        outcome = self.outcome(attempt=2)
        assert (outcome.settlement, outcome.after, outcome.counts) == (Settlement.RETRY, 10, True)

    def test_is_a_dead_letter_at_the_limit(self):
        outcome = self.outcome(attempt=3)
        assert (outcome.settlement, outcome.reason) == (Settlement.DEAD, "worker_died")
        assert "signal 9 (SIGKILL)" in outcome.failure.description
