"""Explain why a message is not delivered, and who would receive one."""

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from ..encoding import encode_body, encode_headers
from ..exceptions import OperationRefused, UnknownTopic
from ..matching import parts
from ..models import Topic
from ..names import check_topic_name
from ..store import explaining, places, searching
from ..store.connection import connection_for
from ..store.depths import counted
from ..store.explaining import LaneFacts, Origin, QueueFacts
from ..store.lanes import FAIR
from ..store.places import Place
from ..store.publishing import known_names
from ..store.webhooks import Described, described
from .queues import join_lanes
from .webhooks import in_words

SECONDS = 10.0
MOST_RECEIVERS = 1_000


class Cause(StrEnum):
    """Why a message is where it is."""

    IN_FLIGHT = "in_flight"
    EXPIRED = "expired"
    SCHEDULED = "scheduled"
    RETRY = "retry"
    PARKED = "parked"
    BLOCKED = "blocked"
    BEHIND = "behind"
    PAUSED = "paused"
    NO_WORKER = "no_worker"
    WEBHOOK = "webhook"
    WORKERS_PAUSED = "workers_paused"
    NOT_ACTIVE = "not_active"
    RATE_LIMITED = "rate_limited"
    FULL = "full"
    NEXT = "next"
    DEAD = "dead"
    DISABLED = "disabled"
    NOT_ROUTED = "not_routed"
    DONE = "done"


@dataclass(frozen=True, kw_only=True, slots=True)
class Why:
    """One reason, as a sentence and as facts.

    ``until``: when it is over, as far as that is known. ``by``: the worker or operator concerned.
    ``message_id``: the message that is in the way.
    """

    cause: Cause
    text: str
    queue: str = ""
    until: datetime.datetime | None = None
    by: str = ""
    message_id: int | None = None

    def __str__(self) -> str:
        return f"{self.queue}: {self.text}" if self.queue else self.text


@dataclass(frozen=True, kw_only=True, slots=True)
class Receiver:
    """A subscription, whether it would receive a message, and why not."""

    pattern: str
    queue: str
    receives: bool
    why: str


def explain(message_id: int, *, using: str | None = None) -> list[Why]:
    """Say why a message is not delivered, queue by queue; the first reason is the nearest.

    Looks without locking. Raises OperationRefused when the message is unknown.
    """
    number = int(message_id)
    connection = connection_for(using)
    join_lanes(connection)
    with searching.bounded(connection, SECONDS, f"Looking for message {number}"):
        origin = explaining.origin(connection, number)
        if origin is None:
            raise OperationRefused(f"Message {number} is unknown: the log does not hold it.")
        found = places.find(connection, number)
        facts = explaining.queues(connection, [place.queue_id for place in found], origin.key)
        now = explaining.now(connection)
        reasons = [
            why
            for place in found
            for why in _why(connection, place, facts.get(place.queue_id), origin, now)
        ]
        return reasons + list(_unrouted(connection, origin, bool(found)))


def receivers(
    topic: str,
    body: Any = None,
    headers: Mapping[str, Any] | None = None,
    *,
    using: str | None = None,
) -> list[Receiver]:
    """Say which subscriptions a message would go to if it were published now, and why not others.

    Nothing is stored. The body and headers are checked as when they are published; those that match
    come first, of 1,000 subscriptions at most.
    """
    check_topic_name(topic)
    documents = {"body": encode_body(body), "headers": encode_headers(headers)}
    connection = connection_for(using)
    if not Topic.objects.using(connection.alias).filter(name=topic).exists():
        raise UnknownTopic(topic, known_names(connection, True))
    return [
        Receiver(pattern=each.pattern, queue=each.queue, receives=not why, why=why)
        for each in explaining.receivers(connection, topic, MOST_RECEIVERS, **documents)
        for why in (_why_not(each, topic) or _filtered(connection, each, documents),)
    ]


def _filtered(
    connection: BaseDatabaseWrapper, receiver: explaining.Receiver, documents: dict[str, str]
) -> str:
    """Say in words which keys of a filter a message does not match."""
    if receiver.takes:
        return ""
    scope = receiver.filter_scope
    found = list(parts(receiver.filter))
    numbers = explaining.failing(connection, [part.filter for part in found], documents[scope])
    wanted = "; ".join(
        f"{found[number].place} is not one of {encode_body(found[number].wanted)[:200]}"
        for number in numbers
    )
    return f"The filter does not take its {scope}: {wanted or 'no single element has all of it'}."


