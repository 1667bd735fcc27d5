"""Deletion of queues: nothing that waits is lost, unless an operator forces it."""

from collections.abc import Callable
from typing import Any

import pytest
from control_rows import bury, holding
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection, transaction
from rows import hold, keyed

from messaging import UnknownQueue, control, send, send_many
from messaging.exceptions import OperationRefused
from messaging.models import (
    ActiveConsumer,
    DeadLetter,
    Delivery,
    Lane,
    LaneEntry,
    Lease,
    Queue,
    RateLimit,
    Room,
    Scheduled,
    Subscription,
    Worker,
)
from messaging.store import deletion

pytestmark = pytest.mark.django_db


def fill_ready(queue: Queue) -> None:
    send_many("letters", range(3))


def fill_scheduled(queue: Queue) -> None:
    send("letters", 1, delay=60)


def fill_keys(queue: Queue) -> None:
    keyed("letters", 1, 2)


def fill_leases(queue: Queue) -> None:
    hold(queue, 2)


def fill_dead(queue: Queue) -> None:
    bury(queue, 2)


def serve(queue: Queue) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO messaging_worker (name, host, pid, version, queues, threads, running,
                handled, failed, state, started_at, seen_at)
            VALUES ('w1', 'h', 1, '0', '["letters"]', 1, '{}', 0, 0, 'running', now(), now())"""
        )


@pytest.mark.parametrize(
    ("fill", "obstacle"),
    [
        (fill_ready, "3 ready"),
        (fill_scheduled, "1 scheduled"),
        (fill_keys, "2 ready"),
        (fill_leases, "2 in flight"),
        (fill_dead, "2 dead letters from here"),
        (serve, "1 worker processes, such as w1"),
    ],
)
def test_a_queue_in_use_is_not_deleted_and_says_what_is_in_the_way(
    queue: Queue, fill: Callable[[Queue], None], obstacle: str
) -> None:
    fill(queue)
    with pytest.raises(OperationRefused, match=obstacle):
        control.delete_queue(queue)
    assert Queue.objects.filter(pk=queue.pk).exists()
    assert obstacle in control.obstacle_to_deletion(queue)


def test_a_queue_is_not_deleted_while_it_holds_the_dead_letters_of_others(queue: Queue) -> None:
    with pytest.raises(OperationRefused, match="dead-letter queue of letters"):
        control.delete_queue("letters.dlq", force=True)


def test_an_idle_queue_is_deleted_with_its_subscriptions(queue: Queue, operator: User) -> None:
    Subscription.objects.create(pattern="orders.#", queue=queue)
    Worker.objects.all().delete()
    assert control.delete_queue("letters", by=operator) == 0
    assert not Queue.objects.filter(name="letters").exists()
    assert not Subscription.objects.filter(pattern="orders.#").exists()
    assert LogEntry.objects.get().get_change_message() == "Queue deleted: 0."


def test_a_queue_deleted_by_force_takes_what_waits_and_counts_it(
    queue: Queue, operator: User, in_small_batches: None
) -> None:
    fill_ready(queue)
    fill_scheduled(queue)
    fill_keys(queue)
    fill_leases(queue)
    bury(queue, 4, queue=queue)
    RateLimit.objects.create(queue=queue, tokens=1)
    Room.objects.create(queue=queue)
    ActiveConsumer.objects.create(queue=queue, worker="w1", until="2030-01-01T00:00Z")
    serve(queue)
    assert control.delete_queue(queue, force=True, by=operator) == 12
    left = (Delivery, Scheduled, DeadLetter, Lane, LaneEntry, Lease, RateLimit, Room)
    assert not any(model.objects.exists() for model in (*left, ActiveConsumer))
    assert LogEntry.objects.get().get_change_message() == "Queue deleted: 12."


def test_a_queue_without_messages_is_deleted_with_the_keys_that_were_parked_on_it(
    queue: Queue,
) -> None:
    fill_keys(queue)
    LaneEntry.objects.all().delete()
    Lane.objects.update(parked_at="2026-01-01T00:00Z", tokens=0)
    assert control.delete_queue(queue) == 0
    assert not Lane.objects.exists()
    assert not Delivery.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_queue_is_not_deleted_under_a_transaction_that_is_sending_to_it(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messaging.control.deletion.LOCK_WAIT", 0.05)
    with (
        holding(lambda cursor: send("letters", "not committed yet"), commit=True),
        pytest.raises(OperationRefused, match="Try again"),
    ):
        control.delete_queue(queue)
    with pytest.raises(OperationRefused, match="1 ready"):
        control.delete_queue(queue)


@pytest.mark.django_db(transaction=True)
def test_who_sends_while_a_queue_is_deleted_learns_that_it_is_gone(
    queue: Queue, elsewhere: Any, until: Any, waiters: Any
) -> None:
    with transaction.atomic():
        deletion.keep_senders_out(connection, 1)
        sending = elsewhere(send, "letters", 1)
        until(waiters)
        Queue.objects.filter(pk=queue.pk).delete()
    with pytest.raises(UnknownQueue, match="'letters'"):
        sending.result(30)
    assert not Delivery.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_queue_is_not_deleted_under_a_transaction_that_is_sending_to_it_with_a_key(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messaging.control.deletion.LOCK_WAIT", 0.05)
    with (
        holding(lambda cursor: keyed("letters", "not committed yet", join=False), commit=True),
        pytest.raises(OperationRefused, match="Try again"),
    ):
        control.delete_queue(queue)
    with pytest.raises(OperationRefused, match="1 ready"):
        control.delete_queue(queue)
