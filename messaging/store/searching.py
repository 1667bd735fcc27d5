"""Search what is ready, scheduled, in flight, dead or completed, a bounded number of rows a time.

Every section is read in the order of an index, from a position on, so that a page costs the same
wherever it begins and however much waits. The tokens of lanes are read over: they are no messages.
"""

import datetime
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import InvalidOption, OperationRefused
from .conditions import condition
from .connection import run
from .filters import Conditions, State
from .operations import limit_time, was_cancelled

# What is looked at for one page at most.
LOOKED_AT = 10_000
# What waits on a queue is compared with the log up to here, to tell what is completed.
COMPARED = 50_000
LAST_ID = 2**63 - 1


class Section(NamedTuple):
    """One of the tables where messages are found.

    ``place`` is the column of the index between queue and id, from ``first`` to ``last``.
    """

    name: str
    state: State
    table: str
    place: str = ""
    kind: str = "smallint"
    first: Any = 0
    last: Any = 0
    queue: str = "queue_id"
    # Columns: priority, attempt, subscription_id, expires_at, at, by, error.
    columns: str = (
        "priority, attempt, subscription_id, expires_at, NULL::timestamptz AS at, ''::text AS by"
    )
    condition: str = "true"


READY = Section("ready", State.READY, "messaging_delivery", "priority", "smallint", -32_768, 32_767)
KEYED = Section("keyed", State.READY, "messaging_laneentry", "lane_id", "bigint", 0, LAST_ID)
SCHEDULED = Section(
    "scheduled",
    State.SCHEDULED,
    "messaging_scheduled",
    "due_at",
    "timestamptz",
    "-infinity",
    "infinity",
    columns="priority, attempt, subscription_id, expires_at, due_at AS at, ''::text AS by",
)
LEASED = Section(
    "leased",
    State.IN_FLIGHT,
    "messaging_lease",
    columns="priority, attempt, subscription_id, expires_at, leased_until AS at, worker AS by",
)
_DEAD = """priority, attempts AS attempt, subscription_id, NULL::timestamptz AS expires_at,
    died_at AS at, reason AS by"""
HELD = Section("held", State.DEAD, "messaging_deadletter", columns=_DEAD)
BURIED = Section(
    "buried",
    State.DEAD,
    "messaging_deadletter",
    queue="origin_id",
    columns=_DEAD,
    # The others are found where they are held.
    condition="queue_id NOT BETWEEN %(low)s AND %(high)s",
)
LOG = Section("log", State.COMPLETED, "messaging_message")
SECTIONS = (READY, KEYED, SCHEDULED, LEASED, HELD, BURIED, LOG)
BY_NAME = {section.name: section for section in SECTIONS}


class Position(NamedTuple):
    """Behind which row of which section the next page begins."""

    section: str
    queue_id: int
    place: Any
    id: int

    def __str__(self) -> str:
        return "/".join(map(str, self))

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Return the position that was written as text; raise InvalidOption for anything else."""
        try:
            name, queue_id, place, row_id = text.split("/")
            _check_place(BY_NAME[name], place)
            numbers = int(queue_id), int(row_id)
            if not all(0 <= number <= LAST_ID for number in numbers):
                raise ValueError
        except (ValueError, KeyError) as error:
            raise InvalidOption("after", text, "use what a page before said is next") from error
        return cls(name, numbers[0], place, numbers[1])


def _check_place(section: Section, place: str) -> None:
    if section.kind == "timestamptz":
        if place not in ("infinity", "-infinity"):
            datetime.datetime.fromisoformat(place)
    elif not -LAST_ID <= int(place) <= LAST_ID or (
        section.kind == "smallint" and not -32_768 <= int(place) <= 32_767
    ):
        raise ValueError


class Row(NamedTuple):
    """A message as it is found; ``number`` is its place among those looked at, from 1.

    ``at``: when it is due, until when it is held, when it died. ``by``: who holds it, or why it
    died. ``headers`` and ``body`` are JSON texts, None where they were not asked for.
    """

    number: int
    queue_id: int
    place: Any
    id: int
    message_id: int
    priority: int
    attempt: int
    subscription_id: int | None
    expires_at: Any
    at: Any
    by: str
    queue: str
    topic: str
    key: str
    error: str
    published_at: Any
    headers: str | None
    body: str | None


class Page(NamedTuple):
    """What was found, of how many looked at, and behind what to go on; None: nothing is left.

    ``is_certain`` is false where more waits than was compared with what looks completed.
    """

    rows: list[Row]
    looked_at: int
    next: Position | None
    is_certain: bool = True


# The LIMIT in the payload's look-up keeps it one by primary key: a join of the whole log would look
# just as cheap to the planner. What is shown is read for the rows that match alone. What was looked
# at is counted without tokens.
_PAGE: Any = """
    WITH looked AS MATERIALIZED (
        SELECT found.*, count(*) FILTER (WHERE NOT is_token) OVER (ORDER BY {order}) AS number
        FROM ({looked}) AS found
    ),
    {waits}
    matching AS MATERIALIZED (
        SELECT looked.* FROM looked
        LEFT JOIN LATERAL (
            SELECT * FROM {log} AS log WHERE log.id = looked.{link} LIMIT 1
        ) AS message ON true
        WHERE NOT looked.is_token AND {where}
        ORDER BY looked.number LIMIT %(limit)s
    )
    SELECT (SELECT count(*) FROM looked), last.queue_id, last.place::text, last.id, last.number,
        {is_certain}, looked.number, looked.queue_id, looked.place::text, looked.id,
        looked.message_id, looked.priority, looked.attempt, looked.subscription_id,
        looked.expires_at, looked.at, looked.by, coalesce(queue.name, ''),
        coalesce(topic.name, ''), coalesce(message.ordering_key, message.fairness_key, ''),
        {error}, message.published_at, {payload}
    FROM (SELECT * FROM looked ORDER BY {backwards} LIMIT 1) AS last
    LEFT JOIN matching AS looked ON true
    LEFT JOIN LATERAL (
        SELECT * FROM {log} AS log WHERE log.id = looked.{link} LIMIT 1
    ) AS message ON true
    LEFT JOIN messaging_queue AS queue ON queue.id = looked.queue_id
    LEFT JOIN messaging_topic AS topic ON topic.id = message.topic_id
    ORDER BY looked.number
