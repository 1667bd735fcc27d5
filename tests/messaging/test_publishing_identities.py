"""A message that is sent again under its sender's own id, or with its own body, is stored once."""

import datetime
import uuid
from contextlib import suppress

import pytest
from django.db import connection, transaction
from django.utils import timezone
from senders import ONE

from messaging import (
    DeduplicationConflict,
    InvalidMessage,
    QueueDisabled,
    UnknownQueue,
    UnknownTopic,
    new_message_id,
    publish,
    publish_many,
    send,
    send_many,
)
from messaging.models import Deduplication, Delivery, Message, Queue, Scheduled, Topic

# Version 4: it says nothing of when it was made.
RANDOM = uuid.UUID("5e0c7f4e-8d1b-4a57-9c39-2b7a1c4f6d10")

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]


def windows(seconds):
    Queue.objects.update(deduplication_window=seconds)
    Topic.objects.update(deduplication_window=seconds)


def stored():
    return list(Message.objects.order_by("id").values_list("id", flat=True))


class TestOwnIds:
    """`message_id`, made by the sender: sending again stores nothing twice."""

    def test_a_new_id_is_a_uuid_of_version_7_and_later_ones_sort_after(self):
        before = datetime.datetime.now(datetime.UTC).timestamp() * 1000
        ids = [new_message_id() for _ in range(100)]
        after = datetime.datetime.now(datetime.UTC).timestamp() * 1000
        assert len(set(ids)) == 100
        for each in ids:
            assert (each.version, each.variant) == (7, uuid.RFC_4122)
            assert int(before) <= each.int >> 80 <= after

    @pytest.mark.parametrize(
        "options", [{}, {"delay": 60}, {"ordering_key": "a"}, {"correlation_id": "c"}]
    )
    @ONE
    def test_a_second_call_gets_the_first_ones_id(self, sender, options, invoices):
        own = new_message_id()
        first = sender({"a": 1, "b": 2}, message_id=own, **options)
        second = sender({"b": 2, "a": 1}, message_id=str(own).upper(), **options)
        assert (first.duplicate, second.duplicate, second) == (False, True, first)
        assert stored() == [first]

    @ONE
    def test_it_counts_for_seven_days_or_the_window_if_that_is_longer(self, sender, invoices):
        for window, days in ((300, 7), (0, 7), (86_400 * 30, 30), (None, None)):
            windows(window)
            own = new_message_id()
            first = sender(message_id=own)
            expires = Deduplication.objects.get(key=str(own)).expires_at
            published = Message.objects.get(pk=first).published_at
            assert (expires and expires - published) == (days and datetime.timedelta(days=days))
            assert sender(message_id=own).duplicate

    @ONE
    def test_when_it_is_over_the_same_id_is_new(self, sender, invoices):
        own = new_message_id()
        first = sender(message_id=own)
        Deduplication.objects.update(expires_at=timezone.now())
        second = sender("another body", message_id=own)
        assert not second.duplicate
        assert stored() == [first, second]

    @ONE
    def test_another_body_is_a_conflict(self, sender, invoices):
        own = new_message_id()
        first = sender(1, message_id=own)
        with transaction.atomic(), pytest.raises(DeduplicationConflict, match=str(first)):
            sender(2, message_id=own)
        assert stored() == [first]

    def test_another_destination_is_a_conflict(self, invoices, queue):
        queue("mails")
        own = new_message_id()
        first = send("invoices", 1, message_id=own)
        with pytest.raises(DeduplicationConflict, match="destination"):
            send("mails", 1, message_id=own)
        with pytest.raises(DeduplicationConflict):
            publish("orders.placed", 1, message_id=own)
        assert stored() == [first]

    @ONE
    def test_an_id_that_is_rolled_back_never_counted(self, sender, invoices):
        own = new_message_id()
        with suppress(LookupError), transaction.atomic():
            sender(message_id=own)
            raise LookupError
        assert not sender("another body", message_id=own).duplicate

    @pytest.mark.parametrize(
        "value", ["", "x", 5, b"x", RANDOM, str(RANDOM), uuid.UUID(int=0), []], ids=repr
    )
    def test_any_other_id_is_refused(self, value, invoices, django_assert_num_queries):
        with (
            django_assert_num_queries(0),
            pytest.raises(InvalidMessage, match="use a UUID of version 7") as refused,
        ):
            send("invoices", "x", message_id=value)
        assert refused.value.path == "message_id"

    def test_a_message_without_one_keeps_no_record(self, invoices):
        send("invoices", "x")
        send("invoices", "x", expires_in=60)
        assert not Deduplication.objects.exists()

    @ONE
    def test_it_is_one_statement(self, sender, invoices, django_assert_num_queries):
        with django_assert_num_queries(1):
            sender(message_id=new_message_id())

    def test_unknown_and_disabled_destinations_keep_no_record(self, invoices):
        own = new_message_id()
        for options in ({}, {"deduplication_id": "a"}):
            with pytest.raises(UnknownQueue):
                send("invoises", "x", message_id=own, **options)
            with pytest.raises(UnknownTopic):
                publish("orders.place", "x", message_id=own, **options)
            Queue.objects.update(disabled_at=timezone.now())
            with pytest.raises(QueueDisabled):
                send("invoices", "x", message_id=own, **options)
            Queue.objects.update(disabled_at=None)
        assert not Deduplication.objects.exists()
        assert not send("invoices", "x", message_id=own).duplicate


