"""Replay messages of the log: find what a snapshot has seen, page by page, each message once.

What was visible in a snapshot is a fixed set, whoever commits meanwhile. Topics are read by their
index, in the order of (transaction, id); what was sent to a queue has no index by queue, so that
the log is read by its primary key there.
"""

import datetime
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .conditions import condition
from .connection import run
from .filters import Filter
from .searching import LAST_ERROR

# What is looked at for one page at most.
LOOKED_AT = 10_000
FIRST = ("0", 0)


class Way(NamedTuple):
    """How messages of topics come to a queue: a subscription as it was when the replay began."""

    subscription_id: int
    pattern: str
    filter: Any
    scope: str


class Wanted(NamedTuple):
    """What is replayed: what ``upto`` has seen, from one of time, id and snapshot on.

    ``own`` is the queue whose own messages are meant, too; None reads topics only. ``queue_id`` is
    the one that the messages were for.
    """

    queue_id: int
    own: int | None
    ways: Sequence[Way]
    upto: str
    last_id: int
    since_time: datetime.datetime | None = None
    since_id: int = 0
    since_snapshot: str | None = None


class Found(NamedTuple):
    """A message, and the subscriptions that bring it; None: it was sent to the queue itself."""

    transaction: str
    message_id: int
    subscriptions: list[int | None]


class Page(NamedTuple):
    """The next messages, and behind which transaction and id to go on; None: nothing is left."""

    rows: list[Found]
    next: tuple[str, int] | None


# The bounds of the index only: whatever else is asked is asked of at most so many rows a page.
_BY_TOPIC = """
    SELECT log.* FROM (SELECT DISTINCT topic_id FROM binding) AS topic CROSS JOIN LATERAL (
        SELECT log.id, log.transaction, log.queue_id, log.topic_id
        FROM messaging_message AS log
        WHERE log.topic_id = topic.topic_id
            AND (log.transaction, log.id) > (%(transaction)s::text::xid8, %(id)s)
            AND log.transaction < pg_snapshot_xmax(%(upto)s::pg_snapshot)
        ORDER BY log.transaction, log.id LIMIT %(look)s
    ) AS log
    ORDER BY log.transaction, log.id LIMIT %(look)s
"""
_BY_ID = """
    SELECT log.id, log.transaction, log.queue_id, log.topic_id FROM messaging_message AS log
    WHERE log.id > %(id)s AND log.id <= %(last_id)s
    ORDER BY log.id LIMIT %(look)s
"""
# The LIMIT in the payload's look-up keeps it one by primary key, and only of what the cheap
# conditions leave. Sorted before it, so that it ends with the last one wanted.
_PAGE: Any = """
    WITH way AS MATERIALIZED (
        SELECT given.subscription_id, messaging_pattern_regex(given.pattern) AS regex,
            messaging_compile_filter(given.filter, given.scope) AS condition,
            messaging_filter_networks(given.filter) AS networks, given.scope = 'body' AS on_body
        FROM unnest(%(subscriptions)s::bigint[], %(patterns)s::text[],
            %(filters)s::text[]::jsonb[], %(scopes)s::text[])
            AS given (subscription_id, pattern, filter, scope)
    ),
    binding AS MATERIALIZED (
        SELECT topic.id AS topic_id, way.* FROM messaging_topic AS topic
        JOIN way ON '.' || topic.name ~ way.regex
    ),
    looked AS MATERIALIZED (
        SELECT log.id AS message_id, log.transaction, log.queue_id, log.topic_id,
            row_number() OVER (ORDER BY {order}) AS number
        FROM ({looked}) AS log
    ),
    meant AS MATERIALIZED (
        SELECT * FROM looked
        WHERE pg_visible_in_snapshot(transaction, %(upto)s::pg_snapshot)
            AND message_id >= %(since_id)s
            AND (%(since)s::text IS NULL
                OR NOT pg_visible_in_snapshot(transaction, %(since)s::text::pg_snapshot))
            AND (queue_id = %(own)s::bigint
                OR topic_id = ANY (ARRAY(SELECT topic_id FROM binding)))
    ),
    matching AS MATERIALIZED (
        SELECT looked.number, looked.transaction, looked.message_id, taken.subscriptions
        FROM (SELECT * FROM meant ORDER BY number) AS looked
        CROSS JOIN LATERAL (
            SELECT * FROM messaging_message AS log WHERE log.id = looked.message_id LIMIT 1
        ) AS message
        CROSS JOIN LATERAL (
            SELECT array_agg(way.subscription_id ORDER BY way.subscription_id) AS subscriptions
            FROM (
                SELECT NULL::bigint AS subscription_id WHERE message.queue_id = %(own)s::bigint
                UNION ALL
                SELECT binding.subscription_id FROM binding
                WHERE binding.topic_id = message.topic_id AND {taken}
            ) AS way
        ) AS taken
        WHERE taken.subscriptions IS NOT NULL
            AND (%(since_time)s::timestamptz IS NULL OR message.published_at >= %(since_time)s)
            AND {where}
        ORDER BY looked.number LIMIT %(limit)s
    )
    SELECT (SELECT count(*) FROM looked), last.transaction::text, last.message_id,
        matching.transaction::text, matching.message_id, matching.subscriptions
    FROM (SELECT * FROM looked ORDER BY number DESC LIMIT 1) AS last
    LEFT JOIN matching ON true
    ORDER BY matching.number
"""


