"""What code declares is created where it is missing, and what is there is never overwritten."""

import pytest
from django.core.management import call_command
from django.db import transaction

from messaging import consumer, declare_queue, declare_topic
from messaging.models import Queue, Subscription, Topic
from messaging.sync import dead_letter_queue, synchronise

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare", "declared")]


def handle(message):
    """Handle nothing."""


def declare():
    """Declare two queues, a topic by its name and one by its consumer."""
    consumer("payments", topic="orders.placed", max_deliveries=8, backoff="fixed")(handle)
    consumer("archive", topic="orders.#")(handle)
    declare_queue("invoices", description="Printed at night", retention=3600)
    declare_topic("orders.paid", description="Paid", deduplication_window=None)


class TestCreating:
    def test_queues_topics_and_subscriptions_are_created_with_their_policies(self):
        declare()
        synchronise()
        payments = Queue.objects.get(name="payments")
        assert (payments.max_deliveries, payments.backoff) == (8, "fixed")
        invoices = Queue.objects.get(name="invoices")
        assert (invoices.description, invoices.retention) == ("Printed at night", 3600)
        assert dict(Topic.objects.values_list("name", "description")) == {
            "orders.placed": "",
            "orders.paid": "Paid",
        }
        assert Topic.objects.get(name="orders.paid").deduplication_window is None
        assert sorted(Subscription.objects.values_list("pattern", "queue__name", "is_active")) == [
            ("orders.#", "archive", True),
            ("orders.placed", "payments", True),
        ]

    def test_it_says_what_it_created(self):
        declare()
        created = synchronise()
        assert created.queues == [
            "archive.dlq",
            "archive",
            "invoices.dlq",
            "invoices",
            "payments.dlq",
            "payments",
        ]
        assert created.topics == ["orders.paid", "orders.placed"]
        assert created.subscriptions == ["orders.placed → payments", "orders.# → archive"]
        assert created

    def test_doing_it_again_creates_nothing(self):
        declare()
        synchronise()
        created = synchronise()
        assert not created
        assert (created.queues, created.topics, created.subscriptions) == ([], [], [])
        assert (Queue.objects.count(), Topic.objects.count()) == (6, 2)

    def test_what_is_declared_later_is_added(self):
        declare()
        synchronise()
        declare_queue("returns")
        created = synchronise()
        assert created.queues == ["returns.dlq", "returns"]
        assert (created.topics, created.subscriptions) == ([], [])

    def test_without_declarations_nothing_is_created(self):
        assert not synchronise()
        assert not Queue.objects.exists()


class TestNeverOverwriting:
    def test_what_an_operator_set_stays(self):
        declare()
        synchronise()
        Queue.objects.filter(name="payments").update(
            max_deliveries=2, backoff="linear", description="By hand", dead_letter_queue=None
        )
        Topic.objects.filter(name="orders.paid").update(description="By hand", retention=60)
        Subscription.objects.filter(queue__name="archive").update(is_active=False)
        assert not synchronise()
        payments = Queue.objects.get(name="payments")
        assert (payments.max_deliveries, payments.backoff) == (2, "linear")
        assert (payments.description, payments.dead_letter_queue) == ("By hand", None)
        topic = Topic.objects.get(name="orders.paid")
        assert (topic.description, topic.retention) == ("By hand", 60)
        assert not Subscription.objects.get(queue__name="archive").is_active

    def test_a_dead_letter_queue_that_an_operator_removed_does_not_come_back(self):
        declare()
        synchronise()
        Queue.objects.update(dead_letter_queue=None)
        Queue.objects.filter(name="payments.dlq").delete()
        assert not synchronise()
        assert not Queue.objects.filter(name="payments.dlq").exists()

    def test_what_code_no_longer_declares_stays(self, declared):
        declare()
        synchronise()
        declared.consumers.clear()
        declared.queues.clear()
        declared.topics.clear()
        synchronise()
        assert (Queue.objects.count(), Topic.objects.count()) == (6, 2)
        assert Subscription.objects.count() == 2


class TestDeadLetterQueues:
    def test_every_queue_gets_one_and_that_has_none(self):
        declare_queue("invoices")
        synchronise()
        invoices, dead = Queue.objects.get(name="invoices"), Queue.objects.get(name="invoices.dlq")
        assert (invoices.dead_letter_queue, dead.dead_letter_queue) == (dead, None)
        assert dead.description == "Dead letters of invoices"

    def test_one_that_is_there_already_is_taken(self, queue):
        dead = queue("invoices.dlq", description="By hand")
        declare_queue("invoices")
        assert synchronise().queues == ["invoices"]
        assert Queue.objects.get(name="invoices").dead_letter_queue == dead
        dead.refresh_from_db()
        assert dead.description == "By hand"

    def test_a_declared_one_gets_none_of_its_own(self):
        consumer("returns.dlq")(handle)
        consumer("invoices.dlq")(handle)
        declare_queue("invoices")
        synchronise()
        assert sorted(Queue.objects.values_list("name", "dead_letter_queue__name")) == [
            ("invoices", "invoices.dlq"),
            ("invoices.dlq", None),
            ("returns.dlq", None),
        ]

    @pytest.mark.parametrize(("length", "has_one"), [(76, True), (77, False), (80, False)])
    def test_a_queue_whose_name_leaves_no_room_has_none(self, length, has_one):
        name = "q" * length
        declare_queue(name)
        synchronise()
        assert bool(Queue.objects.get(name=name).dead_letter_queue) is has_one
        assert dead_letter_queue(name)[1] is False


class TestMigrating:
    def test_a_migrated_database_has_what_code_declares(self):
        declare()
        call_command("migrate", verbosity=0)
        assert Queue.objects.filter(name="payments").exists()
        assert Subscription.objects.count() == 2

    def test_another_database_is_left_alone(self, settings):
        declare()
        settings.MESSAGING = {"DATABASE": "elsewhere"}
        call_command("migrate", database="default", verbosity=0)
        assert not Queue.objects.exists()


@pytest.mark.django_db(transaction=True)
class TestTwoAtOnce:
    def test_the_second_waits_and_finds_everything_there(self, elsewhere, until, waiters):
        declare()
        with transaction.atomic():
            synchronise()
            second = elsewhere(synchronise)
            until(lambda: waiters() == 1)
        assert not second.result(15)
        assert (Queue.objects.count(), Topic.objects.count()) == (6, 2)
        assert Subscription.objects.count() == 2

    def test_the_second_creates_it_all_when_the_first_rolls_back(self, elsewhere, until, waiters):
        declare()
        with transaction.atomic():
            synchronise()
            second = elsewhere(synchronise)
            until(lambda: waiters() == 1)
            transaction.set_rollback(True)
        assert len(second.result(15).queues) == 6
        assert Queue.objects.count() == 6

    def test_many_at_once_create_it_once(self, elsewhere):
        declare()
        calls = [elsewhere(synchronise) for _ in range(4)]
        created = [call.result(15) for call in calls]
        assert sorted(name for each in created for name in each.queues) == sorted(
            Queue.objects.values_list("name", flat=True)
        )
        assert sum(len(each.subscriptions) for each in created) == Subscription.objects.count() == 2
