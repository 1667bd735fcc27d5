"""Feed: the topic messages that were committed since a cursor, each exactly once.

A cursor is the snapshot of the statement that read last. What that snapshot saw is known; what it
did not see is new, so a transaction that took a low id and commits late is never missed.
"""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from .exceptions import MessagingError
from .store import feed as store
from .store.connection import connection_for

# A reader that was away gets at most this many, the newest, and the number of the others.
LIMIT = 500
NUMBER = r"(?:0|[1-9][0-9]{0,18})"
CURSOR = re.compile(rf"({NUMBER}):({NUMBER}):((?:{NUMBER}(?:,{NUMBER})*)?)@({NUMBER})")


class BadCursor(MessagingError, ValueError):
    """A cursor that no reader was given."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Bad cursor: {reason}. Start without one to get the newest events.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Which transactions a statement saw: those below ``xmax``, except the ``running`` ones."""

    xmin: int
    xmax: int
    running: frozenset[int]

    def sees(self, transaction: int) -> bool:
        """Tell whether the transaction had ended."""
        return transaction < self.xmax and transaction not in self.running

    def includes(self, other: "Snapshot") -> bool:
        """Tell whether this snapshot sees all that the other one sees."""
        # The server's xmax never goes back, so a smaller one is enough to tell.
        return self.xmax >= other.xmax and not any(map(other.sees, self.running))

    def __str__(self) -> str:
        return f"{self.xmin}:{self.xmax}:{','.join(map(str, sorted(self.running)))}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cursor:
    """How far a reader has come: a snapshot, and the database's clock at it in seconds."""

    snapshot: Snapshot
    at: int

    @classmethod
    def parse(cls, text: object) -> "Cursor":
        """Return the cursor that a reader sends back; raise BadCursor for anything else."""
        match = CURSOR.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise BadCursor("it is not written like one")
        xmin, xmax, at = int(match[1]), int(match[2]), int(match[4])
        running = [int(number) for number in match[3].split(",") if number]
        in_order = running == sorted(set(running))
        if not 0 < xmin <= xmax or not in_order or any(not xmin <= x < xmax for x in running):
            raise BadCursor("its numbers contradict each other")
        return cls(snapshot=Snapshot(xmin=xmin, xmax=xmax, running=frozenset(running)), at=at)

    def __str__(self) -> str:
        return f"{self.snapshot}@{self.at}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """A message published to a topic; ``body`` is the beginning of its JSON, None when large.

    ``at`` is when it was published, in seconds since 1970.
    """

    id: int
    transaction: int
    topic: str
    at: float
    body: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """What became visible after ``seen`` and up to ``cursor``, in the order of its transactions.

    ``skipped`` counts older events that did not fit, exactly up to 10,000. ``is_reset`` says that
    what came before may be incomplete: nobody asked for it, or retention may have taken some.
    """

    seen: Cursor | None
    cursor: Cursor
    events: tuple[Event, ...]
    skipped: int = 0
    is_reset: bool = False

    @property
    def skipped_is_exact(self) -> bool:
        return self.skipped <= store.COUNTED

    def dump(self) -> str:
        """Return a text that :meth:`load` understands, for a channel layer."""
        events = [[e.id, e.transaction, e.topic, e.at, e.body] for e in self.events]
        seen = str(self.seen) if self.seen else None
        return json.dumps([seen, str(self.cursor), events, self.skipped, self.is_reset])

    @classmethod
    def load(cls, text: str) -> "News":
        """Return the news of a text made by :meth:`dump`."""
        seen, cursor, events, skipped, is_reset = json.loads(text)
        return cls(
            seen=Cursor.parse(seen) if seen else None,
            cursor=Cursor.parse(cursor),
            events=tuple(map(_event, events)),
            skipped=skipped,
            is_reset=is_reset,
        )


def latest(
    *, topics: Collection[str] | None = None, limit: int = LIMIT, using: str | None = None
) -> News:
    """Return the newest events of some topics, or of all, and the cursor to go on from."""
    found = store.latest(connection_for(using), topics=topics, limit=limit)
    return News(
        seen=None,
        cursor=Cursor.parse(f"{found.snapshot}@{found.at}"),
        events=tuple(map(_event, found.rows)),
        is_reset=True,
    )


def since(
    cursor: Cursor,
    *,
    topics: Collection[str] | None = None,
    limit: int = LIMIT,
    using: str | None = None,
) -> News:
    """Return the events that the cursor has not seen; raise BadCursor for one from the future."""
    connection = connection_for(using)
    found = store.since(connection, cursor.snapshot, topics=topics, limit=limit)
    now = Cursor.parse(f"{found.snapshot}@{found.at}")
    if cursor.snapshot.xmax > now.snapshot.xmax:
        raise BadCursor("it lies ahead of the database")
    skipped = 0
    if len(found.rows) >= limit:
        counted = store.count(connection, cursor.snapshot, found.snapshot, topics=topics)
        skipped = max(0, counted - len(found.rows))
    return News(
        seen=cursor,
        cursor=now,
        events=tuple(map(_event, found.rows)),
        skipped=skipped,
        is_reset=found.retention is not None and now.at - cursor.at > found.retention,
    )


def topic_exists(name: str, using: str | None = None) -> bool:
    """Tell whether there is a topic of this name."""
    return store.topic_exists(connection_for(using), name)


def _event(row: list[Any]) -> Event:
    message_id, transaction, topic, at, body = row
    if body is not None and len(body) > store.PREVIEW:
        body = body[: store.PREVIEW] + "…"
    return Event(id=message_id, transaction=int(transaction), topic=topic, at=at, body=body)
