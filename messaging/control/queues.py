"""Pause, resume and purge queues."""

from collections.abc import Iterator

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet
from django.db.models.functions import Now

from .. import conf
from ..engines import wakeup
from ..exceptions import UnknownQueue
from ..models import Queue
from ..names import check_queue_name
from ..store import operations
from ..store.connection import connection_for
from ..store.operations import Ceiling, Depth
from ..store.publishing import known_names
from .batches import BATCH
from .history import Operator, enter, log, name_of, recorded


def pause(
    queue: Queue | str, *, by: Operator = "", reason: str = "", using: str | None = None
) -> bool:
    """Stop delivering a queue's messages; sending goes on. Return whether it was not paused yet.

    What workers are handling at this moment is finished.
    """
    found = find_queue(queue, using)
    if len(reason) > 200 or "\0" in reason:
        raise ValueError(
            f"The reason has {len(reason)} characters; use at most 200, and no NUL character."
        )
    with transaction.atomic(using=using or conf.DATABASE):
        running = queues(using).filter(pk=found.pk, paused_at__isnull=True)
        if not running.update(paused_at=Now(), paused_by=name_of(by)[:150], pause_reason=reason):
            return False
        enter(by, found, f"Paused: {reason}" if reason else "Paused.")
        tell_workers(using)
    log("Queue paused", by, queue=found.name, reason=reason)
    return True


def resume(queue: Queue | str, *, by: Operator = "", using: str | None = None) -> bool:
    """Deliver a paused queue's messages again; return whether it was paused."""
    found = find_queue(queue, using)
    with transaction.atomic(using=using or conf.DATABASE):
        paused = queues(using).filter(pk=found.pk, paused_at__isnull=False)
        if not paused.update(paused_at=None, paused_by="", pause_reason=""):
            return False
        enter(by, found, "Resumed.")
        tell_workers(using)
    log("Queue resumed", by, queue=found.name)
    return True


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

    Ready ones, and ``scheduled`` ones too; not what a worker is handling, and nothing newer than
    ``upto`` (default: now). ``limit`` ends early, after at least that many.
    """
    found = find_queue(queue, using)
    connection = connection_for(using)
    upto = upto or operations.ceiling(connection)
    with recorded("Queue purged", found, by, queue=found.name) as done:
        for gone in purged(connection, found.pk, upto, scheduled=scheduled):
            done.count += gone
            if limit is not None and done.count >= limit:
                break
    return done.count


def depth(queue: Queue | str, *, using: str | None = None) -> Depth:
    """Return how many messages a queue has; numbers are exact up to 10,000."""
    found = find_queue(queue, using)
    return operations.depths(connection_for(using), [found.pk])[found.pk]


def ceiling(using: str | None = None) -> Ceiling:
    """Return the newest ids at this moment, for a verb that runs later."""
    return operations.ceiling(connection_for(using))


def tell_workers(using: str | None = None) -> None:
    """Have the workers read their queues' configuration again, once this transaction commits."""
    connection = connection_for(using)
    transaction.on_commit(
        lambda: wakeup.announce_change(connection), using=connection.alias, robust=True
    )


def find_queue(queue: Queue | str, using: str | None = None) -> Queue:
    """Return the row of a queue, or raise UnknownQueue."""
    if isinstance(queue, Queue):
        return queue
    found = queues(using).filter(name=check_queue_name(queue)).first()
    if found is None:
        raise UnknownQueue(queue, known_names(connection_for(using), False))
    return found


def queues(using: str | None) -> QuerySet[Queue]:
    """Return the queues of the database that holds the messages."""
    return Queue.objects.using(using or conf.DATABASE)


def purged(
    connection: BaseDatabaseWrapper, queue_id: int, upto: Ceiling, *, scheduled: bool = True
) -> Iterator[int]:
    """Delete what waits on a queue batch by batch; yield how many went with each."""
    yield from _purge_ready(connection, queue_id, upto.ready)
    if scheduled:
        yield from _purge_scheduled(connection, queue_id, upto.scheduled)


def _purge_ready(connection: BaseDatabaseWrapper, queue_id: int, upto: int) -> Iterator[int]:
    after = operations.FIRST
    gone = BATCH
    while gone == BATCH:
        with transaction.atomic(using=connection.alias):
            gone, after = operations.purge_ready(
                connection, queue_id, after=after, upto=upto, limit=BATCH
            )
        yield gone


def _purge_scheduled(connection: BaseDatabaseWrapper, queue_id: int, upto: int) -> Iterator[int]:
    since = operations.EARLIEST
    gone = BATCH
    while gone == BATCH:
        with transaction.atomic(using=connection.alias):
            gone, since = operations.purge_scheduled(
                connection, queue_id, since=since, upto=upto, limit=BATCH
            )
        yield gone