def page(
    connection: BaseDatabaseWrapper,
    wanted: Wanted,
    only: Filter,
    *,
    after: tuple[str, int] = FIRST,
    limit: int,
) -> Page:
    """Return the next messages that are meant, at most ``limit``."""
    params = only.params | {
        "subscriptions": [way.subscription_id for way in wanted.ways],
        "patterns": [way.pattern for way in wanted.ways],
        "filters": [None if way.filter is None else json.dumps(way.filter) for way in wanted.ways],
        "scopes": [way.scope for way in wanted.ways],
        "own": wanted.own,
        "low": wanted.queue_id,
        "high": wanted.queue_id,
        "transaction": after[0],
        "id": after[1],
        "upto": wanted.upto,
        "last_id": wanted.last_id,
        "since": wanted.since_snapshot,
        "since_id": wanted.since_id,
        "since_time": wanted.since_time,
        "limit": limit,
        "look": LOOKED_AT,
    }
    by_topic = wanted.own is None
    sql = _PAGE.format(
        looked=_BY_TOPIC if by_topic else _BY_ID,
        order="log.transaction, log.id" if by_topic else "log.id",
        taken=condition("message.headers", "message.body"),
        where=only.where.replace("{error}", LAST_ERROR),
    )
    rows = run(connection, sql, params)
    if not rows:
        return Page([], None)
    count, transaction, message_id = rows[0][:3]
    found = [Found(*row[3:]) for row in rows if row[4] is not None]
    if len(found) == limit:
        return Page(found, (found[-1].transaction, found[-1].message_id))
    return Page(found, (transaction, message_id) if count == LOOKED_AT else None)


# A snapshot regards its own transaction as one that has ended.
NOW = """
    SELECT pg_current_snapshot()::text, extract(epoch FROM statement_timestamp())::bigint,
        pg_current_xact_id_if_assigned()::text
"""


def now(connection: BaseDatabaseWrapper) -> tuple[str, int, int | None]:
    """Return the current snapshot, the database's clock, and the caller's own transaction."""
    snapshot, at, own = run(connection, NOW)[0]
    return snapshot, at, None if own is None else int(own)


def last_id(connection: BaseDatabaseWrapper) -> int:
    """Return the highest id of the log."""
    return int(run(connection, "SELECT coalesce(max(id), 0) FROM messaging_message")[0][0])
