"""Delete queues, without losing what waits on them unless forced."""

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import OperationRefused
from ..models import Queue
from ..store import deletion
from ..store.connection import connection_for
from ..store.depths import depths
from .batches import in_batches
from .deadletters import discard_batch, held_ids
from .history import Done, Operator, recorded
from .purging import ceiling, purged
from .queues import find_queue, join_lanes, queues, tell_workers

# How long to wait for transactions that are sending, seconds.
LOCK_WAIT = 2.0


def delete_queue(
    queue: Queue | str,
    *,
    force: bool = False,
    by: Operator = "",
    wait: float | None = None,
    using: str | None = None,
) -> int:
    """Delete a queue and its subscriptions; return how many messages went with it.

    Refused with OperationRefused while it has messages or workers, unless forced; whoever holds
    one of its messages under a lease then finds it lost. It waits up to ``wait`` seconds, by
    default 2, for transactions that are sending, and others that would send wait for it. Dead
    letters of it that another queue holds stay there, and can no longer be redriven.
    """
    found = find_queue(queue, using)
    connection = connection_for(using)
    patience = LOCK_WAIT if wait is None else wait
    join_lanes(connection)
    _check(connection, found, force)
    with recorded(
        "Queue deleted",
        found,
        by,
        kind="delete_queue",
        using=using,
        deletion=True,
        name=found.name,
    ) as done:
        if force:
            for gone in purged(connection, found.pk, ceiling(connection.alias)):
                done.count += gone
            _discard(connection, found.pk, done)
        try:
            with transaction.atomic(using=connection.alias):
                deletion.keep_senders_out(connection, patience)
                _check(connection, found, force)
                if force:
                    _discard(connection, found.pk, done)
                done.count += deletion.clear(connection, found.pk)
                queues(using).filter(pk=found.pk).delete()
                tell_workers(using)
        except TimeoutError as error:
            raise OperationRefused(
                f"Queue {found.name!r} was not deleted: some transaction has been sending or "
                f"handling messages for more than {patience:g} seconds. Try again."
            ) from error
    return done.count


def obstacle_to_deletion(queue: Queue | str, *, using: str | None = None) -> str:
    """Say what is in the way of a queue's deletion, and the remedy; nothing when nothing is."""
    found = find_queue(queue, using)
    connection = connection_for(using)
    return _held_for(connection, found) or _used_by(connection, found)


def _check(connection: BaseDatabaseWrapper, queue: Queue, force: bool) -> None:
    if obstacle := _held_for(connection, queue):
        raise OperationRefused(obstacle)
    if not force and (obstacle := _used_by(connection, queue)):
        raise OperationRefused(f"{obstacle} Or delete it with force=True.")


def _held_for(connection: BaseDatabaseWrapper, queue: Queue) -> str:
    sources = queue.dead_letter_sources.using(connection.alias).values_list("name", flat=True)
    if names := list(sources[:3]):
        return (
            f"Queue {queue.name!r} is the dead-letter queue of {', '.join(names)}. Give them "
            f"another one first."
        )
    return ""


def _used_by(connection: BaseDatabaseWrapper, queue: Queue) -> str:
    depth = depths(connection, [queue.pk])[queue.pk]
    if any(depth):
        return (
            f"Queue {queue.name!r} has messages: {depth}. Purge it, and redrive or discard its "
            f"dead letters first."
        )
    if workers := deletion.live_workers(connection, queue.name):
        return (
            f"Queue {queue.name!r} is served by {len(workers):,} worker processes, such as "
            f"{workers[0]}. Stop them first."
        )
    return ""


def _discard(connection: BaseDatabaseWrapper, queue_id: int, done: Done) -> None:
    in_batches(held_ids(connection, queue_id), discard_batch, done, connection.alias)