def _why_not(receiver: explaining.Receiver, topic: str) -> str:
    if not receiver.matches:
        return f"{receiver.pattern!r} does not match {topic!r}."
    if not receiver.is_active:
        return "The subscription is not active."
    if receiver.queue_disabled:
        return f"Queue {receiver.queue!r} is disabled."
    return ""


def _why(
    connection: BaseDatabaseWrapper,
    place: Place,
    queue: QueueFacts | None,
    origin: Origin,
    now: datetime.datetime,
) -> Iterator[Why]:
    name = queue.name if queue else f"(queue {place.queue_id} no longer exists)"
    if place.state == "dead":
        text = f"It is a dead letter since {_at(place.at)}: {place.by}. Redrive it."
        yield Why(cause=Cause.DEAD, text=text, queue=name)
        return
    if place.state == "leased":
        yield _held(place, name, now)
        return
    if place.expires_at is not None and place.expires_at <= now:
        text = f"It expired at {_at(place.expires_at)}, and is never delivered."
        yield Why(cause=Cause.EXPIRED, text=text, queue=name)
        return
    if queue is None:
        text = "Its queue no longer exists, so nobody takes it."
        yield Why(cause=Cause.NO_WORKER, text=text, queue=name)
        return
    is_next = True
    for why in _in_the_way(connection, place, queue, now):
        is_next = False
        yield why
        if why.cause is Cause.IN_FLIGHT:
            return
    webhook = next((w for w in described(connection) if w.queue == queue.name), None)
    for why in _of_queue(queue, origin, webhook):
        is_next = False
        yield why
    if is_next:
        yield Why(cause=Cause.NEXT, text="Nothing is in its way: it is next.", queue=name)


def _in_the_way(
    connection: BaseDatabaseWrapper, place: Place, queue: QueueFacts, now: datetime.datetime
) -> Iterator[Why]:
    """Say what is in the way of this message alone."""
    if place.state == "scheduled":
        yield _scheduled(place, queue.name, now)
    elif place.lane_id is not None:
        if lane := explaining.lane(connection, place.lane_id, place.id):
            yield from _in_lane(lane, place, queue.name)
    else:
        turn = explaining.turn(connection, queue.id, place.priority, place.id)
        if turn.is_taken:
            since = f" since {_at(turn.taken_since)}" if turn.taken_since else ""
            text = f"A worker has it in hand{since}."
            yield Why(cause=Cause.IN_FLIGHT, text=text, queue=queue.name)
        elif turn.before:
            before = counted(turn.before)
            text = f"{before} ready messages or keys come before it."
            yield Why(cause=Cause.BEHIND, text=text, queue=queue.name)


def _held(place: Place, queue: str, now: datetime.datetime) -> Why:
    if place.at <= now:
        text = f"{place.by} held it until {_at(place.at)}; a worker will give it back at once."
    else:
        text = f"It is in flight: {place.by} holds it until {_at(place.at)}."
    return Why(cause=Cause.IN_FLIGHT, text=text, queue=queue, until=place.at, by=place.by)


def _scheduled(place: Place, queue: str, now: datetime.datetime) -> Why:
    due = f"is due at {_at(place.at)}" if place.at > now else f"was due at {_at(place.at)}"
    if place.attempt > 1:
        text = f"Its last delivery failed; number {place.attempt} {due}."
        return Why(cause=Cause.RETRY, text=text, queue=queue, until=place.at)
    text = f"It is scheduled: it {due}."
    return Why(cause=Cause.SCHEDULED, text=text, queue=queue, until=place.at)


