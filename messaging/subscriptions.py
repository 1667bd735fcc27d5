"""Subscribe: have a queue take the messages of a topic or pattern from now on, and end it.

Both are part of the caller's transaction and count when it commits. The statement that publishes
reads the subscriptions: what is published after the commit goes to the queue, each message once.
One that begins in the past takes a transaction of its own, which publishers wait for.
"""

import datetime
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from .exceptions import InvalidFilter, UnknownQueue
from .matching import check_filter
from .names import check_pattern, check_queue_name
from .receiving import check_commits
from .store import subscriptions
from .store.connection import connection_for
from .store.publishing import known_names


class Subscribed(NamedTuple):
    """The id of a subscription, and whether this call has made it.

    ``operation``: the id of the operation that brings what was published since then, or None.
    """

    id: int
    created: bool
    operation: int | None = None


def subscribe(
    pattern: str,
    queue: str,
    *,
    filter: Mapping[str, Any] | None = None,
    filter_scope: str = "headers",
    since: datetime.datetime | datetime.timedelta | int | str | None = None,
    using: str | None = None,
) -> Subscribed:
    """Subscribe a queue to a topic or pattern, in the caller's transaction; again changes nothing.

    ``filter`` is a filter on the ``headers`` or the ``body`` (``filter_scope``), by default none:
    every message. A subscription that an operator has deactivated stays so.

    What was published before does not come, unless ``since`` is given to a new subscription: an
    aware datetime, a timedelta before now, the id of a message, or what ``control.snapshot()``
    returned. Workers then bring what the log still holds from there on, and each message, old or
    new, comes once. Publishers wait half a second at most for this, again and again for up to 30
    seconds. NotSupported inside a transaction, OperationRefused where there was always some
    publisher that took longer, QueueDisabled, InvalidOption.

    Raises UnknownQueue, InvalidName, and InvalidFilter also where the queue is subscribed to this
    pattern with another filter: neither is guessed to be the right one (SNS: "subscription already
    exists with different attributes").
    """
    check_pattern(pattern)
    check_filter(filter, filter_scope)
    connection = connection_for(using)
    if since is not None:
        check_commits(connection, "subscribe(since=)", "the subscription")
    with transaction.atomic(using=connection.alias):
        subject = pattern, _queue_id(connection, queue), filter, filter_scope
        if since is None:
            return _subscribed(connection, queue, *subject)
        if found := _found(connection, queue, *subject):
            return found
    return _since(connection, queue, subject, since)


def _subscribed(
    connection: BaseDatabaseWrapper, queue: str, pattern: str, queue_id: int, *wanted: Any
) -> Subscribed:
    while (created := subscriptions.add(connection, pattern, queue_id, *wanted)) is None:
        # Not where another has just ended it.
        if found := _found(connection, queue, pattern, queue_id, *wanted):
            return found
    return Subscribed(created, True)


def _found(
    connection: BaseDatabaseWrapper, queue: str, pattern: str, queue_id: int, *wanted: Any
) -> Subscribed | None:
    found = subscriptions.find(connection, pattern, queue_id, *wanted)
    if found is None:
        return None
    if not found.is_same:
        filter, scope = wanted
        raise InvalidFilter(
            "$",
            f"queue {queue!r} is subscribed to {pattern!r} with another filter than "
            f"{json.dumps(filter)[:80]} on the {scope}; call unsubscribe() first, "
            f"or change the subscription.",
        )
    return Subscribed(found.id, False)


def _since(
    connection: BaseDatabaseWrapper, queue: str, subject: tuple[str, int, Any, str], since: Any
) -> Subscribed:
    from .control import catching_up
    from .control.queues import find_queue
    from .models import Subscription

    pattern, _, filter, scope = subject
    planned = Subscription(
        pattern=pattern,
        queue=find_queue(queue, connection.alias),
        filter=filter,
        filter_scope=scope,
    )
    rows = Subscription.objects.using(connection.alias).select_related("queue")
    past = catching_up.look_back(planned, since, using=connection.alias)

    def act() -> Subscribed:
        done = _subscribed(connection, queue, *subject)
        if not done.created:
            return done
        row = rows.get(pk=done.id)
        operation = catching_up.begin_catching_up(row, past, using=connection.alias)
        return done._replace(operation=operation.pk)

    return catching_up.while_nobody_publishes(connection, act)


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
