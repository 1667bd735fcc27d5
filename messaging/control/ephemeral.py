"""Ephemeral subscriptions: make one with a queue of its own, and delete both when it is over."""

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.functions import Now

from ..exceptions import OperationRefused, UnknownQueue
from ..models import Queue, Subscription
from ..signals import logger
from ..store import subscriptions
from ..store.connection import connection_for
from .catching_up import begin_catching_up, look_back, while_nobody_publishes
from .deletion import delete_queue
from .replaying import Since

PREFIX = "ephemeral."
# How long leaving waits for transactions that are sending, seconds: they wait for it, too.
LOCK_WAIT = 0.5
# When the workers try again to delete what somebody was in the way of, seconds.
TRY_AGAIN = 60.0


class Ephemeral(NamedTuple):
    """An ephemeral subscription and its queue.

    ``operation``: what brings it the messages of the past, or None.
    """

    id: int
    queue: str
    operation: int | None = None


def begin_ephemeral(
    pattern: str,
    filter: Mapping[str, Any] | None,
    filter_scope: str,
    idle_timeout: float,
    *,
    since: Since | None = None,
    using: str | None = None,
) -> Ephemeral:
    """Subscribe a queue that is nobody else's; its name is ``ephemeral.`` and a random number."""
    connection = connection_for(using)
    row = Subscription(
        pattern=pattern,
        queue=Queue(name=f"{PREFIX}{secrets.token_hex(8)}", description=f"Ephemeral: {pattern}"),
        filter=filter,
        filter_scope=filter_scope,
        idle_timeout=idle_timeout,
    )
    if since is None:
        with transaction.atomic(using=connection.alias):
            return _store(connection, row)
    past = look_back(row, since, using=connection.alias)

    def store() -> Ephemeral:
        stored = _store(connection, row)
        operation = begin_catching_up(row, past, using=connection.alias)
        return stored._replace(operation=operation.pk)

    return while_nobody_publishes(connection, store)


def _store(connection: BaseDatabaseWrapper, row: Subscription) -> Ephemeral:
    row.queue.save(using=connection.alias, force_insert=True)
    row.queue_id = row.queue.pk
    row.seen_at = Now()
    row.save(using=connection.alias, force_insert=True)
    return Ephemeral(row.pk, row.queue.name)


def end_ephemeral(subscription_id: int, queue: str, *, using: str | None = None) -> None:
    """End a subscription at once, and delete its queue with what waits on it.

    Where somebody is in the way of that, the workers try again later.
    """
    subscriptions.end(connection_for(using), subscription_id, TRY_AGAIN)
    _delete(queue, LOCK_WAIT, using)


def sweep_ephemeral(using: str | None = None) -> int:
    """End the ephemeral subscriptions that gave no sign of life for their time; return how many."""
    connection = connection_for(using)
    count = 0
    while idle := subscriptions.claim_idle(connection, TRY_AGAIN):
        logger.info(
            "Ephemeral subscription is over queue=%s idle_seconds=%.0f", idle.queue, idle.seconds
        )
        if not _delete(idle.queue, None, using):
            break
        count += 1
    return count


def _delete(queue: str, wait: float | None, using: str | None) -> bool:
    """Delete a queue, which is logged with the count; return whether it is gone."""
    try:
        delete_queue(queue, force=True, wait=wait, using=using)
    except UnknownQueue:
        return True
    except OperationRefused as refusal:
        logger.info("Ephemeral queue stays for now queue=%s reason=%s", queue, refusal)
        return False
    return True
