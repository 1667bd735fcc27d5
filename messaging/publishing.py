"""Publish: store messages in the caller's own transaction.

Commit and they exist, roll back and they never did. What is wrong with a message is raised before
any SQL runs, with the place of the fault; a call stores all of its messages or none.
"""

import datetime
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from asgiref.sync import sync_to_async
from django.conf import settings
from django.utils import timezone

from .causation import cause
from .encoding import (
    check_key,
    check_lifetime,
    check_message_id,
    check_priority,
    check_seconds,
    encode_body,
    encode_headers,
)
from .engines import Outgoing, engine
from .exceptions import InvalidMessage, UnknownQueue, UnknownTopic
from .messages import MessageId
from .names import check_queue_name, check_topic_name, shown
from .replying import keep_sent
from .sources import source
from .store.connection import connection_for
from .store.publishing import known_names
from .store.replies import is_token

# Not 9999, which ends outside of what datetime can hold in the time zones west of Greenwich.
LAST_YEAR = 9998


def send(
    queue: str,
    body: Any,
    *,
    headers: Mapping[str, Any] | None = None,
    priority: int = 0,
    delay: float | datetime.timedelta | None = None,
    deliver_at: datetime.datetime | None = None,
    expires_in: float | datetime.timedelta | None = None,
    deduplication_id: str | None = None,
    message_id: str | uuid.UUID | None = None,
    ordering_key: str | None = None,
    fairness_key: str | None = None,
    correlation_id: str | None = None,
    reply_to: str | None = None,
    using: str | None = None,
) -> MessageId:
    """Send one message to a queue and return its id.

    ``body`` is any JSON value, ``headers`` map strings to JSON scalars. ``priority`` -100 to 100,
    higher first, FIFO within a level. ``delay`` in seconds or as timedelta, ``deliver_at`` as aware
    datetime; the past means now. ``expires_in`` seconds from now (or timedelta) the message is not
    delivered any more.

    Within the queue's deduplication window a second call with the same ``deduplication_id`` returns
    the first message's id with ``duplicate`` true (SQS: MessageDeduplicationId). ``message_id`` is
    yours, from :func:`new_message_id`: for at least seven days the same one stores nothing twice,
    so that you can send again when you do not know whether you did.

    Messages with the same ``ordering_key`` are handled one after another, in the order of commits;
    those of different ``fairness_key`` in turn. ``correlation_id`` goes on to what a handler sends,
    ``reply_to`` names the queue where an answer is expected. ``using`` is the database alias whose
    transaction is joined.

    Raises InvalidMessage, PayloadTooLarge, InvalidName, UnknownQueue, QueueDisabled, QueueFull,
    DeduplicationConflict; PublishUncertain when the connection dies during the commit, which in an
    ``atomic()`` block is at its end.
    """
    outgoing = _outgoing(
        check_queue_name(queue),
        False,
        [encode_body(body)],
        headers=headers,
        priority=priority,
        delay=delay,
        deliver_at=deliver_at,
        expires_in=expires_in,
        deduplication_id=deduplication_id,
        message_id=message_id,
        ordering_key=ordering_key,
        fairness_key=fairness_key,
        correlation_id=correlation_id,
        reply_to=reply_to,
    )
    return _store(outgoing, using)[0]


def send_many(
    queue: str,
    bodies: Iterable[Any],
    *,
    headers: Mapping[str, Any] | None = None,
    priority: int = 0,
    delay: float | datetime.timedelta | None = None,
    deliver_at: datetime.datetime | None = None,
    expires_in: float | datetime.timedelta | None = None,
    ordering_key: str | None = None,
    fairness_key: str | None = None,
    correlation_id: str | None = None,
    reply_to: str | None = None,
    using: str | None = None,
) -> list[MessageId]:
    """Send one message for each body, all or none, and return their ids in order.

    Options as for :func:`send`. A bad body is named by its index, and nothing is stored.
    """
    outgoing = _outgoing(
        check_queue_name(queue),
        False,
        _encode_all(bodies),
        headers=headers,
        priority=priority,
        delay=delay,
        deliver_at=deliver_at,
        expires_in=expires_in,
        ordering_key=ordering_key,
        fairness_key=fairness_key,
        correlation_id=correlation_id,
        reply_to=reply_to,
    )
    return _store(outgoing, using)


def publish(
    topic: str,
    body: Any,
    *,
    headers: Mapping[str, Any] | None = None,
    priority: int = 0,
    delay: float | datetime.timedelta | None = None,
    deliver_at: datetime.datetime | None = None,
    expires_in: float | datetime.timedelta | None = None,
    deduplication_id: str | None = None,
    message_id: str | uuid.UUID | None = None,
    ordering_key: str | None = None,
    fairness_key: str | None = None,
    correlation_id: str | None = None,
    reply_to: str | None = None,
    using: str | None = None,
) -> MessageId:
    """Publish one message to a topic: every active matching subscription gets one delivery.

    The payload is stored once, together with the deliveries; disabled queues get none. Options and
    errors as for :func:`send`, and UnknownTopic; one full queue refuses the message for all.
    """
    outgoing = _outgoing(
        check_topic_name(topic),
        True,
        [encode_body(body)],
        headers=headers,
        priority=priority,
        delay=delay,
        deliver_at=deliver_at,
        expires_in=expires_in,
        deduplication_id=deduplication_id,
        message_id=message_id,
        ordering_key=ordering_key,
        fairness_key=fairness_key,
        correlation_id=correlation_id,
        reply_to=reply_to,
    )
    return _store(outgoing, using)[0]


