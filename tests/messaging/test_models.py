"""Configuration is validated, and bindings follow topics and subscriptions however they change."""

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction

from messaging import publish
from messaging.models import Binding, DeadLetter, Delivery, Message, Queue, Subscription, Topic

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]


def bindings():
    """Return what is bound: names of topic and queue."""
    rows = Binding.objects.values_list("topic__name", "queue__name", "subscription__queue__name")
    assert all(queue == subscriber for _, queue, subscriber in rows)
    return sorted((topic, queue) for topic, queue, _ in rows)


def execute(sql, params=()):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)


class TestQueues:
    @pytest.mark.parametrize(
        ("field", "value", "reason"),
        [
            ("name", "in voices", "Invalid queue name 'in voices'"),
            ("name", "", "cannot be blank"),
            ("max_deliveries", 0, "greater than or equal to 1"),
            ("max_deliveries", -1, "greater than or equal to 1"),
            ("max_deliveries", 1001, "less than or equal to 1000"),
            ("max_deliveries", 2**31, "less than or equal to 1000"),
            ("backoff", "sometimes", "not a valid choice"),
            ("backoff_base", -0.1, "greater than or equal to 0"),
            ("backoff_cap", 10**9, "less than or equal to 31622400"),
            ("backoff_delays", {"a": 1}, "Use a list of at most 100 delays"),
            ("backoff_delays", [1] * 101, "Use a list of at most 100 delays"),
            ("backoff_delays", [1, "2"], "2 is no delay"),
            ("backoff_delays", [True], "True is no delay"),
            ("backoff_delays", [float("nan")], "nan is no delay"),
            ("backoff_delays", [-1], "-1 is no delay"),
            ("jitter", "half", "not a valid choice"),
            ("retention", -1, "greater than or equal to 0"),
            ("retention", "7d", "must be an integer"),
            ("message_ttl", 0, "greater than or equal to 0.001"),
            ("visibility_timeout", 43_201, "less than or equal to 43200"),
            ("max_length", 0, "greater than or equal to 1"),
            ("overflow", "explode", "not a valid choice"),
            ("rate_limit", 0, "greater than or equal to 0.001"),
            ("key_rate_limit", 10**7, "less than or equal to 1000000"),
            ("concurrency_limit", 0, "greater than or equal to 1"),
            ("weight", 101, "less than or equal to 100"),
            ("on_failure", "panic", "not a valid choice"),
            ("deduplication_window", -1, "greater than or equal to 0"),
        ],
    )
    def test_a_wrong_value_is_refused_at_its_field(self, field, value, reason):
        with pytest.raises(ValidationError) as refused:
            Queue(**{"name": "invoices", field: value}).full_clean()
        assert reason in " ".join(refused.value.message_dict[field])

    def test_the_defaults_are_those_of_the_semantics(self):
        queue = Queue.objects.create(name="invoices")
        queue.full_clean()
        assert (queue.max_deliveries, queue.backoff, queue.jitter) == (5, "exponential", "full")
        assert (queue.backoff_base, queue.backoff_cap) == (10, 600)
        assert (queue.deduplication_window, queue.retention) == (300, 7 * 24 * 3600)
        assert (queue.is_paused, queue.dead_letter_queue) == (False, None)

    @pytest.mark.parametrize("delays", [{}, "", 0, None])
    def test_delays_are_a_list_also_when_they_are_empty(self, delays):
        with pytest.raises(ValidationError, match="list of delays"):
            Queue(name="letters", backoff_delays=delays).clean()

    @pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
    @pytest.mark.parametrize(
        "field",
        [
            "backoff_base",
            "backoff_cap",
            "message_ttl",
            "visibility_timeout",
            "rate_limit",
            "key_rate_limit",
        ],
    )
    def test_no_time_and_no_rate_is_endless_or_not_a_number(self, field, value):
        with pytest.raises(ValidationError, match="Use a finite number"):
            Queue(name="letters", **{field: float(value)}).clean()

    def test_without_retention_a_queue_keeps_nothing(self):
        Queue(name="letters", retention=0).full_clean()

    def test_a_list_of_delays_is_needed_for_the_back_off_list(self):
        with pytest.raises(ValidationError, match="needs its delays"):
            Queue(name="invoices", backoff="list").full_clean()
        Queue(name="invoices", backoff="list", backoff_delays=[1, 10.5]).full_clean()

    def test_dead_letters_cannot_go_to_the_queue_that_they_come_from(self, queue):
        own = queue("invoices")
        own.dead_letter_queue = own
        with pytest.raises(ValidationError, match="round in a circle"):
            own.full_clean()

    def test_dead_letters_cannot_go_round_in_a_larger_circle(self, queue):
        first, second, third = queue("first"), queue("second"), queue("third")
        first.dead_letter_queue, second.dead_letter_queue = second, third
        for each in (first, second):
            each.full_clean()
            each.save()
        third.dead_letter_queue = first
        with pytest.raises(ValidationError, match="round in a circle"):
            third.full_clean()

    def test_a_circle_that_is_there_already_is_told_too(self, queue):
        first, second = queue("first"), queue("second")
        Queue.objects.filter(pk=first.pk).update(dead_letter_queue=second)
        Queue.objects.filter(pk=second.pk).update(dead_letter_queue=first)
        first.refresh_from_db()
        with pytest.raises(ValidationError, match="round in a circle"):
            Queue(name="third", dead_letter_queue=first).full_clean()

    def test_a_queue_that_holds_the_dead_letters_of_another_stays(self, queue):
        dead = queue("invoices.dlq")
        queue("invoices", dead_letter_queue=dead)
        with pytest.raises(IntegrityError), transaction.atomic():
            dead.delete()
        assert Queue.objects.filter(name="invoices.dlq").exists()

    def test_two_queues_of_one_name_cannot_exist(self, queue):
        queue("invoices")
        with pytest.raises(IntegrityError), transaction.atomic():
            queue("invoices")
        queue("Invoices")


