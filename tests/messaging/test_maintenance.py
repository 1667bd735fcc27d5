"""What is due becomes ready, in order and by one worker at a time; what is past its time goes."""

import datetime

import pytest
from django.db import transaction
from django.utils import timezone

from messaging import consumer, maintenance, send, send_many
from messaging.engines.wakeup import Arrival
from messaging.models import Attempt, Delivery, Idempotency, Message, Scheduled
from messaging.testing import drain

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]


def make_due(seconds_ago=0, **which):
    at = timezone.now() - datetime.timedelta(seconds=seconds_ago)
    Scheduled.objects.filter(**which).update(due_at=at)


class TestPromoting:
    def test_what_is_due_becomes_ready_as_it_was_and_the_rest_stays(self, queue):
        invoices = queue()
        due = send("invoices", "due", priority=7, delay=60)
        later = send("invoices", "later", delay=60)
        Scheduled.objects.filter(message_id=due).update(attempt=3)
        make_due(message_id=due)
        arrivals, more = maintenance.promote_due()
        delivery = Delivery.objects.get()
        assert (delivery.queue, delivery.message_id) == (invoices, due)
        assert (delivery.priority, delivery.attempt) == (7, 3)
        assert arrivals == [Arrival(invoices.pk, 7, delivery.pk)]
        assert more is False
        assert Scheduled.objects.get().message_id == later

    def test_what_was_due_first_is_ready_first(self, queue):
        queue()
        ids = [send("invoices", n, delay=60) for n in range(3)]
        for seconds_ago, message_id in zip((1, 3, 2), ids, strict=True):
            make_due(seconds_ago, message_id=message_id)
        maintenance.promote_due()
        ready = Delivery.objects.order_by("id").values_list("message_id", flat=True)
        assert list(ready) == [ids[1], ids[2], ids[0]]

    def test_each_queue_and_priority_is_announced_by_its_first_delivery(self, queue):
        queues = {name: queue(name) for name in ("a", "b")}
        for name, priority in (("a", 0), ("a", 0), ("a", 5), ("b", 0)):
            send(name, 1, priority=priority, delay=60)
        make_due()
        arrivals, _ = maintenance.promote_due()
        first = {}
        for row in Delivery.objects.order_by("-id"):
            first[row.queue_id, row.priority] = row.pk
        assert sorted(arrivals) == sorted(
            Arrival(queue_id, priority, pk) for (queue_id, priority), pk in first.items()
        )
        assert {arrival.queue_id for arrival in arrivals} == {q.pk for q in queues.values()}

    def test_a_batch_is_a_thousand_and_says_when_there_is_more(self, queue):
        queue()
        send_many("invoices", range(1001), delay=60)
        make_due()
        _, more = maintenance.promote_due()
        assert (Delivery.objects.count(), more) == (1000, True)
        _, more = maintenance.promote_due()
        assert (Delivery.objects.count(), more) == (1001, False)

    def test_promoting_nothing_is_no_arrival(self):
        assert maintenance.promote_due() == ([], False)

    def test_it_is_one_statement(self, queue, django_assert_num_queries):
        queue()
        send_many("invoices", range(10), delay=60)
        make_due()
        with django_assert_num_queries(1):
            maintenance.promote_due()


@pytest.mark.django_db(transaction=True)
def test_one_worker_promotes_at_a_time_and_the_others_do_not_wait(queue, elsewhere, monkeypatch):
    monkeypatch.setattr(maintenance, "PROMOTE_BATCH", 2)
    queue()
    send_many("invoices", range(3), delay=60)
    make_due()
    with transaction.atomic():
        arrivals, more = maintenance.promote_due()
        assert (len(arrivals), more) == (1, True)
        assert elsewhere(maintenance.promote_due).result(15) == ([], False)
    maintenance.promote_due()
    assert Delivery.objects.count() == 3


class TestTheNextOneDue:
    def test_it_is_the_earliest_by_the_databases_clock(self, queue):
        queue()
        assert maintenance.seconds_until_due() is None
        send("invoices", 1, delay=500)
        send("invoices", 1, delay=100)
        assert 0 < maintenance.seconds_until_due() <= 100

    def test_what_is_due_already_is_in_the_past(self, queue):
        queue()
        send("invoices", 1, delay=500)
        make_due(10)
        assert maintenance.seconds_until_due() <= -10


class TestPruning:
    def test_all_batches_are_pruned_and_counted(self, queue, monkeypatch):
        monkeypatch.setattr(maintenance, "PRUNE_BATCH", 2)
        queue(retention=60)
        send_many("invoices", range(7))
        send("invoices", "waits")
        past = timezone.now() - datetime.timedelta(minutes=2)
        Message.objects.update(published_at=past)
        Delivery.objects.exclude(message__body="waits").delete()
        for key in "abc":
            Idempotency.objects.create(scope="a", key=key, expires_at=past)
        assert maintenance.prune() == 10
        assert [message.body for message in Message.objects.all()] == ["waits"]
        assert not Idempotency.objects.exists()

    def test_pruning_nothing_is_zero(self, queue):
        queue()
        send("invoices", 1)
        assert maintenance.prune() == 0

    @pytest.mark.usefixtures("declared")
    def test_a_queue_without_retention_leaves_nothing_that_pruning_could_not_find(self, queue):
        queue(retention=0)

        @consumer("invoices")
        def fail_once(message):
            if message.attempt == 1:
                raise RuntimeError

        send("invoices", 1)
        drain("invoices")
        assert Attempt.objects.count() == 1
        make_due()
        drain("invoices")
        assert not Message.objects.exists()
        assert not Attempt.objects.exists()
