"""A queue with a max length never holds more, and its policy says what goes."""

from contextlib import suppress

import pytest
from django.db import connection, transaction
from django.utils import timezone

from messaging import (
    DeduplicationConflict,
    QueueFull,
    UnknownQueue,
    consumer,
    publish,
    publish_many,
    send,
    send_many,
)
from messaging.models import (
    Arrival,
    DeadLetter,
    Deduplication,
    Delivery,
    Message,
    Queue,
    Room,
    Scheduled,
)
from messaging.store import room
from messaging.testing import drain

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]


def execute(sql, params=()):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else []


def waiting():
    """Return the bodies of all that waits, however it waits, in the order of sending."""
    ids = {
        row.message_id
        for model in (Delivery, Scheduled, Arrival)
        for row in model.objects.filter(queue__name="invoices")
    }
    return [message.body for message in Message.objects.filter(id__in=ids).order_by("id")]


def dead():
    rows = DeadLetter.objects.order_by("id")
    return [(row.body, row.reason, row.attempts) for row in rows]


class TestReject:
    """`reject` raises QueueFull, and the caller's transaction is intact."""

    def test_a_full_queue_refuses_and_names_itself_and_its_limit(self, queue):
        queue("invoices", max_length=2)
        send("invoices", 1)
        send("invoices", 2)
        with pytest.raises(QueueFull, match=r"'invoices' is full: 2 messages wait") as refused:
            send("invoices", 3)
        assert (refused.value.name, refused.value.limit) == ("invoices", 2)
        assert waiting() == [1, 2]
        assert Message.objects.count() == 2

    def test_the_callers_transaction_is_intact(self, queue):
        queue("invoices", max_length=1)
        queue("others")
        with transaction.atomic():
            send("invoices", 1)
            for count in (1, 3, 600):
                with pytest.raises(QueueFull):
                    send_many("invoices", range(count))
            with pytest.raises(QueueFull):
                send("invoices", 2, deduplication_id="a")
            with pytest.raises(QueueFull):
                send("invoices", 2, ordering_key="a")
            send("others", "after")
        assert waiting() == [1]
        assert Message.objects.count() == 2
        assert not Deduplication.objects.exists()
        assert not Arrival.objects.exists()

    @pytest.mark.parametrize("count", [3, 600])
    def test_a_batch_fits_as_a_whole_or_not_at_all(self, count, queue):
        queue("invoices", max_length=count)
        send("invoices", "first")
        with pytest.raises(QueueFull):
            send_many("invoices", range(count))
        assert waiting() == ["first"]
        send_many("invoices", range(count - 1))
        assert len(waiting()) == count

    @pytest.mark.parametrize(
        "options", [{"delay": 60}, {"ordering_key": "a"}, {"fairness_key": "a"}, {"priority": 5}]
    )
    def test_what_waits_counts_wherever_it_waits(self, options, queue):
        queue("invoices", max_length=3)
        for number in range(3):
            send("invoices", number, **options)
        with pytest.raises(QueueFull):
            send("invoices", "more")
        assert waiting() == [0, 1, 2]

    def test_a_key_counts_for_its_messages_and_its_token_for_nothing(self, queue):
        queue("invoices", max_length=3)
        send_many("invoices", [1, 2], ordering_key="a")
        execute("SET CONSTRAINTS messaging_join_lanes IMMEDIATE")
        execute("SET CONSTRAINTS messaging_join_lanes DEFERRED")
        send("invoices", 3)
        with pytest.raises(QueueFull):
            send("invoices", 4)

    def test_handled_messages_make_room(self, queue, declared):
        queue("invoices", max_length=2)
        handled = []

        @consumer("invoices")
        def handle(message):
            handled.append(message.body)

        for start in (0, 2, 4):
            send_many("invoices", [start, start + 1])
            with pytest.raises(QueueFull):
                send("invoices", "more")
            drain("invoices")
        assert handled == [0, 1, 2, 3, 4, 5]

    def test_a_duplicate_needs_no_room(self, queue):
        queue("invoices", max_length=1)
        first = send("invoices", 1, deduplication_id="a")
        again = send("invoices", 1, deduplication_id="a")
        assert (again, again.duplicate) == (first, True)
        with pytest.raises(DeduplicationConflict):
            send("invoices", 2, deduplication_id="a")

    def test_a_full_subscriber_refuses_the_publication_for_all(self, queue, topic, subscribe):
        topic("orders.placed")
        queue("invoices", max_length=2)
        subscribe("orders.placed", "invoices")
        subscribe("orders.*", "mails")
        publish_many("orders.placed", [1, 2])
        for count in (1, 600):
            with pytest.raises(QueueFull, match="'invoices'"):
                publish_many("orders.placed", range(count))
        assert waiting() == [1, 2]
        assert Delivery.objects.filter(queue__name="mails").count() == 2
        assert Message.objects.count() == 2

    def test_two_subscriptions_of_a_queue_take_room_for_two(self, queue, topic, subscribe):
        topic("orders.placed")
        queue("invoices", max_length=3)
        subscribe("orders.placed", "invoices")
        subscribe("orders.*", "invoices")
        publish("orders.placed", 1)
        with pytest.raises(QueueFull):
            publish("orders.placed", 2)
        assert Delivery.objects.count() == 2

    def test_an_unknown_name_is_told_as_ever(self, queue):
        queue("invoices", max_length=1)
        with pytest.raises(UnknownQueue):
            send("invoises", 1)

    def test_a_new_limit_counts_at_once(self, queue):
        queue("invoices", max_length=100_000)
        send_many("invoices", range(5))
        assert Room.objects.get().free > 0
        Queue.objects.update(max_length=5)
        with pytest.raises(QueueFull):
            send("invoices", 5)
        Queue.objects.update(max_length=6)
        send("invoices", 5)
        Queue.objects.update(max_length=None)
        send("invoices", 6)
        assert len(waiting()) == 7

    def test_the_limit_is_kept_within_a_hundredth_whatever_else_fills_the_queue(self, queue):
        created = queue("invoices", max_length=1_000)
        send("invoices", 1)
        # As a redrive does: without taking room.
        Delivery.objects.bulk_create(
            Delivery(queue=created, priority=0, message_id=1, attempt=1) for _ in range(998)
        )
        sent = 0
        with suppress(QueueFull):
            for _ in range(100):
                send("invoices", "x")
                sent += 1
        assert 1 <= sent <= 11

    def test_room_is_counted_once_for_a_hundredth_of_the_limit(
        self, queue, django_assert_num_queries
    ):
        queue("invoices", max_length=10_000)
        send("invoices", 0)
        assert Room.objects.get().free == 100
        # Two statements that store nothing and say why, a savepoint, the message, its room.
        with django_assert_num_queries(6):
            send("invoices", 1)
        assert Room.objects.get().free == 99


