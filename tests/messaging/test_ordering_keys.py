"""Ordering keys: one after another within a key, beside each other across keys."""

import pytest
from django.db import connection, transaction

from messaging import Reject, Retry, consumer, send
from messaging.models import DeadLetter, Delivery, Lane, LaneEntry, Scheduled
from messaging.testing import drain

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare", "declared")]


def make_due():
    """Let what waits for a retry be due."""
    Scheduled.objects.update(due_at="2020-01-01T00:00Z")


def nothing_left():
    """Tell whether no key, token or message waits anywhere."""
    waiting = (Lane, LaneEntry, Delivery, Scheduled)
    return not any(model.objects.exists() for model in waiting)


@pytest.fixture
def handled():
    return []


@pytest.fixture
def invoices(handled, queue):
    """Declare a consumer that notes bodies and fails as often as ``failing`` says."""

    def declare(failing=(), error=RuntimeError, transaction_size=None, **policies):
        left = dict(failing)
        queue(**policies)

        @consumer("invoices", transaction_size=transaction_size)
        def handle(message):
            if left.get(message.body, 0):
                left[message.body] -= 1
                handled.append(f"{message.body} failed")
                raise error(message.body)
            handled.append(message.body)

    return declare


class TestOrder:
    def test_messages_of_a_key_come_in_the_order_of_their_commits(self, invoices, handled):
        invoices()
        for number in range(20):
            send("invoices", number, ordering_key="a" if number % 2 else "b")
        drain("invoices")
        assert [n for n in handled if n % 2] == list(range(1, 20, 2))
        assert [n for n in handled if not n % 2] == list(range(0, 20, 2))
        assert nothing_left()

    def test_a_key_with_many_messages_lets_the_others_come_in_between(self, invoices, handled):
        invoices(transaction_size=2)
        for number in range(50):
            send("invoices", f"busy {number}", ordering_key="busy")
        send("invoices", "other", ordering_key="other")
        drain("invoices")
        assert handled.index("other") < 5

    def test_a_key_may_go_idle_and_come_back(self, invoices, handled):
        invoices()
        for number in range(3):
            send("invoices", number, ordering_key="a")
            drain("invoices")
            assert nothing_left()
        assert handled == [0, 1, 2]

    def test_a_key_with_many_messages_has_one_token(self, invoices):
        invoices()
        for number in range(10):
            send("invoices", number, ordering_key="a")
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS messaging_join_lanes IMMEDIATE")
        assert (Delivery.objects.count(), LaneEntry.objects.count()) == (1, 10)

    def test_the_same_key_on_two_queues_is_two_keys(self, invoices, handled, queue):
        queue("bills")
        invoices({"a": 9}, max_deliveries=10)

        @consumer("bills")
        def pay(message):
            handled.append(f"bill {message.body}")

        send("invoices", "a", ordering_key="k")
        send("bills", "b", ordering_key="k")
        drain()
        assert handled[-1] == "bill b"


class TestFailures:
    @pytest.mark.parametrize("size", [None, 10])
    def test_block_has_the_key_wait_for_the_retry(self, size, invoices, handled):
        invoices({1: 2}, transaction_size=size)
        for number in range(3):
            send("invoices", number, ordering_key="a")
        send("invoices", "other", ordering_key="b")
        drain("invoices")
        assert sorted(map(str, handled)) == ["0", "1 failed", "other"]
        for _ in range(2):
            make_due()
            drain("invoices")
        assert [str(each) for each in handled if each != "other"] == [
            "0", "1 failed", "1 failed", "1", "2",
        ]  # fmt: skip
        assert nothing_left()

    def test_block_goes_on_behind_a_dead_letter(self, invoices, handled):
        invoices({1: 1}, max_deliveries=1)
        for number in range(3):
            send("invoices", number, ordering_key="a")
        drain("invoices")
        assert handled == [0, "1 failed", 2]
        assert DeadLetter.objects.get().reason == "max_deliveries"
        assert nothing_left()

    def test_skip_gives_up_the_order_of_what_failed(self, invoices, handled):
        invoices({1: 1}, on_failure="skip")
        for number in range(3):
            send("invoices", number, ordering_key="a")
        drain("invoices")
        assert handled == [0, "1 failed", 2]
        make_due()
        drain("invoices")
        assert handled[-1] == 1
        assert nothing_left()

    def test_park_sets_the_rest_of_the_key_aside_with_a_dead_letter(self, invoices, handled):
        invoices({1: 1}, on_failure="park", max_deliveries=1)
        for number in range(3):
            send("invoices", number, ordering_key="a")
        drain("invoices")
        send("invoices", 3, ordering_key="a")
        send("invoices", "other", ordering_key="b")
        drain("invoices")
        assert handled == [0, "1 failed", "other"]
        assert Lane.objects.get().parked_at is not None
        assert LaneEntry.objects.count() == 2

    def test_a_rejected_message_does_not_stop_its_key(self, invoices, handled):
        invoices({0: 1}, error=Reject)
        for number in range(2):
            send("invoices", number, ordering_key="a")
        drain("invoices")
        assert handled == ["0 failed", 1]

    def test_a_retry_that_does_not_count_keeps_its_place(self, invoices, handled):
        invoices({0: 1}, error=lambda body: Retry(after=0, counts=False))
        for number in range(2):
            send("invoices", number, ordering_key="a")
        drain("invoices")
        make_due()
        drain("invoices")
        assert handled == ["0 failed", 0, 1]


