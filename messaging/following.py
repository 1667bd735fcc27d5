"""Following: a reader's way through the topic messages, the oldest first, each exactly once.

A position lies between two snapshots: all that the first saw, and what the second saw besides it up
to one message. It is bound to a topic pattern, because it says nothing about other topics.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from .feed import NUMBER, BadCursor, Cursor, Event
from .store import following as store
from .store.connection import connection_for

PAGE = 100
LONGEST_POSITION = 20_000
MESSAGE = re.compile(rf"({NUMBER})\.({NUMBER})")
MARK = 8
LARGEST = 2**63 - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """How far a reader has come: all of ``seen``; of ``upto`` as far as (transaction, id)."""

    seen: Cursor
    upto: Cursor | None = None
    after: tuple[int, int] = (0, 0)

    @classmethod
    def parse(cls, text: object, pattern: str) -> "Position":
        """Return the position that a reader of this pattern sends back, or raise BadCursor."""
        if not isinstance(text, str) or len(text) > LONGEST_POSITION:
            raise BadCursor("it is not written like one")
        written, _, mark = text.rpartition("~")
        if written and mark != mark_of(pattern):
            raise BadCursor("it belongs to another topic")
        seen, *rest = written.split("~")
        if not rest:
            return cls(seen=Cursor.parse(seen))
        match = MESSAGE.fullmatch(rest[-1])
        if len(rest) != 2 or match is None:
            raise BadCursor("it is not written like one")
        after = int(match[1]), int(match[2])
        position = cls(seen=Cursor.parse(seen), upto=Cursor.parse(rest[0]), after=after)
        if max(after) > LARGEST or not position._is_ordered:
            raise BadCursor("its numbers contradict each other")
        return position

    def is_seen_by(self, later: "Position") -> bool:
        """Tell whether all that a reader here has had was committed at a later position."""
        return later.seen.snapshot.includes((self.upto or self.seen).snapshot)

    @property
    def _is_ordered(self) -> bool:
        return self.upto is not None and self.upto.snapshot.includes(self.seen.snapshot)

    def write(self, pattern: str) -> str:
        """Return what :meth:`parse` understands."""
        parts = [str(self.seen)]
        if self.upto is not None:
            parts += [str(self.upto), "{}.{}".format(*self.after)]
        return "~".join([*parts, mark_of(pattern)])


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Events in their order, those between two positions; ``is_reset``: some may have left."""

    start: Position
    end: Position
    events: tuple[Event, ...]
    is_reset: bool = False

    @property
    def is_complete(self) -> bool:
        """Tell whether it reaches a snapshot, so that another can join on to it."""
        return self.end.upto is None

    def position_after(self, index: int) -> Position:
        """Return where a reader is that has had the event of this index."""
        if index == len(self.events) - 1:
            return self.end
        event = self.events[index]
        upto = self.end.upto or self.end.seen
        return Position(seen=self.start.seen, upto=upto, after=(event.transaction, event.id))


def mark_of(pattern: str) -> str:
    """Return what a position of this pattern ends with."""
    return hashlib.sha256(pattern.encode()).hexdigest()[:MARK]


def here(using: str | None = None) -> Position:
    """Return the position of whoever has seen all that is committed."""
    snapshot, at = store.now(connection_for(using))
    return Position(seen=Cursor.parse(f"{snapshot}@{at}"))


def stretch(
    position: Position, *, pattern: str = "#", limit: int = PAGE, using: str | None = None
) -> Stretch:
    """Return the next events behind a position; raise BadCursor for one from the future."""
    upto = position.upto
    found = store.page(
        connection_for(using),
        position.seen.snapshot,
        upto=str(upto.snapshot) if upto else None,
        after=position.after,
        pattern=pattern,
        limit=limit,
    )
    now = Cursor.parse(f"{found.snapshot}@{found.at}")
    if not position.is_seen_by(Position(seen=now)):
        raise BadCursor("it lies ahead of the database")
    events = tuple(map(_event, found.rows))
    end = Position(seen=upto or now)
    if len(events) >= limit:
        last = events[-1]
        end = Position(seen=position.seen, upto=upto or now, after=(last.transaction, last.id))
    return Stretch(
        start=position,
        end=end,
        events=events,
        is_reset=found.retention is not None and now.at - position.seen.at > found.retention,
    )


def _event(row: list[Any]) -> Event:
    message_id, transaction, topic, at, body = row
    return Event(id=message_id, transaction=int(transaction), topic=topic, at=at, body=body)
