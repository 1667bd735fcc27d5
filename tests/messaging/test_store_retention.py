"""The log keeps messages for their retention, and those that wait for longer."""

import datetime

import pytest
from django.db import connection, transaction
from django.utils import timezone
from rows import hold, keyed

from messaging import publish, send
from messaging.models import (
    Attempt,
    DeadLetter,
    Deduplication,
    Delivery,
    Idempotency,
    Lease,
    Message,
    Queue,
    Scheduled,
    Stat,
    Topic,
    Worker,
)
from messaging.store import redriving, retention

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]

HOUR = 3600


def age(message_id, seconds):
    """Have a message published this long ago."""
    at = timezone.now() - datetime.timedelta(seconds=seconds)
    Message.objects.filter(pk=message_id).update(published_at=at)
    return int(message_id)


def handled(message_id):
    """Leave nothing that waits for a message, as its acknowledgement does."""
    Delivery.objects.filter(message_id=message_id).delete()
    Scheduled.objects.filter(message_id=message_id).delete()
    return message_id


def kept():
    return set(Message.objects.values_list("id", flat=True))


def prune(after=0, limit=1000):
    return retention.prune_log(connection, after, limit)


class TestTheLog:
    def test_what_is_handled_and_past_its_retention_goes_and_the_rest_stays(self, queue):
        queue(retention=HOUR)
        old = handled(age(send("invoices", "old"), HOUR + 60))
        young = handled(age(send("invoices", "young"), HOUR - 60))
        new = handled(send("invoices", "new"))
        assert prune()[0] == 1
        assert kept() == {young, new}
        assert old not in kept()

    def test_what_waits_stays_however_old_it_is(self, queue):
        queue(retention=HOUR)
        ready = age(send("invoices", "ready"), 100 * HOUR)
        scheduled = age(send("invoices", "scheduled", delay=60), 100 * HOUR)
        assert prune()[0] == 0
        assert kept() == {ready, scheduled}
        handled(ready)
        assert prune()[0] == 1
        assert kept() == {scheduled}

    def test_what_waits_behind_a_key_or_is_held_under_a_lease_stays(self, queue):
        invoices = queue(retention=HOUR)
        (waits,) = keyed("invoices", 1)
        age(waits, 100 * HOUR)
        hold(invoices)
        held = age(Lease.objects.get().message_id, 100 * HOUR)
        (not_yet,) = keyed("invoices", 1, join=False)
        age(not_yet, 100 * HOUR)
        assert prune()[0] == 0
        assert kept() == {waits, held, not_yet}
        Lease.objects.all().delete()
        assert prune()[0] == 1
        assert kept() == {waits, not_yet}

    def test_without_retention_what_nobody_waits_for_goes_at_once(self, queue, topic, subscribe):
        queue("invoices", retention=0)
        topic("orders.placed", retention=0)
        subscribe("orders.placed", "billing")
        left_over = handled(send("invoices", 1))
        waits, published = send("invoices", 2), publish("orders.placed", 1)
        assert prune()[0] == 1
        assert kept() == {waits, published}
        handled(published)
        assert prune()[0] == 1
        assert left_over not in kept()
        assert kept() == {waits}

    def test_a_topics_message_stays_until_its_last_queue_has_handled_it(self, topic, subscribe):
        topic("orders.placed", retention=HOUR)
        subscribe("orders.placed", "billing", description="")
        subscribe("orders.placed", "shipping")
        published = age(publish("orders.placed", 1), 2 * HOUR)
        Delivery.objects.filter(queue__name="billing").delete()
        assert prune()[0] == 0
        Delivery.objects.all().delete()
        assert prune()[0] == 1
        assert published not in kept()

    def test_each_queue_and_topic_has_its_own_retention(self, queue, topic):
        queue("short", retention=HOUR)
        queue("long", retention=50 * HOUR)
        topic("orders.placed", retention=10 * HOUR)
        ids = {}
        for hours in (2, 20, 60):
            ids["long", hours] = handled(age(send("long", 1), hours * HOUR))
            ids["short", hours] = handled(age(send("short", 1), hours * HOUR))
            ids["topic", hours] = age(publish("orders.placed", 1), hours * HOUR)
        prune()
        assert kept() == {ids["long", 2], ids["long", 20], ids["topic", 2]}

    def test_what_belongs_to_no_queue_any_more_goes(self, queue, topic):
        queue("invoices")
        topic("orders.placed")
        handled(age(send("invoices", 1), 1))
        age(publish("orders.placed", 1), 1)
        Queue.objects.all().delete()
        Topic.objects.all().delete()
        assert prune()[0] == 2

    def test_failed_attempts_are_forgotten_with_their_message_unless_it_is_dead(self, queue):
        invoices = queue(retention=HOUR)
        healed, dead, young = (handled(send("invoices", n)) for n in range(3))
        age(healed, 2 * HOUR)
        age(dead, 2 * HOUR)
        for message_id in (healed, dead, young):
            Attempt.objects.create(
                message_id=message_id, queue=invoices, attempt=1, duration=0, worker=""
            )
        DeadLetter.objects.create(
            message_id=dead,
            queue=invoices,
            origin=invoices,
            priority=0,
            headers={},
            published_at=timezone.now(),
            attempts=1,
        )
        assert prune()[0] == 2
        assert set(Attempt.objects.values_list("message_id", flat=True)) == {dead, young}