class TestDropOldest:
    """`drop_oldest` deletes what has waited longest."""

    @pytest.mark.parametrize("limit", [1, 3, 200])
    def test_the_newest_stay(self, limit, queue):
        queue("invoices", max_length=limit, overflow="drop_oldest")
        for number in range(limit + 5):
            send("invoices", number)
        assert waiting() == list(range(5, limit + 5))
        assert dead() == []

    @pytest.mark.parametrize("count", [5, 600])
    def test_of_a_batch_larger_than_the_queue_the_end_stays(self, count, queue):
        queue("invoices", max_length=3, overflow="drop_oldest")
        send("invoices", "first")
        ids = send_many("invoices", range(count))
        assert len(ids) == count
        assert waiting() == list(range(count - 3, count))

    def test_the_lowest_priority_goes_first(self, queue):
        queue("invoices", max_length=3, overflow="drop_oldest")
        for body, priority in (("a", 5), ("b", 0), ("c", 0), ("d", 5), ("e", 5)):
            send("invoices", body, priority=priority)
        assert waiting() == ["a", "d", "e"]
        send("invoices", "least", priority=-1)
        assert waiting() == ["a", "d", "e"]

    def test_an_urgent_message_makes_no_way_for_a_lesser_one_that_waits_elsewhere(self, queue):
        queue("invoices", max_length=2, overflow="drop_oldest")
        send("invoices", "urgent", priority=5)
        send("invoices", "late", delay=3600)
        send("invoices", "new", priority=6)
        assert waiting() == ["urgent", "new"]

    def test_what_has_a_key_or_waits_for_its_time_goes_in_its_turn(self, queue, declared):
        queue("invoices", max_length=4, overflow="drop_oldest")
        handled = []

        @consumer("invoices")
        def handle(message):
            handled.append(message.body)

        send("invoices", "late", delay=3600)
        send("invoices", "key a", ordering_key="a")
        send("invoices", "key b", fairness_key="b")
        send("invoices", "plain")
        execute("SET CONSTRAINTS messaging_join_lanes IMMEDIATE")
        execute("SET CONSTRAINTS messaging_join_lanes DEFERRED")
        send("invoices", 1)
        assert not Scheduled.objects.exists()
        send("invoices", 2)
        send("invoices", 3)
        assert waiting()[-4:] == ["plain", 1, 2, 3]
        drain("invoices")
        assert handled == ["plain", 1, 2, 3]
        send("invoices", "key a again", ordering_key="a")
        drain("invoices")
        assert handled[-1] == "key a again"
        assert not Delivery.objects.exists()

    def test_of_the_messages_of_one_transaction_with_keys_the_newest_stay(self, queue, declared):
        queue("invoices", max_length=2, overflow="drop_oldest")
        handled = []

        @consumer("invoices")
        def handle(message):
            handled.append(message.body)

        send_many("invoices", range(5), ordering_key="a")
        drain("invoices")
        assert handled == [3, 4]

    def test_a_limit_set_far_below_the_length_is_reached_in_steps(self, queue):
        queue("invoices", overflow="drop_oldest")
        send_many("invoices", range(2_500))
        Queue.objects.update(max_length=10)
        lengths = []
        for number in range(3):
            send("invoices", f"new {number}")
            lengths.append(Delivery.objects.count())
        assert lengths == [1_500, 500, 10]
        assert waiting()[-3:] == ["new 0", "new 1", "new 2"]

    def test_a_long_queue_gives_up_a_hundredth_at_a_time(self, queue, monkeypatch):
        monkeypatch.setattr(room, "COUNTED_EXACTLY", 100)
        queue("invoices", max_length=1_000, overflow="drop_oldest")
        send_many("invoices", range(1_000))
        send("invoices", "one more")
        assert Delivery.objects.count() == 990
        for number in range(10):
            send("invoices", number)
        assert Delivery.objects.count() == 1_000


