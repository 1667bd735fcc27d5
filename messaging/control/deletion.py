"""Delete queues, without losing what waits on them unless forced."""

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import OperationRefused
from ..models import Queue
from ..store import operations
from ..store.connection import connection_for
from .batches import in_batches
from .deadletters import discard_batch, held_ids
from .history import Done, Operator, recorded
from .queues import find_queue, purged, queues, tell_workers

# How long to wait for transactions that are sending, seconds.
LOCK_WAIT = 2.0


def delete_queue(
    queue: Queue | str, *, force: bool = False, by: Operator = "", using: str | None = None
) -> int:
    """Delete a queue and its subscriptions; return how many messages went with it.

    Refused with OperationRefused while it has messages or workers, unless forced. Dead letters of
    it that another queue holds stay there, and can no longer be redriven.
    """
    found = find_queue(queue, using)
    connection = connection_for(using)
    _check_deletion(connection, found, force)
    with recorded("Queue deleted", found, by, deletion=True, queue=found.name) as done:
        if force:
            _empty(connection, found.pk, done)
        try:
            with transaction.atomic(using=connection.alias):
                operations.keep_senders_out(connection, LOCK_WAIT)
                _check_deletion(connection, found, force)
                if force:
                    _empty(connection, found.pk, done)
                queues(using).filter(pk=found.pk).delete()
                tell_workers(using)
        except TimeoutError as error:
            raise OperationRefused(
                f"Queue {found.name!r} was not deleted: some transaction has been sending or "
                f"handling messages for more than {LOCK_WAIT:g} seconds. Try again."
            ) from error
    return done.count


def obstacle_to_deletion(queue: Queue | str, *, using: str | None = None) -> str:
    """Say what would be lost with a queue, and the remedy; nothing when it can be deleted."""
    try:
        _check_deletion(connection_for(using), find_queue(queue, using), False)
    except OperationRefused as refusal:
        return str(refusal)
    return ""


def _check_deletion(connection: BaseDatabaseWrapper, queue: Queue, force: bool) -> None:
    sources = queue.dead_letter_sources.using(connection.alias).values_list("name", flat=True)
    if held_for := list(sources[:3]):
        raise OperationRefused(
            f"Queue {queue.name!r} is the dead-letter queue of {', '.join(held_for)}. Give "
            f"them another one first."
        )
    if force:
        return
    depth = operations.depths(connection, [queue.pk])[queue.pk]
    if any(depth):
        raise OperationRefused(
            f"Queue {queue.name!r} has messages: {depth}. Purge it and redrive or "
            f"discard its dead letters first, or delete it with force=True."
        )
    if workers := operations.live_workers(connection, queue.name):
        raise OperationRefused(
            f"Queue {queue.name!r} is served by {len(workers):,} worker processes, such as "
            f"{workers[0]}. Stop them first, or delete it with force=True."
        )


def _empty(connection: BaseDatabaseWrapper, queue_id: int, done: Done) -> None:
    for gone in purged(connection, queue_id, operations.ceiling(connection)):
        done.count += gone
    in_batches(held_ids(connection, queue_id), discard_batch, done, connection.alias)
