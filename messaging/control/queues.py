"""Pause and resume queues, and say whether they accept messages."""

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet
from django.db.models.functions import Now

from .. import conf
from ..engines import wakeup
from ..exceptions import UnknownQueue
from ..models import Queue
from ..names import check_queue_name
from ..store import lanes
from ..store.connection import connection_for
from ..store.depths import Depth, depths
from ..store.publishing import known_names
from .history import Operator, enter, keep, log, name_of


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
        keep("pause", by, using, queue=found, meant={"reason": reason} if reason else None)
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
        keep("resume", by, using, queue=found)
        enter(by, found, "Resumed.")
        tell_workers(using)
    log("Queue resumed", by, queue=found.name)
    return True


def disable(queue: Queue | str, *, by: Operator = "", using: str | None = None) -> bool:
    """Stop accepting messages for a queue: sending raises QueueDisabled, topics leave it out.

    What waits is delivered, and so is what is tried again. Return whether it was not disabled yet.
    """
    found = find_queue(queue, using)
    with transaction.atomic(using=using or conf.DATABASE):
        enabled = queues(using).filter(pk=found.pk, disabled_at__isnull=True)
        if not enabled.update(disabled_at=Now(), disabled_by=name_of(by)[:150]):
            return False
        keep("disable", by, using, queue=found)
        enter(by, found, "Disabled.")
    log("Queue disabled", by, queue=found.name)
    return True


def enable(queue: Queue | str, *, by: Operator = "", using: str | None = None) -> bool:
    """Accept messages for a disabled queue again; return whether it was disabled."""
    found = find_queue(queue, using)
    with transaction.atomic(using=using or conf.DATABASE):
        disabled = queues(using).filter(pk=found.pk, disabled_at__isnull=False)
        if not disabled.update(disabled_at=None, disabled_by=""):
            return False
        keep("enable", by, using, queue=found)
        enter(by, found, "Enabled.")
    log("Queue enabled", by, queue=found.name)
    return True


def depth(queue: Queue | str, *, using: str | None = None) -> Depth:
    """Return how many messages a queue has; numbers are exact up to 10,000."""
    found = find_queue(queue, using)
    connection = connection_for(using)
    join_lanes(connection)
    return depths(connection, [found.pk])[found.pk]


def join_lanes(connection: BaseDatabaseWrapper) -> None:
    """Have what the caller's transaction has sent with a key wait in its lane already."""
    if connection.in_atomic_block:
        lanes.join_now(connection)


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