class TestDeadLetterOldest:
    """`dead_letter_oldest` keeps what goes, with the reason `max_length`."""

    def test_what_goes_is_kept_with_its_reason(self, queue):
        created = queue("invoices", max_length=2, overflow="dead_letter_oldest")
        for number in range(4):
            send("invoices", number, headers={"n": number})
        assert waiting() == [2, 3]
        assert dead() == [(0, "max_length", 0), (1, "max_length", 0)]
        row = DeadLetter.objects.earliest("id")
        assert (row.queue_id, row.origin_id, row.headers) == (created.pk, created.pk, {"n": 0})
        assert row.description == "Removed to make room: invoices holds at most 2 messages."

    def test_it_goes_to_the_dead_letter_queue(self, queue):
        graves = queue("graves")
        queue("invoices", max_length=1, overflow="dead_letter_oldest", dead_letter_queue=graves)
        send_many("invoices", [1, 2], ordering_key="a")
        row = DeadLetter.objects.get()
        assert (row.body, row.queue_id, row.ordering_key) == (1, graves.pk, "a")

    def test_of_a_topic_each_queue_keeps_its_own_policy(self, queue, topic, subscribe):
        topic("orders.placed")
        queue("invoices", max_length=1, overflow="dead_letter_oldest")
        queue("mails", max_length=1, overflow="drop_oldest")
        for name in ("invoices", "mails", "unlimited"):
            subscribe("orders.placed", name)
        for number in range(3):
            publish("orders.placed", number)
        lengths = {
            name: Delivery.objects.filter(queue__name=name).count()
            for name in ("invoices", "mails", "unlimited")
        }
        assert lengths == {"invoices": 1, "mails": 1, "unlimited": 3}
        assert [body for body, *_ in dead()] == [0, 1]


@pytest.mark.django_db(transaction=True)
class TestConcurrentSenders:
    def test_never_exceed_the_limit_together(self, queue, elsewhere):
        queue("invoices", max_length=50)

        def fill():
            sent = 0
            for number in range(30):
                with suppress(QueueFull):
                    send("invoices", number)
                    sent += 1
            return sent

        calls = [elsewhere(fill) for _ in range(4)]
        assert sum(call.result(60) for call in calls) == 50
        assert Delivery.objects.count() == 50

    def test_the_second_waits_for_the_first_to_commit_or_roll_back(
        self, queue, elsewhere, until, waiters
    ):
        queue("invoices", max_length=1)
        with suppress(LookupError), transaction.atomic():
            send("invoices", "first")
            call = elsewhere(send, "invoices", "second")
            until(lambda: waiters() == 1)
            raise LookupError
        call.result(15)
        assert waiting() == ["second"]
        Delivery.objects.all().delete()
        with transaction.atomic():
            send("invoices", "third")
            call = elsewhere(send, "invoices", "fourth")
            until(lambda: waiters() == 1)
        with pytest.raises(QueueFull):
            call.result(15)
        assert waiting() == ["third"]

    def test_who_waits_for_the_room_of_one_queue_holds_that_of_no_later_one(
        self, queue, topic, subscribe, elsewhere, until, waiters
    ):
        topic("orders.placed")
        for name in ("invoices", "mails"):
            queue(name, max_length=10)
        for name in ("mails", "invoices"):
            subscribe("orders.placed", name)
        with transaction.atomic():
            send("invoices", 1)
            call = elsewhere(publish, "orders.placed", 2)
            until(lambda: waiters() == 1)
            send("mails", 3)
        call.result(15)
        assert Delivery.objects.count() == 4

    def test_what_a_worker_holds_is_left_to_it(self, queue, elsewhere):
        created = queue("invoices", max_length=2, overflow="drop_oldest")
        send_many("invoices", [1, 2])
        with transaction.atomic():
            execute(
                "DELETE FROM messaging_delivery WHERE queue_id = %s AND id = "
                "(SELECT min(id) FROM messaging_delivery)",
                [created.pk],
            )
            elsewhere(send, "invoices", 3).result(15)
        assert waiting() == [3]

    def test_senders_to_queues_without_a_limit_do_not_wait(self, queue, elsewhere):
        queue("invoices")
        with transaction.atomic():
            send("invoices", 1)
            elsewhere(send, "invoices", 2).result(15)
        assert not Room.objects.exists()


def test_a_disabled_full_subscriber_refuses_nothing(queue, topic, subscribe):
    topic("orders.placed")
    queue("invoices", max_length=1)
    subscribe("orders.placed", "invoices")
    publish("orders.placed", 1)
    Queue.objects.update(disabled_at=timezone.now())
    publish("orders.placed", 2)
    assert waiting() == [1]