class TestBothIds:
    """A sender's own id beside a deduplication id."""

    @ONE
    def test_either_stores_nothing_twice(self, sender, invoices):
        own, other = new_message_id(), new_message_id()
        first = sender(message_id=own, deduplication_id="a")
        assert not first.duplicate
        for options in (
            {"message_id": own, "deduplication_id": "a"},
            {"message_id": own, "deduplication_id": "b"},
            {"message_id": own},
            {"message_id": other, "deduplication_id": "a"},
            {"message_id": other},
            {"deduplication_id": "a"},
        ):
            again = sender(**options)
            assert (again, again.duplicate) == (first, True)
        assert stored() == [first]

    @ONE
    def test_a_conflict_of_either_stores_nothing(self, sender, invoices):
        own, other = new_message_id(), new_message_id()
        first = sender(1, message_id=own, deduplication_id="a")
        with transaction.atomic():
            for options in (
                {"message_id": own, "deduplication_id": "b"},
                {"message_id": other, "deduplication_id": "a"},
            ):
                with pytest.raises(DeduplicationConflict):
                    sender(2, **options)
        assert stored() == [first]
        assert not sender(3, message_id=other, deduplication_id="b").duplicate


class TestContentBasedDeduplication:
    """`content_based_deduplication` hashes the canonical body."""

    @pytest.fixture(autouse=True)
    def by_content(self, bare, invoices):
        Queue.objects.update(content_based_deduplication=True)
        Topic.objects.update(content_based_deduplication=True)

    @pytest.mark.parametrize("options", [{}, {"delay": 60}, {"ordering_key": "a"}])
    @ONE
    def test_the_same_body_is_stored_once_within_the_window(self, sender, options):
        first = sender({"a": 1, "b": 2}, **options)
        second = sender({"b": 2, "a": 1}, **options)
        other = sender({"a": 1, "b": 3}, **options)
        assert (first.duplicate, second.duplicate, second) == (False, True, first)
        assert not other.duplicate
        Deduplication.objects.update(expires_at=timezone.now())
        third = sender({"a": 1, "b": 2}, **options)
        assert not third.duplicate
        assert stored() == [first, other, third]

    @ONE
    def test_a_deduplication_id_takes_the_place_of_the_body(self, sender):
        ids = [sender("x"), sender("x", deduplication_id="a"), sender("y", deduplication_id="b")]
        assert not any(message_id.duplicate for message_id in ids)
        assert sender("x").duplicate
        assert sender("x", deduplication_id="a").duplicate

    @ONE
    def test_a_window_of_0_is_off(self, sender):
        windows(0)
        assert len({sender("x"), sender("x")}) == 2
        assert not Deduplication.objects.exists()

    @pytest.mark.parametrize("count", [3, 700])
    @pytest.mark.parametrize("many", [send_many, publish_many])
    def test_a_batch_stores_each_body_once_and_ids_come_back_in_order(self, many, count):
        name = "invoices" if many is send_many else "orders.placed"
        (before,) = many(name, [1])
        ids = many(name, [0, 1, 0, *range(count)])
        bodies = dict(Message.objects.values_list("id", "body"))
        assert [bodies[each] for each in ids] == [0, 1, 0, *range(count)]
        assert [each.duplicate for each in ids] == [
            False, True, True, True, True, *[False] * (count - 2)
        ]  # fmt: skip
        assert ids[1] == before
        assert len(bodies) == Delivery.objects.count() == count

    def test_bodies_pruned_between_look_ups_are_new(self):
        send_many("invoices", [1, 2])

        def prune(execute, sql, params, many, context):
            if sql.lstrip().startswith("SELECT key, message_id"):
                with context["connection"].connection.cursor() as cursor:
                    cursor.execute(
                        "DELETE FROM messaging_deduplication WHERE message_id IN "
                        "(SELECT id FROM messaging_message WHERE body = '2')"
                    )
            return execute(sql, params, many, context)

        with connection.execute_wrapper(prune):
            ids = send_many("invoices", [1, 2, 3])
        assert [each.duplicate for each in ids] == [True, False, False]
        assert [Message.objects.get(pk=each).body for each in ids] == [1, 2, 3]
        assert Message.objects.count() == 4

    @ONE
    def test_a_senders_own_id_counts_beside_it(self, sender):
        own, other = new_message_id(), new_message_id()
        first = sender("x", message_id=own)
        assert sender("x", message_id=own) == first
        assert sender("x", message_id=other) == first
        with pytest.raises(DeduplicationConflict):
            sender("y", message_id=other)
        assert stored() == [first]

    def test_a_queue_that_subscribes_gets_what_its_topic_publishes(self):
        Topic.objects.update(content_based_deduplication=False)
        publish("orders.placed", "x")
        publish("orders.placed", "x")
        assert Delivery.objects.count() == 2