def _in_lane(lane: LaneFacts, place: Place, queue: str) -> Iterator[Why]:
    key = f"key {lane.key!r}"
    head = lane.head if lane.before else None
    if lane.parked_at is not None:
        text = f"Its {key} is parked since {_at(lane.parked_at)}, because of a dead letter. "
        text += "Redrive that one, or release the key."
        yield Why(cause=Cause.PARKED, text=text, queue=queue)
    elif lane.retry_at is not None and lane.head_attempt is not None and lane.head_attempt > 1:
        which = f"message {lane.head}" if lane.before else "it"
        text = f"Its {key} is blocked until {_at(lane.retry_at)}: {which} failed, and delivery "
        text += f"number {lane.head_attempt} comes first."
        yield Why(cause=Cause.BLOCKED, text=text, queue=queue, until=lane.retry_at, message_id=head)
    elif lane.held is not None and lane.kind != FAIR:
        text = f"Its {key} is in flight: {lane.held_by} holds message {lane.held} until "
        text += f"{_at(lane.held_until)}."
        yield Why(
            cause=Cause.BLOCKED,
            text=text,
            queue=queue,
            until=lane.held_until,
            by=lane.held_by or "",
            message_id=lane.held,
        )
    elif lane.is_taken and lane.kind != FAIR:
        if lane.before == 0:
            text = f"A worker has its {key} in hand, and it is the first of these messages."
            yield Why(cause=Cause.IN_FLIGHT, text=text, queue=queue)
            return
        text = f"A worker has its {key} in hand."
        yield Why(cause=Cause.BLOCKED, text=text, queue=queue, message_id=head)
    if lane.before:
        text = f"{counted(lane.before)} messages of its {key} come before it, the first is "
        text += f"message {lane.head}."
        yield Why(cause=Cause.BEHIND, text=text, queue=queue, message_id=head)


def _of_queue(queue: QueueFacts, origin: Origin, webhook: Described | None) -> Iterator[Why]:
    """Say what keeps all messages of a queue."""
    if queue.paused_at is not None:
        by = f" by {queue.paused_by}" if queue.paused_by else ""
        reason = f": {queue.pause_reason}" if queue.pause_reason else ""
        text = f"The queue is paused since {_at(queue.paused_at)}{by}{reason}. Resume it."
        yield Why(cause=Cause.PAUSED, text=text, queue=queue.name, by=queue.paused_by)
    if webhook is not None and webhook.is_left_alone:
        text = f"Its webhook, {webhook.name}, {in_words(webhook)}. Enable it."
        yield Why(cause=Cause.WEBHOOK, text=text, queue=queue.name, by=webhook.disabled_by or "")
    elif queue.workers == 0:
        text = "No worker serves the queue. Start one: manage.py runworker."
        yield Why(cause=Cause.NO_WORKER, text=text, queue=queue.name)
    elif queue.workers == queue.paused_workers:
        text = f"All {queue.workers:,} worker processes of the queue are paused."
        yield Why(cause=Cause.WORKERS_PAUSED, text=text, queue=queue.name)
    elif queue.single_active_consumer and queue.active is None:
        text = "One worker consumes the queue, and none has taken its turn yet."
        yield Why(cause=Cause.NOT_ACTIVE, text=text, queue=queue.name)
    if queue.rate_limit is not None and queue.permits is not None and queue.permits < 1:
        text = f"The queue's rate limit of {queue.rate_limit:g} messages a second is used up."
        yield Why(cause=Cause.RATE_LIMITED, text=text, queue=queue.name)
    if queue.key_rate_limit is not None and queue.key_permits is not None and queue.key_permits < 1:
        text = f"The rate limit of key {origin.key!r}, {queue.key_rate_limit:g} messages a second, "
        yield Why(cause=Cause.RATE_LIMITED, text=f"{text}is used up.", queue=queue.name)
    if queue.concurrency_limit is not None and queue.in_flight >= queue.concurrency_limit:
        text = f"{queue.in_flight:,} messages are in flight, which is the queue's limit."
        yield Why(cause=Cause.FULL, text=text, queue=queue.name)


def _unrouted(connection: BaseDatabaseWrapper, origin: Origin, waits: bool) -> Iterator[Why]:
    """Say where a message of a topic did not go, and what it means that one waits nowhere."""
    if origin.topic:
        content = explaining.content(connection, origin.id)
        known = explaining.receivers(connection, origin.topic, MOST_RECEIVERS, **content)
        matching = [each for each in known if each.matches and each.takes]
        for each in matching:
            if each.queue_disabled:
                text = "The queue is disabled: what is published meanwhile does not go there."
                yield Why(cause=Cause.DISABLED, text=text, queue=each.queue)
        if not waits and not matching:
            text = f"No subscription takes messages of topic {origin.topic!r} to a queue."
            yield Why(cause=Cause.NOT_ROUTED, text=text)
            return
    if not waits:
        text = "It waits nowhere: it was handled, cancelled or purged, or has expired."
        yield Why(cause=Cause.DONE, text=text)


def _at(moment: datetime.datetime) -> str:
    return moment.isoformat(" ", "seconds")
