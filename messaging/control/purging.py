"""Purge what waits on queues."""

from collections.abc import Callable, Iterator
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..models import Queue
from ..store import purging, receipts
from ..store.connection import connection_for
from ..store.purging import Ceiling
from .batches import BATCH
from .history import Operator, name_of, recorded
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
    with recorded("Queue purged", found, by, kind="purge", using=using, queue=found) as done:
        for gone in purged(connection, found.pk, upto, by=by, scheduled=scheduled):
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
    connection: BaseDatabaseWrapper,
    queue_id: int,
    upto: Ceiling,
    *,
    by: Operator = "",
    scheduled: bool = True,
) -> Iterator[int]:
    """Delete what waits on a queue batch by batch; yield how many went with each.

    What is in lanes first, so that lanes which are empty then can end.
    """
    yield from _purge(
        connection, queue_id, by, purging.purge_entries, purging.NO_ENTRY, upto.entries
    )
    yield from _purge(connection, queue_id, by, purging.purge_ready, purging.FIRST, upto.ready)
    if scheduled:
        yield from _purge(
            connection, queue_id, by, purging.purge_scheduled, purging.EARLIEST, upto.scheduled
        )


def _purge(
    connection: BaseDatabaseWrapper,
    queue_id: int,
    by: Operator,
    purge_batch: Callable[..., purging.Batch],
    first: Any,
    upto: int,
) -> Iterator[int]:
    batch = purging.Batch((), BATCH, first)
    while batch.rows == BATCH:
        with transaction.atomic(using=connection.alias):
            batch = purge_batch(connection, queue_id, after=batch.next, upto=upto, limit=BATCH)
            ids, name = batch.messages, name_of(by)
            receipts.keep(connection, queue_id, ids, by=name, outcome=receipts.PURGED)
        yield len(batch.messages)
