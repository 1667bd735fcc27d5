"""Ephemeral subscriptions: make one with a queue of its own, and delete both when it is over."""

import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models.functions import Now

from ..exceptions import OperationRefused, UnknownQueue
from ..models import Subscription
from ..signals import logger
from ..store import subscriptions
from ..store.connection import connection_for
from .deletion import delete_queue
from .queues import queues

PREFIX = "ephemeral."
# How long leaving waits for transactions that are sending, seconds: they wait for it, too.
LOCK_WAIT = 0.5
# When the workers try again to delete what somebody was in the way of, seconds.
TRY_AGAIN = 60.0


class Ephemeral(NamedTuple):
    """An ephemeral subscription and its queue."""

    id: int
    queue: str


def begin_ephemeral(
    pattern: str,
    filter: Mapping[str, Any] | None,
    filter_scope: str,
    idle_timeout: float,
    *,
    using: str | None = None,
) -> Ephemeral:
    """Subscribe a queue that is nobody else's; its name is ``ephemeral.`` and a random number."""
    connection = connection_for(using)
    with transaction.atomic(using=connection.alias):
        queue = queues(connection.alias).create(
            name=f"{PREFIX}{secrets.token_hex(8)}", description=f"Ephemeral: {pattern}"
        )
        row = Subscription.objects.using(connection.alias).create(
            pattern=pattern,
            queue=queue,
            filter=filter,
            filter_scope=filter_scope,
            idle_timeout=idle_timeout,
            seen_at=Now(),
        )
    return Ephemeral(row.pk, queue.name)


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
