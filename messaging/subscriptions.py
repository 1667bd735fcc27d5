"""Subscribe: have a queue take the messages of a topic or pattern from now on, and end it.

Both are part of the caller's transaction and count when it commits. The statement that publishes
reads the subscriptions: what is published after the commit goes to the queue, each message once.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from .exceptions import InvalidFilter, UnknownQueue
from .matching import check_filter
from .names import check_pattern, check_queue_name
from .store import subscriptions
from .store.connection import connection_for
from .store.publishing import known_names


class Subscribed(NamedTuple):
    """The id of a subscription, and whether this call has made it."""

    id: int
    created: bool


def subscribe(
    pattern: str,
    queue: str,
    *,
    filter: Mapping[str, Any] | None = None,
    filter_scope: str = "headers",
    using: str | None = None,
) -> Subscribed:
    """Subscribe a queue to a topic or pattern, in the caller's transaction; again changes nothing.

    ``filter`` is a filter on the ``headers`` or the ``body`` (``filter_scope``), by default none:
    every message. What was published before does not come. A subscription that an operator has
    deactivated stays so.

    Raises UnknownQueue, InvalidName, and InvalidFilter also where the queue is subscribed to this
    pattern with another filter: neither is guessed to be the right one (SNS: "subscription already
    exists with different attributes").
    """
    check_pattern(pattern)
    check_filter(filter, filter_scope)
    connection = connection_for(using)
    with transaction.atomic(using=connection.alias):
        queue_id = _queue_id(connection, queue)
        subject = pattern, queue_id, filter, filter_scope
        while (created := subscriptions.add(connection, *subject)) is None:
            found = subscriptions.find(connection, *subject)
            if found is None:  # another has just ended it
                continue
            if not found.is_same:
                raise InvalidFilter(
                    "$",
                    f"queue {queue!r} is subscribed to {pattern!r} with another filter than "
                    f"{json.dumps(filter)[:80]} on the {filter_scope}; call unsubscribe() first, "
                    f"or change the subscription.",
                )
            return Subscribed(found.id, False)
    return Subscribed(created, True)


def unsubscribe(pattern: str, queue: str, *, using: str | None = None) -> bool:
    """End a queue's subscription to exactly this pattern; return whether there was one.

    In the caller's transaction. What waits on the queue stays there and is delivered. Raises
    UnknownQueue and InvalidName.
    """
    check_pattern(pattern)
    connection = connection_for(using)
    with transaction.atomic(using=connection.alias):
        return subscriptions.remove(connection, pattern, _queue_id(connection, queue))


def _queue_id(connection: BaseDatabaseWrapper, queue: str) -> int:
    found = subscriptions.queue_id(connection, check_queue_name(queue))
    if found is None:
        raise UnknownQueue(queue, known_names(connection, False))
    return found