"""
_WAITING: Any = """
    SELECT {queue} AS queue_id, {place} AS place, id, {message_id} AS message_id, {columns},
        {is_token} AS is_token
    FROM {table}
    WHERE {queue} BETWEEN %(low)s AND %(high)s AND {key} {direction} ({position})
    AND id <= %(upto)s AND {condition}
    ORDER BY {order} LIMIT %(look)s
"""
# The log has no index by queue, and needs none for anything else: it is looked through by its ids.
_LOGGED: Any = """
    SELECT coalesce(queue_id, 0) AS queue_id, 0 AS place, id, id AS message_id,
        0::smallint AS priority, 0::smallint AS attempt, NULL::bigint AS subscription_id,
        NULL::timestamptz AS expires_at, NULL::timestamptz AS at, ''::text AS by,
        false AS is_token
    FROM messaging_message
    WHERE id {direction} %(id)s AND id <= %(upto)s AND {condition}
    ORDER BY id {descending} LIMIT %(look)s
"""
_WAITS: Any = """
    waits AS MATERIALIZED (
        (SELECT message_id FROM messaging_delivery
         WHERE queue_id BETWEEN %(low)s AND %(high)s
         ORDER BY queue_id DESC, priority DESC, id DESC LIMIT %(compared)s)
        UNION ALL
        (SELECT message_id FROM messaging_laneentry
         WHERE queue_id BETWEEN %(low)s AND %(high)s
         ORDER BY queue_id DESC, lane_id DESC, id DESC LIMIT %(compared)s)
    ),
"""
# Whether a subscription took a message to the queue is not stored: it did if it existed by then.
# OFFSET keeps look-ups by index what they are, instead of joins with the whole of a table.
_COMPLETED = """
    (%(everywhere)s OR message.queue_id BETWEEN %(low)s AND %(high)s OR EXISTS (
        SELECT FROM messaging_binding AS binding JOIN messaging_subscription AS subscription
            ON subscription.id = binding.subscription_id
        WHERE binding.topic_id = message.topic_id
        AND binding.queue_id BETWEEN %(low)s AND %(high)s
        AND subscription.created_at <= message.published_at AND {taken}))
    AND NOT EXISTS (SELECT FROM waits WHERE waits.message_id = looked.message_id)
    AND NOT EXISTS (SELECT FROM messaging_scheduled AS later
        WHERE later.message_id = looked.message_id AND later.lane_id IS NULL
        AND later.queue_id BETWEEN %(low)s AND %(high)s OFFSET 0)
    AND NOT EXISTS (SELECT FROM messaging_lease AS lease
        WHERE lease.message_id = looked.message_id
        AND lease.queue_id BETWEEN %(low)s AND %(high)s)
    AND NOT EXISTS (SELECT FROM messaging_deadletter AS dead
        WHERE dead.message_id = looked.message_id
        AND dead.origin_id BETWEEN %(low)s AND %(high)s OFFSET 0)
""".replace("{taken}", condition("message.headers", "message.body"))
_ERROR_OF_DEAD = "concat_ws(': ', nullif(message.error, ''), nullif(message.description, ''))"
LAST_ERROR = """
    coalesce((SELECT concat_ws(': ', nullif(attempt.error, ''), nullif(attempt.description, ''))
        FROM messaging_attempt AS attempt WHERE attempt.message_id = looked.message_id
        AND attempt.queue_id BETWEEN %(low)s AND %(high)s
        ORDER BY attempt.id DESC LIMIT 1), '')
