"""Look at messages without locking or counting them, wherever they are."""

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from json import JSONDecoder
from typing import Any

from ..exceptions import InvalidOption
from ..models import Queue
from ..store import peeking, searching
from ..store.connection import connection_for
from ..store.filters import Filter, State
from ..store.searching import Position, Row, Section
from .queues import find_queue, join_lanes

# The most that one call returns, and that it looks at.
MOST = 1_000
MOST_LOOKED_AT = 100_000
SECONDS = 5.0

decode = JSONDecoder().decode


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A message as it was seen, and where.

    ``attempt``: which delivery is next; of a dead letter, how many there were. ``at``: when it is
    due, until when it is held, or when it died, as its state has it; ``by``: who holds it, or why
    it died. ``row`` is the id of the delivery, of the scheduled one, of the lease or of the dead
    letter. A body that cannot be decoded is None, and ``undecodable`` says why.
    """

    id: int
    state: State
    queue: str
    topic: str
    key: str
    priority: int
    attempt: int
    published_at: datetime.datetime | None
    expires_at: datetime.datetime | None
    at: datetime.datetime | None
    by: str
    error: str
    headers: Mapping[str, Any]
    body: Any
    undecodable: str
    row: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a search has found so far: ``looked_at`` so many messages, the newest first.

    ``next`` is where to go on, None at the end. ``is_certain`` is false where more waits on a queue
    than was compared: what is shown as completed may still be ready then.
    """

    messages: tuple[Seen, ...]
    looked_at: int
    next: Position | None
    is_certain: bool = True


def peek(queue: Queue | str, *, limit: int = 10, using: str | None = None) -> list[Seen]:
    """Return the messages that are next in a queue, in the order of delivery.

    At most 1,000. A key stands where its turn is, with its next message; parked keys and what is
    scheduled or held have no turn.
    """
    found = find_queue(queue, using)
    _check(limit, "limit", MOST)
    connection = connection_for(using)
    join_lanes(connection)
    with searching.bounded(connection, SECONDS, "peek"):
        rows = peeking.next_of(connection, found.pk, limit)
    return seen(searching.READY, rows)


def search(
    queue: Queue | str | None,
    wanted: Filter | None = None,
    *,
    limit: int = 100,
    after: Position | None = None,
    look_at: int = searching.LOOKED_AT,
    using: str | None = None,
) -> Found:
    """Return messages of a queue, or of all queues, that a filter describes.

    State by state, the newest of each first (of what is scheduled, what is due last). A call looks
    at ``look_at`` rows of what waits and of the log, 100,000 at most, and returns up to ``limit``
    messages, 1,000 at most; ``after`` goes on behind ``Found.next``.
    """
    wanted = wanted or Filter()
    found = find_queue(queue, using) if queue is not None else None
    _check(limit, "limit", MOST)
    _check(look_at, "look_at", MOST_LOOKED_AT)
    connection = connection_for(using)
    join_lanes(connection)
    sections = searching.sections_of(wanted.states, of_one_queue=found is not None)
    messages: list[Seen] = []
    looked_at, is_certain = 0, True
    with searching.bounded(connection, SECONDS, "search"):
        for section in _from(sections, after):
            page = searching.page(
                connection,
                section,
                wanted,
                queue_id=found.pk if found else None,
                after=after if after and after.section == section.name else None,
                newest_first=True,
                limit=limit - len(messages),
                look=look_at - looked_at,
            )
            messages += seen(section, page.rows)
            looked_at += page.looked_at
            is_certain = is_certain and page.is_certain
            following = page.next or _beginning(sections, section, found)
            if page.next or len(messages) >= limit or looked_at >= look_at or following is None:
                break
        else:
            following = None
    return Found(
        messages=tuple(messages), looked_at=looked_at, next=following, is_certain=is_certain
    )


def seen(section: Section, rows: Iterable[Row]) -> list[Seen]:
    """Return rows as they are shown, also those that cannot be decoded."""
    return [_seen(section.state, row) for row in rows]


def _seen(state: State, row: Row) -> Seen:
    headers: dict[str, Any] = {}
    body, undecodable = None, ""
    try:
        headers = decode(row.headers) if row.headers else {}
        body = decode(row.body) if row.body else None
    except (ValueError, RecursionError) as error:
        undecodable = f"{type(error).__qualname__}: {error}"[:300]
    return Seen(
        id=row.message_id,
        state=state,
        queue=row.queue,
        topic=row.topic,
        key=row.key,
        priority=row.priority,
        attempt=row.attempt,
        published_at=row.published_at,
        expires_at=row.expires_at,
        at=row.at,
        by=row.by,
        error=row.error,
        headers=headers,
        body=body,
        undecodable=undecodable,
        row=row.id,
    )


def _from(sections: list[Section], after: Position | None) -> list[Section]:
    if after is None:
        return sections
    names = [section.name for section in sections]
    if after.section not in names:
        raise InvalidOption("after", after, "use Found.next of the same search")
    return sections[names.index(after.section) :]


def _beginning(sections: list[Section], done: Section, queue: Queue | None) -> Position | None:
    """Return where the section behind one that is done begins, if there is one."""
    for section in sections[sections.index(done) + 1 :]:
        return searching.start(section, queue.pk if queue else None, newest_first=True)
    return None


def _check(value: int, option: str, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InvalidOption(option, value, f"use 1 to {most:,}")
