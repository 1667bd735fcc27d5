"""Maintain: make due what is due, and prune what is past its retention."""

from django.db import transaction

from . import scheduling
from .engines import wakeup
from .store import deliveries, limits, receipts, replies, retention, schedules
from .store.connection import connection_for

PROMOTE_BATCH = 1_000
PRUNE_BATCH = 10_000


def promote_due(using: str | None = None) -> tuple[list[wakeup.Arrival], bool]:
    """Move a batch of due deliveries to ready.

    Returns what has arrived, and whether more is due. One worker does it at a time.
    """
    rows = deliveries.promote(connection_for(using), PROMOTE_BATCH)
    arrivals = [
        wakeup.Arrival(queue, priority, wakeup.LATEST if first is None else first)
        for queue, priority, first, _ in rows
    ]
    return arrivals, sum(row[3] for row in rows) >= PROMOTE_BATCH


def seconds_until_due(using: str | None = None) -> float | None:
    """Return the time until the next scheduled delivery is due, in seconds, or None."""
    return deliveries.seconds_until_due(connection_for(using))


def fire_schedules(using: str | None = None) -> float | None:
    """Fire all schedules that are due; return the seconds until the next tick, or None."""
    while scheduling.fire_due(using):
        pass
    return schedules.seconds_until_due(connection_for(using))


def prune(using: str | None = None) -> int:
    """Delete what is past its retention, in batches; return how many rows went."""
    connection = connection_for(using)
    total = 0
    after: int | None = 0
    while after is not None:
        with transaction.atomic(using=connection.alias):
            gone, after = retention.prune_log(connection, after, PRUNE_BATCH)
        total += gone
    while gone := retention.prune_expired(connection, PRUNE_BATCH):
        total += gone
    while gone := replies.prune(connection, PRUNE_BATCH):
        total += gone
    while gone := receipts.prune(connection, PRUNE_BATCH):
        total += gone
    limits.prune(connection)
    return total