"""


def page(
    connection: BaseDatabaseWrapper,
    section: Section,
    wanted: Conditions,
    *,
    queue_id: int | None,
    after: Position | None = None,
    newest_first: bool = False,
    upto: int = LAST_ID,
    limit: int,
    look: int = LOOKED_AT,
    payload: bool = True,
) -> Page:
    """Look at the next rows of a section, of one queue or of all, and return those that match.

    At most ``look`` rows, and ``limit`` that match. Nothing newer than ``upto``.
    """
    begin = after or start(section, queue_id, newest_first)
    params = wanted.params | {
        "low": 0 if queue_id is None else queue_id,
        "high": LAST_ID if queue_id is None else queue_id,
        "everywhere": queue_id is None,
        "queue_id": begin.queue_id,
        "place": begin.place,
        "id": begin.id,
        "upto": upto,
        "limit": limit,
        "look": look,
        "compared": COMPARED,
    }
    rows = run(connection, _statement(section, wanted, newest_first, payload), params)
    if not rows:
        return Page([], 0, None)
    count, queue, place, last_id, number, is_certain = rows[0][:6]
    found = [Row._make(row[6:]) for row in rows if row[6] is not None]
    if len(found) == limit:
        last = found[-1]
        following = Position(section.name, last.queue_id, last.place, last.id)
        return Page(found, last.number, following, is_certain)
    end = Position(section.name, queue, place, last_id) if count == look else None
    return Page(found, number, end, is_certain)


def start(section: Section, queue_id: int | None, newest_first: bool) -> Position:
    """Return the position before the first row of a section."""
    if newest_first:
        return Position(section.name, queue_id or LAST_ID, section.last, LAST_ID)
    return Position(section.name, queue_id or 0, section.first, 0)


def _statement(section: Section, wanted: Conditions, newest_first: bool, payload: bool) -> Any:
    descending = "DESC" if newest_first else ""
    is_log = section is LOG
    is_dead = section.state is State.DEAD
    columns = ["id"] if is_log else [section.queue, *filter(None, [section.place]), "id"]
    names = {section.queue: "queue_id", section.place: "place"}
    outer = [names.get(column, column) for column in columns]
    direction = "<" if newest_first else ">"
    if is_log:
        condition = "id = ANY (%(ids)s::bigint[])" if "ids" in wanted.params else "true"
        looked = _LOGGED.format(direction=direction, descending=descending, condition=condition)
    else:
        positions = {section.queue: "%(queue_id)s", "id": "%(id)s"}
        looked = _WAITING.format(
            queue=section.queue,
            place=section.place or "0",
            message_id="message_id",
            columns=section.columns,
            is_token="lane_id IS NOT NULL" if section in (READY, SCHEDULED) else "false",
            table=section.table,
            key=f"({', '.join(columns)})",
            direction=direction,
            position=", ".join(
                positions.get(column, f"%(place)s::{section.kind}") for column in columns
            ),
            condition=section.condition,
            order=", ".join(f"{column} {descending}" for column in columns),
        )
    error = _ERROR_OF_DEAD if is_dead else LAST_ERROR
    where = wanted.where.replace("{error}", error)
    return _PAGE.format(
        looked=looked,
        order=", ".join(f"{column} {descending}" for column in outer),
        backwards=", ".join(f"{column} {'' if newest_first else 'DESC'}" for column in outer),
        waits=_WAITS if is_log else "",
        error=error,
        payload="message.headers::text, message.body::text" if payload else "NULL, NULL",
        log="messaging_deadletter" if is_dead else "messaging_message",
        link="id" if is_dead else "message_id",
        where=f"{where} AND {_COMPLETED}" if is_log else where,
        is_certain="(SELECT count(*) < %(compared)s FROM waits)" if is_log else "true",
    )


def sections_of(states: Sequence[State], *, of_one_queue: bool) -> list[Section]:
    """Return where messages in these states are found; no states are all."""
    return [
        section
        for section in SECTIONS
        if (not states or section.state in states) and (of_one_queue or section is not BURIED)
    ]


@contextmanager
def bounded(connection: BaseDatabaseWrapper, seconds: float, what: str) -> Iterator[None]:
    """Run statements that the server gives up after ``seconds``: OperationRefused then."""
    try:
        with transaction.atomic(using=connection.alias):
            before = run(connection, "SELECT current_setting('statement_timeout')")[0][0]
            limit_time(connection, seconds)
            yield
            run(connection, "SELECT set_config('statement_timeout', %s, true)", (before,))
    except OperationalError as error:
        if was_cancelled(error):
            raise OperationRefused(
                f"{what} took longer than {seconds:g} seconds and was given up. Narrow the filter, "
                f"or name the queue."
            ) from error
        raise
