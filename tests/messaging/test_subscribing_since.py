"""Subscribing from a point in the past: what was and what comes, each message once."""

import datetime
import threading
from collections import Counter

import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.db import connection, transaction

from messaging import (
    InvalidFilter,
    InvalidOption,
    NotSupported,
    OperationRefused,
    QueueDisabled,
    UnknownQueue,
    asubscription,
    control,
    publish,
    publish_many,
    subscribe,
    subscription,
    unsubscribe,
)
from messaging.control import catching_up
from messaging.models import Delivery, Message, Operation, Queue, Subscription

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("audit")]
AN_HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def audit(transactional_db, bare, topic, queue):
    """Return a queue beside a topic that it is not subscribed to."""
    topic("orders.placed")
    return queue("audit")


def bodies_on(name="audit"):
    """Return the bodies that wait on a queue, in order."""
    found = Delivery.objects.filter(queue__name=name).order_by("id")
    return list(found.values_list("message__body", flat=True))


def everything(messages):
    """Acknowledge all that comes, and return the bodies."""
    bodies = []
    for message in messages():
        bodies.append(message.body)
        message.acknowledge()
    return bodies


def long_ago():
    """Let all that was published until now have been published two hours ago."""
    Message.objects.update(published_at=datetime.datetime.now(datetime.UTC) - 2 * AN_HOUR)


class Publisher:
    """A transaction elsewhere that has published, and ends when told."""

    def __init__(self, elsewhere, body):
        self.has_published, self.may_end = threading.Event(), threading.Event()
        self.future = elsewhere(self.run, body)
        assert self.has_published.wait(15)

    def run(self, body):
        with transaction.atomic():
            publish("orders.placed", body)
            self.has_published.set()
            assert self.may_end.wait(20)

    def end(self):
        self.may_end.set()
        self.future.result(15)


class TestBeginning:
    def test_a_queue_takes_what_was_published_since_then_and_what_comes(self):
        publish("orders.placed", "too old")
        long_ago()
        publish_many("orders.placed", ["old", "older"])
        done = subscribe("orders.*", "audit", since=AN_HOUR)
        publish("orders.placed", "new")
        assert bodies_on() == ["new"]
        assert control.run_operation(done.operation).done == 2
        assert sorted(bodies_on()) == ["new", "old", "older"]
        assert set(Delivery.objects.values_list("subscription", flat=True)) == {done.id}

    @pytest.mark.parametrize("kind", ["time", "age", "id", "snapshot"])
    def test_it_begins_at_a_time_an_age_a_message_or_a_snapshot(self, kind):
        publish("orders.placed", 1)
        long_ago()
        snapshot = control.snapshot()
        first = int(publish("orders.placed", 2))
        publish("orders.placed", 3)
        time = Message.objects.get(pk=first).published_at
        since = {"time": time, "age": AN_HOUR, "id": first, "snapshot": snapshot}[kind]
        done = subscribe("orders.*", "audit", since=since)
        control.run_operation(done.operation)
        assert bodies_on() == [2, 3]

    def test_only_what_the_filter_matches_comes(self):
        publish_many("orders.placed", [{"total": total} for total in (5, 10)])
        wanted = {"filter": {"total": [{"numeric": [">", 9]}]}, "filter_scope": "body"}
        done = subscribe("orders.#", "audit", since=AN_HOUR, **wanted)
        publish_many("orders.placed", [{"total": total} for total in (6, 11)])
        control.run_operation(done.operation)
        assert sorted(body["total"] for body in bodies_on()) == [10, 11]

    def test_subscribing_again_brings_nothing_twice(self, elsewhere):
        publish("orders.placed", 1)
        first = subscribe("orders.*", "audit", since=AN_HOUR)
        control.run_operation(first.operation)
        publisher = Publisher(elsewhere, 2)  # which it does not even wait for
        assert subscribe("orders.*", "audit", since=AN_HOUR) == (first.id, False, None)
        publisher.end()
        assert bodies_on() == [1, 2]
        assert Operation.objects.count() == 1
        with pytest.raises(InvalidFilter, match="another filter"):
            subscribe("orders.*", "audit", since=AN_HOUR, filter={"n": [1]})

    def test_unsubscribing_ends_what_is_still_to_come(self):
        publish("orders.placed", 1)
        done = subscribe("orders.*", "audit", since=AN_HOUR)
        unsubscribe("orders.*", "audit")
        ended = control.run_operation(done.operation)
        assert (ended.state, ended.done) == ("failed", 0)
        assert "ended meanwhile" in ended.error
        assert bodies_on() == []

    def test_what_cannot_begin_in_the_past_is_refused(self, audit):
        for since in (datetime.datetime(2026, 1, 1), -AN_HOUR, datetime.timedelta.max, 0, "then"):
            with pytest.raises(InvalidOption, match="since"):
                subscribe("orders.*", "audit", since=since)
        with pytest.raises(UnknownQueue):
            subscribe("orders.*", "audits", since=AN_HOUR)
        with transaction.atomic(), pytest.raises(NotSupported, match=r"subscribe\(since=\)"):
            subscribe("orders.*", "audit", since=AN_HOUR)
        control.disable(audit)
        with pytest.raises(QueueDisabled):
            subscribe("orders.*", "audit", since=AN_HOUR)
        assert not Subscription.objects.exists()
        assert not Operation.objects.exists()