@pytest.mark.django_db(transaction=True)
class TestConcurrentSenders:
    """The second of two transactions waits for the first."""

    @pytest.mark.parametrize("kind", ["own id", "content", "both"])
    @pytest.mark.parametrize("commits", [True, False])
    def test_the_second_is_the_duplicate_of_the_first_unless_it_rolls_back(
        self, kind, commits, invoices, elsewhere, until, waiters
    ):
        options = {}
        if kind != "content":
            options["message_id"] = new_message_id()
        if kind != "own id":
            Queue.objects.update(content_based_deduplication=True)
        with suppress(LookupError), transaction.atomic():
            first = send("invoices", "x", **options)
            call = elsewhere(send, "invoices", "x", **options)
            until(lambda: waiters() == 1)
            assert not call.done()
            if not commits:
                raise LookupError
        second = call.result(15)
        assert (second == first, second.duplicate) == (commits, commits)
        assert stored() == [second]

    def test_batches_that_share_bodies_in_another_order_do_not_deadlock(self, invoices, elsewhere):
        Queue.objects.update(content_based_deduplication=True)
        forth = list(range(300))
        calls = [
            elsewhere(send_many, "invoices", bodies)
            for _ in range(3)
            for bodies in (forth, forth[::-1])
        ]
        results = [call.result(30) for call in calls]
        assert Message.objects.count() == 300
        assert sum(not each.duplicate for ids in results for each in ids) == 300
        assert not Scheduled.objects.exists()
