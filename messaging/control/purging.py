"""Purge what waits on queues."""

from collections.abc import Iterator

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..models import Queue
from ..store import purging
from ..store.connection import connection_for
from ..store.purging import Ceiling
from .batches import BATCH
from .history import Operator, recorded
from .queues import find_queue, join_lanes


def purge(
    queue: Queue | str,
    *,
    by: Operator = "",
    scheduled: bool = True,
    upto: Ceiling | None = None,
    limit: int | None = None,
    using: str | None = None,
) -> int:
    """Delete the messages that wait on a queue and return how many went.

    Ready ones, those with a key, and ``scheduled`` ones too; not what a worker is handling or
    somebody holds under a lease, and nothing newer than ``upto`` (default: now). ``limit`` ends
    early, after at least that many. Parked keys stay parked.
    """
    found = find_queue(queue, using)
    connection = connection_for(using)
    upto = upto or ceiling(using)
    with recorded("Queue purged", found, by, queue=found.name) as done:
        for gone in purged(connection, found.pk, upto, scheduled=scheduled):
            done.count += gone
            if limit is not None and done.count >= limit:
                break
    return done.count


def ceiling(using: str | None = None) -> Ceiling:
    """Return the newest ids at this moment, for a verb that runs later."""
    connection = connection_for(using)
    join_lanes(connection)
    return purging.ceiling(connection)


def purged(
    connection: BaseDatabaseWrapper, queue_id: int, upto: Ceiling, *, scheduled: bool = True
) -> Iterator[int]:
    """Delete what waits on a queue batch by batch; yield how many went with each.

    What is in lanes first, so that lanes which are empty then can end.
    """
    yield from _purge_entries(connection, queue_id, upto.entries)
    yield from _purge_ready(connection, queue_id, upto.ready)
    if scheduled:
        yield from _purge_scheduled(connection, queue_id, upto.scheduled)


def _purge_entries(connection: BaseDatabaseWrapper, queue_id: int, upto: int) -> Iterator[int]:
    batch = purging.Batch(0, BATCH, purging.NO_ENTRY)
    while batch.rows == BATCH:
        with transaction.atomic(using=connection.alias):
            batch = purging.purge_entries(
                connection, queue_id, after=batch.next, upto=upto, limit=BATCH
            )
        yield batch.messages


def _purge_ready(connection: BaseDatabaseWrapper, queue_id: int, upto: int) -> Iterator[int]:
    batch = purging.Batch(0, BATCH, purging.FIRST)
    while batch.rows == BATCH:
        with transaction.atomic(using=connection.alias):
            batch = purging.purge_ready(
                connection, queue_id, after=batch.next, upto=upto, limit=BATCH
            )
        yield batch.messages


def _purge_scheduled(connection: BaseDatabaseWrapper, queue_id: int, upto: int) -> Iterator[int]:
    batch = purging.Batch(0, BATCH, purging.EARLIEST)
    while batch.rows == BATCH:
        with transaction.atomic(using=connection.alias):
            batch = purging.purge_scheduled(
                connection, queue_id, since=batch.next, upto=upto, limit=BATCH
            )
        yield batch.messages
