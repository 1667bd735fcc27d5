"""Tell what happened to a message, from its publication to where it is now."""

import datetime
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import OperationRefused
from ..store import explaining, receipts, searching, tracing
from ..store.connection import connection_for
from ..store.explaining import Origin
from ..store.tracing import Link
from .explaining import MOST_RECEIVERS, Why, explain

SECONDS = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened: "published", "routed", "failed", "died", "edited" or "redriven".

    Or how it ended on a queue: "acknowledged", "expired", "cancelled" or "purged"; or "replayed".
    ``by``: the worker, the operator or the operation. ``duration`` in seconds, of all that were
    acknowledged together. ``headers`` and ``body`` are the JSON texts of what the message said
    before an edit.
    """

    at: datetime.datetime
    what: str
    text: str
    queue: str = ""
    by: str = ""
    attempt: int | None = None
    duration: float | None = None
    error: str = ""
    headers: str | None = None
    body: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Caused:
    """A message, where it was sent, and the messages that its handlers sent."""

    id: int
    sent_to: str
    published_at: datetime.datetime
    consequences: tuple["Caused", ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeline:
    """What is known of a message.

    ``events`` in the order of time; ``now`` says where it is; ``causes`` the nearest one first, as
    far as the log still holds them. ``is_complete`` is false where there
    are more than 1,000 consequences.
    """

    message_id: int
    sent_to: str
    correlation_id: str | None
    events: tuple[Event, ...]
    now: tuple[Why, ...]
    causes: tuple[Caused, ...]
    consequences: tuple[Caused, ...]
    is_complete: bool


def timeline(message_id: int, *, using: str | None = None) -> Timeline:
    """Return what happened to a message; raises OperationRefused when it is unknown."""
    number = int(message_id)
    connection = connection_for(using)
    now = explain(number, using=using)
    with searching.bounded(connection, SECONDS, f"The timeline of message {number}"):
        origin = explaining.origin(connection, number)
        if origin is None:
            raise OperationRefused(f"Message {number} is unknown: the log does not hold it.")
        events = sorted(_events(connection, origin), key=lambda event: event.at)
        causes = _causes(connection, origin)
        consequences = tracing.consequences(connection, number)
    shown = consequences[: tracing.MOST_MESSAGES]
    return Timeline(
        message_id=number,
        sent_to=_sent_to(origin.queue, origin.topic),
        correlation_id=origin.correlation_id,
        events=tuple(events),
        now=tuple(now),
        causes=tuple(causes),
        consequences=_tree(number, shown),
        is_complete=len(shown) == len(consequences),
    )


def _events(connection: BaseDatabaseWrapper, origin: Origin) -> Iterator[Event]:
    sent_to = _sent_to(origin.queue, origin.topic)
    by = "" if origin.causation_id is None else f" while message {origin.causation_id} was handled"
    source = origin.source or ""
    where = f" from {source}" if source else ""
    yield Event(
        at=origin.published_at,
        what="published",
        text=f"Published to {sent_to}{where}{by}.",
        by=source,
    )
    if origin.topic:
        yield from _routes(connection, origin)
    for failed in tracing.failed(connection, origin.id):
        died = failed.outcome != "retry"
        text = f"Delivery {failed.attempt} failed, and it is tried again."
        if died:
            text = f"Became a dead letter at delivery {failed.attempt}: {failed.outcome}."
        yield Event(
            at=failed.at,
            what="died" if died else "failed",
            text=text,
            queue=failed.queue,
            by=failed.worker,
            attempt=failed.attempt,
            duration=failed.duration,
            error=failed.error,
        )
    for kept in receipts.of_message(connection, origin.id):
        yield _done(kept)
    for act in tracing.acts(connection, origin.id):
        by = f" by {act.by}" if act.by else ""
        was_edited = act.what == "edited"
        yield Event(
            at=act.at,
            what=act.what,
            text=f"{act.what.capitalize()}{by}.",
            by=act.by,
            headers=act.headers if was_edited else None,
            body=act.body if was_edited else None,
        )


def _done(kept: receipts.Kept) -> Event:
    if kept.outcome == receipts.REPLAYED:
        text = f"Replayed by {kept.by}."
        return Event(at=kept.at, what="replayed", text=text, queue=kept.queue, by=kept.by)
    together = f", one of {kept.messages:,} in {kept.seconds:.3g} s" if kept.messages > 1 else ""
    return Event(
        at=kept.at,
        what=kept.outcome,
        text=f"{kept.outcome.capitalize()} by {kept.by}{together}.",
        queue=kept.queue,
        by=kept.by,
        duration=kept.seconds if kept.outcome == receipts.ACKNOWLEDGED else None,
    )


def _routes(connection: BaseDatabaseWrapper, origin: Origin) -> Iterator[Event]:
    """Tell by which of today's subscriptions a message went to queues.

    Those that were deleted since are not known any more, and filters are those of today.
    """
    content = explaining.content(connection, origin.id)
    for each in explaining.receivers(connection, origin.topic, MOST_RECEIVERS, **content):
        routed = each.matches and each.takes and each.is_active
        if routed and each.since <= origin.published_at:
            text = f"Routed by subscription {each.pattern!r}."
            yield Event(at=origin.published_at, what="routed", text=text, queue=each.queue)


def _causes(connection: BaseDatabaseWrapper, origin: Origin) -> Iterator[Caused]:
    if origin.causation_id is not None:
        for link in tracing.causes(connection, origin.causation_id):
            yield _caused(link)


def _tree(root: int, links: Iterable[Link]) -> tuple[Caused, ...]:
    """Hang each message below the one that caused it; they come level by level."""
    below: dict[int | None, list[Caused]] = defaultdict(list)
    for link in reversed(list(links)):
        below[link.parent].insert(0, _caused(link, tuple(below.pop(link.id, ()))))
    return tuple(below[root])


def _caused(link: Link, consequences: tuple[Caused, ...] = ()) -> Caused:
    return Caused(
        id=link.id,
        sent_to=_sent_to(link.queue, link.topic),
        published_at=link.published_at,
        consequences=consequences,
    )


def _sent_to(queue: str, topic: str) -> str:
    if topic:
        return f"topic {topic}"
    return f"queue {queue}" if queue else "a queue or topic that no longer exists"
