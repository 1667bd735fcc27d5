"""Receipts: one row for what one transaction has acknowledged."""

import datetime
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from messaging import acknowledge_many, consumer, maintenance, receive, send_many
from messaging.models import Queue, Receipt
from messaging.store import receipts
from messaging.testing import drain

pytestmark = pytest.mark.django_db

# The first ids of buckets far from those that the sequence gives.
BUCKET = 1 << receipts.BUCKET_BITS
FIRST = 1_000 * BUCKET


def kept() -> list[tuple[int, str]]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count, message_ids::text FROM messaging_receipt ORDER BY id")
        return cursor.fetchall()


@pytest.fixture
def letters(queue: Any) -> Queue:
    return queue("letters")


def test_a_transaction_of_many_messages_leaves_one_row(letters: Queue, declared: Any) -> None:
    consumer("letters", transaction_size=100)(lambda message: None)
    ids = send_many("letters", range(100))
    drain("letters")
    buckets = {each >> receipts.BUCKET_BITS for each in ids}
    assert len(kept()) == len(buckets)
    assert sum(count for count, _ in kept()) == 100


def test_a_failed_message_is_none_of_those_acknowledged(letters: Queue, declared: Any) -> None:
    @consumer("letters", transaction_size=10)
    def handle(message: Any) -> None:
        if message.body == 1:
            raise ValueError

    ids = send_many("letters", range(3))
    drain("letters")
    assert [len(receipts.of_message(connection, each)) for each in ids] == [1, 0, 1]


def test_messages_acknowledged_by_hand_are_one_row(letters: Queue) -> None:
    ids = send_many("letters", range(5))
    acknowledge_many(receive("letters", limit=5))
    assert sum(count for count, _ in kept()) == 5
    assert all(receipts.of_message(connection, each) for each in ids)


def test_a_queue_without_retention_keeps_no_receipts(queue: Any, declared: Any) -> None:
    queue("letters", retention=0)
    consumer("letters")(lambda message: None)
    send_many("letters", range(3))
    drain("letters")
    assert kept() == []


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        pytest.param([5], ["{[%d,%d)}"], id="one"),
        pytest.param([7, 5, 6], ["{[%d,%d)}"], id="in a row"),
        pytest.param([1, 2, 9, 4], ["{[%d,%d),[%d,%d),[%d,%d)}"], id="with gaps"),
        pytest.param([3, 3], ["{[%d,%d)}"], id="twice"),
    ],
)
def test_ids_are_kept_as_ranges(letters: Queue, ids: list[int], rows: list[str]) -> None:
    receipts.keep(connection, letters.pk, [FIRST + each for each in ids], by="w")
    ((count, text),) = kept()
    assert count == len(set(ids))
    assert text.count("[") == rows[0].count("[")
    for each in range(12):
        found = receipts.of_message(connection, FIRST + each)
        assert len(found) == (each in ids), each


def test_messages_far_apart_are_found_each_in_its_row(letters: Queue) -> None:
    ids = [FIRST - 1, FIRST, FIRST + BUCKET - 1, FIRST + BUCKET, FIRST + 7 * BUCKET]
    receipts.keep(connection, letters.pk, ids, by="w", seconds=2.5e-05)
    assert [count for count, _ in kept()] == [1, 2, 1, 1]
    for each in ids:
        (found,) = receipts.of_message(connection, each)
        assert (found.queue, found.outcome, found.by) == ("letters", "acknowledged", "w")
        assert found.seconds == 2.5e-05
    assert receipts.of_message(connection, FIRST + 1) == []


def test_the_receipt_of_a_message_is_found_by_the_index(letters: Queue) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO messaging_receipt"
            " (queue_id, bucket, message_ids, count, worker, duration, outcome)"
            " SELECT %s, n / 100, int8multirange(int8range(n, n + 1)), 1, 'w', 0, 'acknowledged'"
            " FROM generate_series(1, 20000) AS n",
            [letters.pk],
        )
        cursor.execute("ANALYZE messaging_receipt")
        cursor.execute(f"EXPLAIN {receipts.OF_MESSAGE}", {"id": FIRST})
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "messaging_receipt_bucket" in plan
    assert "Seq Scan on messaging_receipt" not in plan


def test_receipts_are_pruned_when_no_log_can_hold_their_messages(letters: Queue) -> None:
    Queue.objects.update(retention=3_600)
    receipts.keep(connection, letters.pk, [1], by="old")
    receipts.keep(connection, letters.pk, [2], by="new")
    long_ago = timezone.now() - datetime.timedelta(days=8)
    Receipt.objects.filter(worker="old").update(acknowledged_at=long_ago)
    maintenance.prune()
    assert [each.worker for each in Receipt.objects.all()] == ["new"]


def test_what_is_rolled_back_has_no_receipt(letters: Queue, declared: Any) -> None:
    send_many("letters", range(2))
    messages = list(receive("letters", limit=2))
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        acknowledge_many(messages)
        raise ZeroDivisionError
    assert kept() == []
