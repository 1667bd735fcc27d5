"""One statement stores a message with its deliveries, and finds out about duplicates."""

from contextlib import suppress

import pytest
from django.db import connection, transaction
from django.db.models import Count
from django.utils import timezone
from senders import ONE

from messaging import DeduplicationConflict, publish, publish_many, send, send_many
from messaging.models import (
    Deduplication,
    Delivery,
    Message,
    Queue,
    Scheduled,
    Subscription,
    Topic,
)
from messaging.store import publishing

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]

HOT_TABLES = [
    "messaging_message",
    "messaging_delivery",
    "messaging_scheduled",
    "messaging_deadletter",
    "messaging_attempt",
    "messaging_stat",
]


def execute(sql, params=()):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else []


class TestFanOut:
    def test_every_matching_active_subscription_gets_one_delivery_and_the_log_one_message(
        self, topic, subscribe
    ):
        topic("orders.placed")
        topic("orders.placed.again")
        for pattern, name in (
            ("orders.placed", "exactly"),
            ("orders.*", "one-word"),
            ("#", "everything"),
            ("stock.*", "others"),
        ):
            subscribe(pattern, name)
        subscribe("orders.#", "inactive", is_active=False)
        message_id = publish("orders.placed", {"n": 1})
        assert list(Message.objects.values_list("id", "topic__name", "queue")) == [
            (message_id, "orders.placed", None)
        ]
        deliveries = Delivery.objects.values_list("queue__name", "message_id", "attempt")
        assert sorted(deliveries) == [
            ("everything", message_id, 1),
            ("exactly", message_id, 1),
            ("one-word", message_id, 1),
        ]

    @pytest.mark.parametrize("count", [1, 3, 600])
    @pytest.mark.parametrize("delay", [None, 60])
    def test_each_subscription_of_a_queue_delivers_once_and_is_named(
        self, topic, subscribe, count, delay
    ):
        topic("orders.placed")
        subscriptions = [subscribe("orders.placed", "billing"), subscribe("orders.*", "billing")]
        ids = publish_many("orders.placed", range(count), delay=delay)
        rows = (Scheduled if delay else Delivery).objects.order_by("id")
        assert list(rows.values_list("message_id", "subscription_id")) == [
            (message_id, subscription.pk) for message_id in ids for subscription in subscriptions
        ]

    def test_a_later_subscription_gets_nothing_from_before(self, topic, subscribe):
        topic("orders.placed")
        publish("orders.placed", "before")
        subscribe("orders.placed", "billing")
        assert not Delivery.objects.exists()
        publish("orders.placed", "after")
        assert [row.message.body for row in Delivery.objects.all()] == ["after"]

    def test_an_earlier_subscription_gets_nothing_from_after_it_ended(self, invoices):
        Subscription.objects.update(is_active=False)
        publish("orders.placed", "off")
        Subscription.objects.update(is_active=True)
        publish("orders.placed", "on")
        Subscription.objects.all().delete()
        publish("orders.placed", "gone")
        assert [row.message.body for row in Delivery.objects.all()] == ["on"]
        assert Message.objects.count() == 3

    def test_a_topic_without_subscriptions_keeps_its_messages_in_the_log(self, topic):
        topic("orders.placed")
        for options in ({}, {"delay": 60}, {"deduplication_id": "a"}):
            publish("orders.placed", "x", **options)
        publish_many("orders.placed", ["x"] * 600)
        assert Message.objects.count() == 603
        assert not Delivery.objects.exists()
        assert not Scheduled.objects.exists()

    def test_a_thousand_subscriptions_cost_one_statement_and_one_payload(
        self, topic, django_assert_num_queries
    ):
        placed = topic("orders.placed")
        queues = Queue.objects.bulk_create(Queue(name=f"queue-{n}") for n in range(1000))
        Subscription.objects.bulk_create(
            Subscription(pattern="orders.placed", queue=each) for each in queues
        )
        with django_assert_num_queries(1):
            publish("orders.placed", {"n": 1})
        assert Message.objects.filter(topic=placed).count() == 1
        deliveries = Delivery.objects.values("queue").annotate(number=Count("id"))
        assert [row["number"] for row in deliveries] == [1] * 1000


