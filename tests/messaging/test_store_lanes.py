"""Lanes are joined at the commit, in order, and nobody waits for them longer than that."""

import threading

import pytest
from django.contrib.auth.models import Group
from django.db import connection, transaction
from effects import make_due

from messaging import Reject, consumer, receive, send, send_many
from messaging.control.keys import release_key
from messaging.engines import engine
from messaging.messages import Delivered, Outcome, Settlement
from messaging.models import Delivery, Lane, LaneEntry, Message, Scheduled
from messaging.store import lanes
from messaging.store.configuration import policies
from messaging.testing import drain

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("bare", "declared"),
]


@pytest.fixture
def handled(queue):
    """Return the bodies that a consumer of invoices has handled."""
    queue()
    bodies = []

    @consumer("invoices")
    def handle(message):
        bodies.append(message.body)

    return bodies


def source():
    """Return a reader of the queue invoices."""
    return engine().source(policies(connection, names=["invoices"])[0], None)


class TestJoining:
    def test_the_order_is_that_of_the_commits_and_not_of_the_calls(self, handled, elsewhere):
        sent, may_commit = threading.Event(), threading.Event()

        def send_early_and_commit_late():
            with transaction.atomic():
                send("invoices", "called first", ordering_key="a")
                sent.set()
                assert may_commit.wait(15)

        late = elsewhere(send_early_and_commit_late)
        assert sent.wait(15)
        # Waits for nobody: the lock of a key is held at the commit only.
        send("invoices", "committed first", ordering_key="a")
        may_commit.set()
        late.result(15)
        drain("invoices")
        assert handled == ["committed first", "called first"]

    def test_two_transactions_that_send_to_the_same_keys_do_not_deadlock(self, handled, elsewhere):
        meeting = threading.Barrier(2)

        def send_to(keys):
            for _ in range(20):
                with transaction.atomic():
                    send("invoices", 1, ordering_key=keys[0])
                    meeting.wait(15)
                    send("invoices", 1, ordering_key=keys[1])

        both = [elsewhere(send_to, "ab"), elsewhere(send_to, "ba")]
        for each in both:
            each.result(30)
        drain("invoices")
        assert len(handled) == 80

    def test_publishers_of_one_key_wait_for_each_other_and_of_two_do_not(
        self, handled, elsewhere, until, waiters
    ):
        with transaction.atomic():
            send("invoices", 1, ordering_key="a")
            lanes.join_now(connection)  # as far as in the middle of its commit
            elsewhere(send, "invoices", 2, ordering_key="b").result(15)
            same = elsewhere(send, "invoices", 3, ordering_key="a")
            until(lambda: waiters() == 1)
        same.result(15)
        drain("invoices")
        assert sorted(handled) == [1, 2, 3]
        assert handled.index(1) < handled.index(3)

    def test_a_late_one_finds_a_token_though_its_lane_was_empty_meanwhile(self, handled, elsewhere):
        send("invoices", 1, ordering_key="a")
        joined, may_commit = threading.Event(), threading.Event()

        def send_slowly():
            with transaction.atomic():
                send("invoices", 2, ordering_key="a")
                lanes.join_now(connection)
                joined.set()
                assert may_commit.wait(15)

        slow = elsewhere(send_slowly)
        assert joined.wait(15)
        drain("invoices")  # ends without waiting, and leaves the token
        assert handled == [1]
        assert Lane.objects.exists()
        may_commit.set()
        slow.result(15)
        Scheduled.objects.update(due_at="2020-01-01T00:00Z")
        drain("invoices")
        assert handled == [1, 2]
        assert not Lane.objects.exists()