class TestTransactions:
    def test_what_is_rolled_back_leaves_no_key(self, invoices):
        invoices()
        with transaction.atomic():
            send("invoices", 1, ordering_key="a")
            transaction.set_rollback(True)
        drain("invoices")
        assert nothing_left()

    def test_a_handler_may_send_to_its_own_key(self, handled, queue):
        queue()

        @consumer("invoices")
        def handle(message):
            handled.append(message.body)
            if message.body < 3:
                send("invoices", message.body + 1, ordering_key="a")

        send("invoices", 0, ordering_key="a")
        drain("invoices")
        assert handled == [0, 1, 2, 3]
        assert nothing_left()


class TestDelays:
    def test_a_delayed_message_joins_its_key_when_it_is_due(self, invoices, handled):
        invoices()
        send("invoices", "later", ordering_key="a", delay=3600)
        send("invoices", "now", ordering_key="a")
        drain("invoices")
        assert handled == ["now"]
        make_due()
        drain("invoices")
        assert handled == ["now", "later"]
        assert nothing_left()


class TestPriorities:
    @pytest.mark.parametrize("kind", ["ordering_key", "fairness_key"])
    def test_a_key_comes_with_the_priority_of_its_next_message(self, kind, invoices, handled):
        invoices(transaction_size=1)
        for body, priority, key in [
            ("plain", 0, None),
            ("a urgent", 5, "a"),
            ("b low", -5, "b"),
            ("c low", -5, "c"),
            ("c urgent", 5, "c"),
        ]:
            send("invoices", body, priority=priority, **({kind: key} if key else {}))
        drain("invoices")
        assert handled == ["a urgent", "plain", "b low", "c low", "c urgent"]
        assert nothing_left()

    def test_a_key_that_goes_on_does_so_with_the_priority_of_what_is_next(self, invoices, handled):
        invoices(transaction_size=1)
        for body, priority, key in [
            ("a high", 5, "a"),
            ("a lowest", -6, "a"),
            ("b lower", -4, "b"),
            ("b high", 5, "b"),
        ]:
            send("invoices", body, priority=priority, ordering_key=key)
        send("invoices", "low", priority=-3)
        send("invoices", "lower", priority=-5)
        drain("invoices")
        assert handled == ["a high", "low", "b lower", "b high", "lower", "a lowest"]

    def test_a_retry_of_a_key_keeps_its_priority(self, invoices, handled):
        invoices({"urgent": 1}, transaction_size=1)
        send("invoices", "urgent", priority=5, ordering_key="a")
        drain("invoices")
        send("invoices", "plain")
        make_due()
        drain("invoices")
        assert handled == ["urgent failed", "urgent", "plain"]


class TestFairness:
    def test_a_sender_of_many_does_not_hold_up_a_sender_of_few(self, invoices, handled):
        invoices(transaction_size=1)
        for number in range(100):
            send("invoices", f"busy {number}", fairness_key="busy")
        send("invoices", "small", fairness_key="small")
        drain("invoices")
        assert handled.index("small") < 10
        assert len(handled) == 101
        assert nothing_left()

    def test_a_failing_message_does_not_stop_its_sender(self, invoices, handled):
        invoices({0: 1})
        for number in range(3):
            send("invoices", number, fairness_key="a")
        drain("invoices")
        assert handled == ["0 failed", 1, 2]
        make_due()
        drain("invoices")
        assert handled[-1] == 0
        assert nothing_left()