class TestTopics:
    @pytest.mark.parametrize("name", ["orders..placed", "orders.*", "", "a b"])
    def test_a_wrong_name_is_refused(self, name):
        with pytest.raises(ValidationError) as refused:
            Topic(name=name).full_clean()
        assert list(refused.value.message_dict) == ["name"]


class TestSubscriptions:
    def test_a_wrong_pattern_is_refused(self, queue):
        with pytest.raises(ValidationError, match="Invalid topic pattern"):
            Subscription(pattern="orders.**", queue=queue()).full_clean()

    def test_a_queue_subscribes_to_a_pattern_once(self, subscribe):
        subscribe("orders.*", "billing")
        with pytest.raises(IntegrityError), transaction.atomic():
            subscribe("orders.*", "billing")
        subscribe("orders.#", "billing")


def test_rows_say_what_they_are(queue, topic, subscribe):
    assert str(queue("invoices")) == "invoices"
    assert str(topic("orders.placed")) == "orders.placed"
    assert str(subscribe("orders.*", "billing")) == "orders.* → billing"
    assert str(Message(pk=7)) == "message 7"
    assert str(Delivery(message_id=7, queue_id=3)) == "delivery of message 7 to queue 3"
    assert str(DeadLetter(pk=2, message_id=7)) == "dead letter 2 (message 7)"