class TestStatements:
    @pytest.mark.parametrize(
        "options", [{}, {"headers": {"a": 1}, "ordering_key": "k", "priority": 1}, {"delay": 60}]
    )
    @ONE
    def test_a_message_is_one_statement(self, sender, options, invoices, django_assert_num_queries):
        with django_assert_num_queries(1):
            sender(**options)
        with django_assert_num_queries(1):
            sender(**options, deduplication_id="a")

    @pytest.mark.parametrize("many", [send_many, publish_many])
    def test_hundreds_of_messages_are_one_statement(
        self, many, invoices, django_assert_num_queries
    ):
        with django_assert_num_queries(1):
            many("invoices" if many is send_many else "orders.placed", ["x"] * 499)

    def test_names_and_bindings_are_looked_up_however_many_there_are(self, subscribe):
        subscribe("#", "everything")
        execute(
            "INSERT INTO messaging_topic "
            "(name, description, retention, content_based_deduplication) "
            "SELECT 'topic-' || n, '', 60, false FROM generate_series(1, 3000) AS n"
        )
        execute("ANALYZE messaging_topic, messaging_binding")
        sql = publishing.PUBLISH_ONE.sql
        values = ("'topic-5'", "'{}'", "'1'", "0", "NULL", "NULL", "NULL")
        for number, value in enumerate(values, start=1):
            sql = sql.replace(f"${number}", value)
        plan = "\n".join(line for (line,) in execute(f"EXPLAIN {sql}"))
        assert "Seq Scan" not in plan, plan
        assert plan.count("Index Scan") >= 2, plan

    def test_more_are_copied_between_two(self, invoices, django_assert_num_queries):
        # COPY itself does not pass Django's query log; around the two is a savepoint.
        with django_assert_num_queries(4):
            send_many("invoices", ["x"] * 20_000)
        assert Delivery.objects.count() == 20_000

    def test_what_is_copied_arrives_though_the_queue_is_renamed_meanwhile(self, invoices):
        def rename(execute, sql, params, many, context):
            if "messaging_delivery" in sql:
                with context["connection"].connection.cursor() as cursor:
                    cursor.execute("UPDATE messaging_queue SET name = 'bills'")
            return execute(sql, params, many, context)

        with connection.execute_wrapper(rename):
            send_many("invoices", ["x"] * 600)
        assert Delivery.objects.filter(queue=invoices).count() == 600


class TestFootprint:
    def test_the_ready_table_has_one_index(self):
        names = execute("SELECT indexname FROM pg_indexes WHERE tablename = 'messaging_delivery'")
        assert names == [("messaging_delivery_next",)]

    def test_a_message_for_a_queue_has_three_index_entries_at_most(self):
        # Of the log's three indexes one holds topics alone, one what a handler has sent.
        definitions = execute(
            "SELECT indexdef FROM pg_indexes WHERE tablename = 'messaging_message' ORDER BY 1"
        )
        whole = [text for (text,) in definitions if " WHERE (" not in text]
        assert (len(definitions), len(whole)) == (3, 1)

    def test_no_hot_table_has_a_foreign_key(self):
        rows = execute(
            "SELECT conrelid::regclass::text FROM pg_constraint "
            "WHERE contype = 'f' AND conrelid = ANY (%s::regclass[])",
            [HOT_TABLES],
        )
        assert rows == []

    def test_a_message_to_a_queue_is_two_inserted_rows_and_no_updated_one(self, invoices):
        before = self.written()
        send("invoices", "x")
        send("invoices", "x", priority=5, headers={"a": 1})
        assert self.since(before) == {"messaging_message": (2, 0), "messaging_delivery": (2, 0)}

    def test_batches_delays_and_topics_update_no_row_either(self, invoices, subscribe):
        subscribe("orders.*", "billing")
        before = self.written()
        send_many("invoices", ["x"] * 600)
        publish_many("orders.placed", ["x"] * 10, delay=60)
        publish("orders.placed", "x", deduplication_id="a")
        assert self.since(before) == {
            "messaging_message": (611, 0),
            "messaging_delivery": (602, 0),
            "messaging_scheduled": (20, 0),
            "messaging_deduplication": (1, 0),
        }

    def written(self):
        return {
            table: (inserted, updated)
            for table, inserted, updated in execute(
                "SELECT relname, n_tup_ins, n_tup_upd FROM pg_stat_xact_user_tables"
            )
        }

    def since(self, before):
        now = self.written()
        return {
            table: (now[table][0] - before[table][0], now[table][1] - before[table][1])
            for table in now
            if now[table] != before[table]
        }