def publish_many(
    topic: str,
    bodies: Iterable[Any],
    *,
    headers: Mapping[str, Any] | None = None,
    priority: int = 0,
    delay: float | datetime.timedelta | None = None,
    deliver_at: datetime.datetime | None = None,
    expires_in: float | datetime.timedelta | None = None,
    ordering_key: str | None = None,
    fairness_key: str | None = None,
    correlation_id: str | None = None,
    reply_to: str | None = None,
    using: str | None = None,
) -> list[MessageId]:
    """Publish one message for each body, all or none, and return their ids in order."""
    outgoing = _outgoing(
        check_topic_name(topic),
        True,
        _encode_all(bodies),
        headers=headers,
        priority=priority,
        delay=delay,
        deliver_at=deliver_at,
        expires_in=expires_in,
        ordering_key=ordering_key,
        fairness_key=fairness_key,
        correlation_id=correlation_id,
        reply_to=reply_to,
    )
    return _store(outgoing._replace(is_batch=True), using)


async def asend(queue: str, body: Any, **options: Any) -> MessageId:
    """Send one message from async code; the same as :func:`send`."""
    return await sync_to_async(send)(queue, body, **options)


async def asend_many(queue: str, bodies: Iterable[Any], **options: Any) -> list[MessageId]:
    """Send many messages from async code; the same as :func:`send_many`."""
    return await sync_to_async(send_many)(queue, bodies, **options)


async def apublish(topic: str, body: Any, **options: Any) -> MessageId:
    """Publish one message from async code; the same as :func:`publish`."""
    return await sync_to_async(publish)(topic, body, **options)


async def apublish_many(topic: str, bodies: Iterable[Any], **options: Any) -> list[MessageId]:
    """Publish many messages from async code; the same as :func:`publish_many`."""
    return await sync_to_async(publish_many)(topic, bodies, **options)


def _outgoing(
    name: str,
    is_topic: bool,
    bodies: list[str],
    *,
    headers: Mapping[str, Any] | None,
    priority: int,
    delay: float | datetime.timedelta | None,
    deliver_at: datetime.datetime | None,
    expires_in: float | datetime.timedelta | None,
    ordering_key: str | None,
    fairness_key: str | None,
    correlation_id: str | None,
    reply_to: str | None,
    deduplication_id: str | None = None,
    message_id: str | uuid.UUID | None = None,
) -> Outgoing:
    if delay is not None and deliver_at is not None:
        raise InvalidMessage("give delay or deliver_at, not both.", path="deliver_at")
    if ordering_key is not None:
        check_key(ordering_key, what="ordering_key")
    if fairness_key is not None:
        check_key(fairness_key, what="fairness_key")
        if ordering_key is not None:
            raise InvalidMessage(
                "give ordering_key or fairness_key, not both: a message has one place to wait.",
                path="fairness_key",
            )
    if deduplication_id is not None:
        check_key(deduplication_id, what="deduplication_id")
    if correlation_id is not None:
        check_key(correlation_id, what="correlation_id")
    if reply_to is not None:
        check_queue_name(reply_to)
    handled = cause.get()
    # By position: names would cost as much as all the checks.
    return Outgoing(
        name,
        is_topic,
        bodies,
        encode_headers(headers),
        check_priority(priority),
        ordering_key,
        fairness_key,
        None if delay is None else _seconds(delay),
        None if deliver_at is None else _moment(deliver_at),
        None if expires_in is None else check_lifetime(expires_in),
        None if deduplication_id is None else [deduplication_id],
        None if message_id is None else check_message_id(message_id),
        correlation_id or (handled.correlation_id if handled else None),
        None if handled is None else handled.id,
        reply_to,
        source(),
    )


def _store(outgoing: Outgoing, using: str | None) -> list[MessageId]:
    if not outgoing.bodies:
        return []
    ids = engine().store(outgoing, using)
    if ids is None and not outgoing.is_topic and is_token(outgoing.name):
        return keep_sent(outgoing, using)
    if ids is None:
        known = known_names(connection_for(using), outgoing.is_topic)
        raise (UnknownTopic if outgoing.is_topic else UnknownQueue)(outgoing.name, known)
    return ids


def _encode_all(bodies: Iterable[Any]) -> list[str]:
    if isinstance(bodies, str | bytes | Mapping):
        raise InvalidMessage(f"{shown(bodies)} is one body; give a list of bodies.")
    return [encode_body(body, index=index) for index, body in enumerate(bodies)]


def _seconds(delay: float | datetime.timedelta) -> float | None:
    """Return a delay that lies in the future as seconds, else None."""
    seconds = check_seconds(delay, what="delay")
    return seconds if seconds > 0 else None


def _moment(deliver_at: datetime.datetime) -> datetime.datetime:
    """Return an aware point in time."""
    if not isinstance(deliver_at, datetime.datetime):
        raise InvalidMessage(f"{shown(deliver_at)} is no datetime.", path="deliver_at")
    if timezone.is_naive(deliver_at):
        if settings.USE_TZ:
            raise InvalidMessage(
                f"{deliver_at.isoformat()} is naive, and USE_TZ is on: use an aware datetime, such "
                f"as timezone.make_aware(...).",
                path="deliver_at",
            )
        deliver_at = timezone.make_aware(deliver_at)
    if deliver_at.year > LAST_YEAR:
        raise InvalidMessage(
            f"{deliver_at.isoformat()} is too late: use a time up to the year {LAST_YEAR}.",
            path="deliver_at",
        )
    return deliver_at