class TestBindings:
    """The bindings are right whoever writes topics and subscriptions, and however."""

    def test_a_subscription_binds_the_topics_that_are_there(self, topic, subscribe):
        for name in ("orders", "orders.placed", "orders.placed.again", "stock.low"):
            topic(name)
        subscribe("orders.placed", "exactly")
        subscribe("orders.*", "one-word")
        subscribe("orders.#", "any-number")
        subscribe("#", "everything")
        subscribe("returns.*", "nothing")
        everything = ["orders", "orders.placed", "orders.placed.again", "stock.low"]
        assert bindings() == sorted(
            [
                ("orders.placed", "exactly"),
                ("orders.placed", "one-word"),
                *((name, "any-number") for name in everything[:3]),
                *((name, "everything") for name in everything),
            ]
        )

    def test_a_topic_binds_the_subscriptions_that_are_there(self, topic, subscribe):
        subscribe("orders.*", "billing")
        subscribe("stock.*", "purchasing")
        subscribe("orders.placed", "off", is_active=False)
        topic("orders.placed")
        assert bindings() == [("orders.placed", "billing")]

    def test_bulk_created_rows_are_bound(self, queue):
        billing = queue("billing")
        Topic.objects.bulk_create([Topic(name="orders.placed"), Topic(name="orders.paid")])
        patterns = ("orders.placed", "orders.*")
        Subscription.objects.bulk_create(Subscription(pattern=p, queue=billing) for p in patterns)
        Topic.objects.bulk_create([Topic(name="orders.sent")])
        assert bindings() == [
            ("orders.paid", "billing"),
            ("orders.placed", "billing"),
            ("orders.placed", "billing"),
            ("orders.sent", "billing"),
        ]

    def test_an_update_of_many_rows_binds_anew(self, topic, subscribe, queue):
        topic("orders.placed")
        topic("stock.low")
        subscribe("orders.*", "billing")
        subscribe("orders.placed", "shipping")
        Subscription.objects.update(pattern="stock.*")
        assert bindings() == [("stock.low", "billing"), ("stock.low", "shipping")]
        Subscription.objects.filter(queue__name="billing").update(queue=queue("archive"))
        assert bindings() == [("stock.low", "archive"), ("stock.low", "shipping")]

    def test_an_inactive_subscription_is_not_bound_until_it_is_active_again(self, topic, subscribe):
        topic("orders.placed")
        subscription = subscribe("orders.*", "billing")
        subscription.is_active = False
        subscription.save()
        assert bindings() == []
        Subscription.objects.update(is_active=True)
        assert bindings() == [("orders.placed", "billing")]

    def test_a_renamed_topic_is_bound_by_its_new_name(self, topic, subscribe):
        renamed = topic("orders.placed")
        subscribe("orders.*", "billing")
        subscribe("stock.*", "purchasing")
        renamed.name = "stock.low"
        renamed.save()
        assert bindings() == [("stock.low", "purchasing")]
        Topic.objects.update(name="returns")
        assert bindings() == []

    def test_raw_sql_binds_as_well(self, queue):
        billing = queue("billing")
        execute(
            "INSERT INTO messaging_topic (name, description, retention, deduplication_window, "
            "content_based_deduplication) VALUES ('orders.placed', '', 60, 0, false)"
        )
        execute(
            "INSERT INTO messaging_subscription (pattern, queue_id, is_active, description) "
            "VALUES ('orders.#', %s, true, '')",
            [billing.pk],
        )
        assert bindings() == [("orders.placed", "billing")]
        execute("UPDATE messaging_subscription SET pattern = 'stock'")
        assert bindings() == []
        execute("UPDATE messaging_topic SET name = 'stock'")
        assert bindings() == [("stock", "billing")]
        execute("DELETE FROM messaging_topic")
        assert not Binding.objects.exists()

    @pytest.mark.parametrize("table", ["messaging_topic", "messaging_subscription"])
    def test_a_deleted_row_is_bound_no_more(self, topic, subscribe, table):
        topic("orders.placed")
        subscribe("orders.*", "billing")
        execute(f"DELETE FROM {table}")
        assert not Binding.objects.exists()

    @pytest.mark.parametrize("model", [Topic, Subscription, Queue])
    def test_a_row_deleted_through_the_orm_is_bound_no_more(self, topic, subscribe, model):
        topic("orders.placed")
        subscribe("orders.*", "billing")
        subscribe("orders.*", "shipping")
        model.objects.all().delete()
        assert not Binding.objects.exists()

    def test_an_unrelated_change_leaves_the_bindings_alone(self, topic, subscribe):
        placed = topic("orders.placed")
        subscription = subscribe("orders.*", "billing")
        before = set(Binding.objects.values_list("pk", flat=True))
        placed.retention = 3600
        placed.save(update_fields=["retention"])
        subscription.description = "All orders"
        subscription.save(update_fields=["description"])
        assert set(Binding.objects.values_list("pk", flat=True)) == before


@pytest.mark.django_db(transaction=True)
class TestConcurrentChanges:
    @pytest.mark.parametrize("first", ["topic", "subscription"])
    def test_a_topic_and_a_subscription_that_are_created_at_once_see_each_other(
        self, first, queue, subscribe, elsewhere, until, waiters
    ):
        queue("billing")

        def create_topic():
            Topic.objects.create(name="orders.placed")

        def create_subscription():
            subscribe("orders.*", "billing")

        mine, other = create_topic, create_subscription
        if first == "subscription":
            mine, other = other, mine
        with transaction.atomic():
            mine()
            created = elsewhere(other)
            until(lambda: waiters() == 1)
        created.result(15)
        assert bindings() == [("orders.placed", "billing")]
        publish("orders.placed", {})
        assert Delivery.objects.count() == 1