class TestTaking:
    def test_a_second_claim_gets_nothing_of_a_key_that_is_in_flight(self, handled, elsewhere):
        for number in range(3):
            send("invoices", number, ordering_key="a")

        def claim():
            with transaction.atomic():
                found = [row.body for row in source().claim(10, thorough=True)]
                transaction.set_rollback(True)
            return found

        with transaction.atomic():
            taken = source().claim(1, thorough=True)
            assert [row.body for row in taken] == ["0"]
            assert elsewhere(claim).result(15) == []
            transaction.set_rollback(True)
        assert claim() == ["0", "1", "2"]

    def test_the_tokens_of_a_fairness_key_are_taken_beside_each_other(self, handled, elsewhere):
        for number in range(30):
            send("invoices", number, fairness_key="a")
        assert Delivery.objects.count() == 8

        def claim():
            with transaction.atomic():
                found = [row.body for row in source().claim(1, thorough=True)]
                transaction.set_rollback(True)
            return found

        with transaction.atomic():
            assert [row.body for row in source().claim(1, thorough=True)] == ["0"]
            assert elsewhere(claim).result(15) == ["1"]
            transaction.set_rollback(True)

    @pytest.mark.parametrize(
        ("key", "taken"), [("ordering_key", ["0"]), ("fairness_key", ["0", "2", "3"])]
    )
    def test_nothing_of_an_ordering_key_goes_before_what_an_operator_has_locked(
        self, handled, elsewhere, key, taken
    ):
        send_many("invoices", range(4), **{key: "a"})
        locked, may_end = threading.Event(), threading.Event()

        def purge_and_think_better_of_it(number):
            with transaction.atomic():
                LaneEntry.objects.filter(pk=entries[number]).delete()
                locked.set()
                assert may_end.wait(15)
                transaction.set_rollback(True)

        def claim():
            with transaction.atomic():
                rows = source().claim(10, thorough=True)
                transaction.set_rollback(True)
            return [row.body for row in rows]

        entries = list(LaneEntry.objects.order_by("pk").values_list("pk", flat=True))
        purge = elsewhere(purge_and_think_better_of_it, 1)
        assert locked.wait(15)
        assert claim() == taken
        may_end.set()
        purge.result(15)
        locked.clear()
        may_end.clear()
        purge = elsewhere(purge_and_think_better_of_it, 0)
        assert locked.wait(15)
        drain("invoices")
        if key == "ordering_key":
            assert handled == []
        may_end.set()
        purge.result(15)
        Scheduled.objects.update(due_at="2020-01-01T00:00Z")
        drain("invoices")
        assert sorted(handled) == [0, 1, 2, 3]
        if key == "ordering_key":
            assert handled == [0, 1, 2, 3]

    def test_one_a_lane_takes_the_first_of_each_key(self, handled):
        for key in "ab":
            for number in range(3):
                send("invoices", f"{key}{number}", ordering_key=key)
        with transaction.atomic():
            rows = source().claim(10, thorough=True, one_a_lane=True)
            transaction.set_rollback(True)
        assert [row.body for row in rows] == ['"a0"', '"b0"']

    def test_a_token_is_known_by_its_own_id_and_the_entry_by_its_place(self, handled):
        send("invoices", 1, ordering_key="a")
        token, entry = Delivery.objects.get(), LaneEntry.objects.get()
        with transaction.atomic():
            row = source().claim(1, thorough=True)[0]
            transaction.set_rollback(True)
        assert (row.id, row.entry_id, row.lane_id) == (token.pk, entry.pk, token.lane_id)

    def test_a_key_may_wait_before_its_next_message(self, handled):
        for number in range(2):
            send("invoices", number, ordering_key="a")
        reader = source()
        with transaction.atomic():
            row = reader.claim(1, thorough=True)[0]
            delivered = Delivered._make(row[:10])
            reader.settle([], [delivered], "worker", waits={row.lane_id: 60.0})
        drain("invoices")
        assert handled == []
        assert Scheduled.objects.get().lane_id == row.lane_id
        Scheduled.objects.update(due_at="2020-01-01T00:00Z")
        drain("invoices")
        assert handled == [0, 1]


class TestParking:
    @pytest.fixture
    def rejected(self, queue):
        """Return the bodies that a consumer has rejected, of a queue that parks keys for that."""
        queue(on_failure="park")
        bodies = []

        @consumer("invoices")
        def reject(message):
            bodies.append(message.body)
            raise Reject("No such order")

        return bodies

    def test_a_key_is_parked_without_waiting_for_a_publisher_who_waits_for_the_handler(
        self, rejected, elsewhere, until, waiters
    ):
        """The publisher holds the key and waits for a row; the handler's transaction has the row.

        Waiting for the key would be a deadlock, which PostgreSQL ends with an error for one.
        """
        Group.objects.create(name="row")
        send_many("invoices", [1, 2], ordering_key="a")
        joined = threading.Event()

        def publish():
            with transaction.atomic():
                send("invoices", 3, ordering_key="a")
                lanes.join_now(connection)
                joined.set()
                Group.objects.select_for_update().get()

        reader = source()
        with transaction.atomic():
            Group.objects.select_for_update().get()
            (row,) = reader.claim(1, thorough=True)
            publisher = elsewhere(publish)
            assert joined.wait(15)
            until(lambda: waiters() == 1)
            outcome = Outcome(Delivered._make(row[:10]), Settlement.DEAD, reason="rejected")
            reader.settle([outcome], [], "worker")
        publisher.result(15)
        assert Lane.objects.get().parked_at is None
        make_due()
        drain("invoices")
        assert rejected == []
        assert Lane.objects.get().parked_at is not None
        assert not Delivery.objects.exists()
        assert LaneEntry.objects.count() == 2
        release_key("invoices", "a")
        drain("invoices")
        assert rejected == [2]

    def test_a_rejected_message_parks_its_key_with_no_lock_while_its_transaction_goes_on(
        self, rejected, elsewhere
    ):
        send_many("invoices", [1, 2], ordering_key="a")
        (message,) = receive("invoices")
        with transaction.atomic():
            message.reject("No such order")
            elsewhere(send, "invoices", 3, ordering_key="a").result(15)
        assert receive("invoices") == []
        assert Lane.objects.get().parked_at is not None
        assert LaneEntry.objects.count() == 2

    def test_what_is_about_to_be_parked_holds_up_nothing_else(self, rejected):
        send_many("invoices", [1, 2], ordering_key="a")
        (message,) = receive("invoices")
        with transaction.atomic():
            message.reject("No such order")
        send_many("invoices", [3, 4])
        drain("invoices")
        assert rejected == [3, 4]
        assert Lane.objects.get().parked_at is not None
        assert not Delivery.objects.exists()


class TestRetention:
    def test_without_retention_a_message_is_gone_with_its_acknowledgement(self, handled):
        from messaging.models import Queue

        Queue.objects.update(retention=0)
        send("invoices", 1)
        send("invoices", 2, ordering_key="a")
        drain("invoices")
        assert sorted(handled) == [1, 2]
        assert not Message.objects.exists()