class TestBatches:
    def test_a_batch_looks_at_no_more_than_it_was_asked_to_and_says_where_to_go_on(self, queue):
        queue(retention=HOUR)
        ids = [handled(age(send("invoices", n), 2 * HOUR)) for n in range(5)]
        assert prune(limit=2) == (2, ids[1])
        assert prune(after=ids[1], limit=2) == (2, ids[3])
        assert prune(after=ids[3], limit=2) == (1, ids[4])
        assert prune(after=ids[4], limit=2) == (0, None)

    def test_what_stays_does_not_stop_the_walk(self, queue):
        queue(retention=HOUR)
        waiting = [age(send("invoices", n), 2 * HOUR) for n in range(3)]
        behind = handled(age(send("invoices", "behind"), 2 * HOUR))
        assert prune(limit=3) == (0, waiting[-1])
        assert prune(after=waiting[-1], limit=3) == (1, behind)

    @pytest.mark.parametrize(("hours", "hours_of_topic"), [(1, 50), (50, 1)])
    def test_the_walk_goes_on_for_the_shortest_retention(self, queue, topic, hours, hours_of_topic):
        queue(retention=hours * HOUR)
        topic("orders.placed", retention=hours_of_topic * HOUR)
        ids = [age(publish("orders.placed", n), 2 * HOUR) for n in range(2)]
        assert prune(limit=1) == (hours_of_topic == 1, ids[0])

    def test_the_walk_ends_where_nothing_can_be_old_enough(self, queue):
        queue(retention=HOUR)
        old = handled(age(send("invoices", "old"), 2 * HOUR))
        for n in range(3):
            handled(send("invoices", n))
        assert prune() == (1, old)
        assert prune(after=old) == (0, None)


@pytest.mark.django_db(transaction=True)
def test_one_worker_prunes_at_a_time_and_the_others_do_not_wait(queue, elsewhere):
    queue(retention=HOUR)
    handled(age(send("invoices", "old"), 2 * HOUR))
    with transaction.atomic():
        assert prune()[0] == 1
        assert elsewhere(prune).result(15) == (0, None)


@pytest.mark.django_db(transaction=True)
class TestPruningWhileADeadLetterIsRedriven:
    """The message that waits again is not taken from under it, whichever comes first."""

    @pytest.fixture
    def dead(self, queue):
        """Return the id of a dead letter whose message is past its retention."""
        invoices = queue(retention=HOUR)
        message_id = handled(age(send("invoices", "kept"), 2 * HOUR))
        return DeadLetter.objects.create(
            message_id=message_id,
            queue=invoices,
            origin=invoices,
            priority=0,
            headers={},
            body="kept",
            published_at=timezone.now(),
            attempts=1,
        ).pk

    def test_while_it_is_pruned_the_redrive_waits_and_puts_the_message_back(
        self, dead, elsewhere, until, waiters
    ):
        with transaction.atomic():
            assert prune()[0] == 1
            redriven = elsewhere(redriving.redrive, connection, [dead])
            until(lambda: waiters() == 1)
        assert len(redriven.result(15)) == 1
        assert [row.message.body for row in Delivery.objects.all()] == ["kept"]

    def test_while_it_is_redriven_nothing_is_pruned(self, dead, elsewhere):
        with transaction.atomic():
            redriving.redrive(connection, [dead])
            assert elsewhere(prune).result(15) == (0, None)
        assert prune()[0] == 0
        assert [row.message.body for row in Delivery.objects.all()] == ["kept"]


def test_expired_records_old_statistics_and_ghosts_go(queue):
    now, minute = timezone.now(), datetime.timedelta(minutes=1)
    past = now - minute
    Deduplication.objects.create(scope="a", key="a", message_id=1, digest=b"", expires_at=past)
    Deduplication.objects.create(
        scope="a", key="b", message_id=1, digest=b"", expires_at=now + minute
    )
    Deduplication.objects.create(scope="a", key="c", message_id=1, digest=b"", expires_at=None)
    Idempotency.objects.create(scope="a", key="a", expires_at=past)
    Idempotency.objects.create(scope="a", key="b", expires_at=now + minute)
    Idempotency.objects.create(scope="a", key="c", expires_at=None)
    Stat.objects.create(process="old", at=now - datetime.timedelta(days=1, minutes=1))
    Stat.objects.create(process="new", at=now - datetime.timedelta(hours=23))
    common = {
        "queues": [],
        "threads": 1,
        "running": {},
        "handled": 0,
        "failed": 0,
        "started_at": past,
        "pid": 1,
    }
    Worker.objects.create(name="ghost", seen_at=past - minute, **common)
    Worker.objects.create(name="alive", seen_at=now, **common)
    assert retention.prune_expired(connection, 100) == 4
    assert retention.prune_expired(connection, 100) == 0
    assert set(Deduplication.objects.values_list("key", flat=True)) == {"b", "c"}
    assert set(Idempotency.objects.values_list("key", flat=True)) == {"b", "c"}
    assert list(Stat.objects.values_list("process", flat=True)) == ["new"]
    assert list(Worker.objects.values_list("name", flat=True)) == ["alive"]


def test_expired_records_go_in_batches():
    past = timezone.now() - datetime.timedelta(minutes=1)
    for key in "abc":
        Idempotency.objects.create(scope="a", key=key, expires_at=past)
    assert [retention.prune_expired(connection, 2) for _ in range(3)] == [2, 1, 0]