class TestWhilePublishersRun:
    def test_each_message_comes_once_however_its_publisher_overlaps(self, elsewhere, until):
        ended = threading.Event()

        def work(worker):
            number, committed = 0, []
            while not ended.is_set():
                number += 1
                with transaction.atomic():
                    ids = [publish("orders.placed", number)]
                    ids += publish_many("orders.placed", [number] * (number % 3))
                    ids.append(publish("orders.placed", number))
                    if is_kept := (number + worker) % 5:
                        committed += map(int, ids)
                    transaction.set_rollback(not is_kept)
            return committed

        workers = [elsewhere(work, number) for number in range(4)]
        try:
            until(lambda: Message.objects.count() > 100)
            for name in ("one", "two", "three"):
                Queue.objects.create(name=name)
                seen = Message.objects.count()
                done = subscribe("orders.#", name, since=AN_HOUR)
                until(lambda seen=seen: Message.objects.count() > seen + 100)
                control.run_operation(done.operation)
        finally:
            ended.set()
        committed = {each for worker in workers for each in worker.result(30)}
        for name in ("one", "two", "three"):
            found = Delivery.objects.filter(queue__name=name).values_list("message_id", flat=True)
            assert Counter(found) == Counter(committed), name

    def test_it_waits_for_whoever_has_published_and_others_publish_meanwhile(
        self, elsewhere, until, monkeypatch
    ):
        monkeypatch.setattr(catching_up, "LOCK_WAIT", 0.02)
        tries = []
        lock = catching_up.subscriptions.keep_publishers_out
        monkeypatch.setattr(
            catching_up.subscriptions,
            "keep_publishers_out",
            lambda *args: (tries.append(1), lock(*args)),
        )
        publisher = Publisher(elsewhere, "held")
        subscribing = elsewhere(subscribe, "orders.*", "audit", since=AN_HOUR)
        until(lambda: len(tries) > 1)
        publish("orders.placed", "meanwhile")
        publisher.end()
        done = subscribing.result(30)
        publish("orders.placed", "after")
        control.run_operation(done.operation)
        assert sorted(bodies_on()) == ["after", "held", "meanwhile"]

    def test_a_publisher_that_never_ends_is_told_and_nothing_is_stored(
        self, elsewhere, monkeypatch
    ):
        monkeypatch.setattr(catching_up, "LOCK_WAIT", 0.02)
        monkeypatch.setattr(catching_up, "PATIENCE", 0.1)
        publisher = Publisher(elsewhere, 1)
        with pytest.raises(OperationRefused, match=r"Nothing was subscribed.*Try again"):
            subscribe("orders.*", "audit", since=AN_HOUR)
        with pytest.raises(OperationRefused), subscription("orders.*", since=AN_HOUR):
            pass
        publisher.end()
        assert not Subscription.objects.exists()
        assert list(Queue.objects.values_list("name", flat=True)) == ["audit"]

    def test_a_connection_of_another_isolation_level_misses_nothing(
        self, elsewhere, waiters, until
    ):
        publisher = Publisher(elsewhere, "late")

        def begin():
            connection.ensure_connection()
            level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.connection.isolation_level = level
            return subscribe("orders.*", "audit", since=AN_HOUR)

        subscribing = elsewhere(begin)
        until(lambda: waits_for_publishers(connection))
        publisher.end()
        control.run_operation(subscribing.result(30).operation)
        assert bodies_on() == ["late"]


def waits_for_publishers(connection):
    """Tell whether somebody waits for the lock of the bindings."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks WHERE NOT granted"
            " AND relation = 'messaging_binding'::regclass"
        )
        return cursor.fetchone()[0]


class TestForAWhile:
    def test_what_was_published_before_waits_when_the_block_begins(self):
        publish("orders.placed", "too old")
        long_ago()
        publish_many("orders.placed", [1, 2])
        with subscription("orders.#", since=AN_HOUR) as messages:
            publish("orders.placed", 3)
            assert everything(messages) == [1, 2, 3]
        assert Operation.objects.get().state == "done"
        assert not Subscription.objects.exists()

    def test_async_code_begins_in_the_past_the_same_way(self):
        publish_many("orders.placed", [1, 2])

        async def listen():
            async with asubscription("orders.#", since=AN_HOUR) as messages:
                bodies = []
                async for message in messages():
                    bodies.append(message.body)
                    await message.aacknowledge()
                return bodies

        assert async_to_sync(listen)() == [1, 2]