class TestDeduplication:
    @pytest.mark.parametrize("options", [{}, {"delay": 60}])
    @ONE
    def test_within_the_window_a_second_call_gets_the_first_ones_id(
        self, sender, options, invoices
    ):
        first = sender({"a": 1, "b": 2}, deduplication_id="a", **options)
        second = sender({"b": 2, "a": 1}, deduplication_id="a", **options)
        assert (first.duplicate, second.duplicate, second) == (False, True, first)
        assert list(Message.objects.values_list("id", flat=True)) == [first]
        assert Delivery.objects.count() + Scheduled.objects.count() == 1

    @ONE
    def test_another_body_is_a_conflict_that_names_the_first_message(self, sender, invoices):
        first = sender({"n": 1}, deduplication_id="a")
        with transaction.atomic():
            with pytest.raises(DeduplicationConflict, match=f"'a' was used for message {first}"):
                sender({"n": 2}, deduplication_id="a")
            second = sender({"n": 2}, deduplication_id="b")
        assert sorted(Message.objects.values_list("id", flat=True)) == [first, second]

    def test_an_id_counts_for_one_queue_or_topic(self, invoices, queue):
        queue("billing")
        ids = [
            send("invoices", 1, deduplication_id="a"),
            send("billing", 1, deduplication_id="a"),
            publish("orders.placed", 1, deduplication_id="a"),
        ]
        assert len(set(ids)) == 3
        assert not any(message_id.duplicate for message_id in ids)

    def windows(self, seconds):
        Queue.objects.update(deduplication_window=seconds)
        Topic.objects.update(deduplication_window=seconds)

    @ONE
    def test_a_window_of_0_is_off(self, sender, invoices):
        self.windows(0)
        ids = {sender(deduplication_id="a"), sender(deduplication_id="a"), sender("y")}
        assert len(ids) == 3
        assert not Deduplication.objects.exists()

    @ONE
    def test_no_window_is_for_ever(self, sender, invoices):
        self.windows(None)
        first = sender(deduplication_id="a")
        assert list(Deduplication.objects.values_list("expires_at", flat=True)) == [None]
        assert sender(deduplication_id="a") == first

    @ONE
    def test_a_window_ends_by_the_databases_clock(self, sender, invoices):
        self.windows(90)
        first = sender(deduplication_id="a")
        lasted = execute(
            "SELECT extract(epoch FROM known.expires_at - message.published_at)::int "
            "FROM messaging_deduplication AS known "
            "JOIN messaging_message AS message ON message.id = known.message_id"
        )
        assert lasted == [(90,)]
        Deduplication.objects.update(expires_at=timezone.now())
        second = sender("another body", deduplication_id="a")
        assert second != first
        assert not second.duplicate
        assert sender("another body", deduplication_id="a") == second

    def test_an_id_that_is_pruned_between_look_ups_is_new(self, invoices):
        first = send("invoices", "x", deduplication_id="a")

        def prune(execute, sql, params, many, context):
            if sql.lstrip().startswith("SELECT key, message_id"):
                with context["connection"].connection.cursor() as cursor:
                    cursor.execute("DELETE FROM messaging_deduplication")
            return execute(sql, params, many, context)

        with connection.execute_wrapper(prune):
            second = send("invoices", "x", deduplication_id="a")
        assert second != first
        assert not second.duplicate

    @ONE
    def test_an_id_that_is_rolled_back_never_counted(self, sender, invoices):
        with suppress(LookupError), transaction.atomic():
            sender(deduplication_id="a")
            raise LookupError
        assert not sender("another body", deduplication_id="a").duplicate
        assert Message.objects.count() == 1


@pytest.mark.django_db(transaction=True)
class TestConcurrentDuplicates:
    """The second of two transactions waits for the first."""

    @ONE
    def test_when_the_first_commits_the_second_is_its_duplicate(
        self, sender, invoices, elsewhere, until, waiters
    ):
        with transaction.atomic():
            first = sender(deduplication_id="a")
            call = elsewhere(sender, deduplication_id="a")
            until(lambda: waiters() == 1)
            assert not call.done()
        second = call.result(15)
        assert (second, second.duplicate) == (first, True)
        assert Message.objects.count() == Delivery.objects.count() == 1

    @ONE
    def test_when_the_first_rolls_back_the_second_is_the_original(
        self, sender, invoices, elsewhere, until, waiters
    ):
        with suppress(LookupError), transaction.atomic():
            first = sender(deduplication_id="a")
            call = elsewhere(sender, deduplication_id="a")
            until(lambda: waiters() == 1)
            raise LookupError
        second = call.result(15)
        assert (second != first, second.duplicate) == (True, False)
        assert list(Message.objects.values_list("id", flat=True)) == [second]

    def test_with_another_body_the_second_conflicts_with_the_first(
        self, invoices, elsewhere, until, waiters
    ):
        with transaction.atomic():
            send("invoices", "x", deduplication_id="a")
            call = elsewhere(send, "invoices", "y", deduplication_id="a")
            until(lambda: waiters() == 1)
        with pytest.raises(DeduplicationConflict):
            call.result(15)

    def test_other_ids_do_not_wait(self, invoices, elsewhere):
        with transaction.atomic():
            send("invoices", "x", deduplication_id="a")
            assert not elsewhere(send, "invoices", "x", deduplication_id="b").result(15).duplicate
