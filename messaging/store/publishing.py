"""Store messages with their deliveries, in one statement of the caller's transaction."""

from typing import Any, NamedTuple

import psycopg
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import DeduplicationConflict
from .connection import Statement, run, run_statement

# From this many bodies on, COPY is faster than sending arrays (measured: docs/decisions/).
COPY_FROM = 500


# Made for every call on the hot path, where a frozen dataclass costs five times as much.
class Outgoing(NamedTuple):
    """Messages of one call: bodies and headers are JSON text; due as delay or point in time."""

    name: str
    is_topic: bool
    bodies: list[str]
    headers: str = "{}"
    priority: int = 0
    ordering_key: str | None = None
    # Seconds from now or an aware datetime; None is ready at once.
    delay: float | None = None
    deliver_at: Any = None
    deduplication_id: str | None = None
    digest: bytes | None = None

    @property
    def is_later(self) -> bool:
        return self.delay is not None or self.deliver_at is not None


class Stored(NamedTuple):
    """What a statement stored: message ids in order, and (queue, first delivery, count) rows.

    The first delivery is None where all are due later.
    """

    ids: list[int]
    placed: list[tuple[int, int | None, int]]
    duplicate: bool = False


# Names are resolved by the statement itself: no cache of queues and topics can ever be stale.
_QUEUE = "SELECT id, deduplication_window FROM messaging_queue WHERE name = %(name)s"
_TOPIC = "SELECT id, deduplication_window FROM messaging_topic WHERE name = %(name)s"

# ORDER BY before INSERT, so that ids follow the order of the bodies.
_STORED_QUEUE = """
    INSERT INTO messaging_message (queue_id, ordering_key, headers, body)
    SELECT target.id, %(ordering_key)s, %(headers)s::jsonb, item.body::jsonb
    FROM target, unnest(%(bodies)s::text[]) WITH ORDINALITY AS item (body, position)
    ORDER BY item.position
    RETURNING id
"""
_STORED_TOPIC = """
    INSERT INTO messaging_message (topic_id, ordering_key, headers, body)
    SELECT target.id, %(ordering_key)s, %(headers)s::jsonb, item.body::jsonb
    FROM target, unnest(%(bodies)s::text[]) WITH ORDINALITY AS item (body, position)
    ORDER BY item.position
    RETURNING id
"""
_TO_QUEUE = """
    SELECT target.id AS queue_id, stored.id AS message_id, NULL::bigint AS subscription_id
    FROM target, stored
"""
_TO_SUBSCRIBERS = """
    SELECT binding.queue_id, stored.id AS message_id, binding.subscription_id
    FROM target JOIN messaging_binding AS binding ON binding.topic_id = target.id, stored
"""
_READY = """
    placed AS (
        INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt, subscription_id)
        SELECT queue_id, %(priority)s, message_id, 1, subscription_id FROM receiver
        ORDER BY message_id, subscription_id
        RETURNING queue_id, id
    )
"""
# A moment in the past means now. The database's clock decides.
_LATER = """
    due AS MATERIALIZED (
        SELECT coalesce(%(deliver_at)s::timestamptz,
            statement_timestamp() + %(delay)s::float8 * interval '1 second') AS at
    ),
    late AS (
        INSERT INTO messaging_scheduled
            (queue_id, priority, message_id, attempt, subscription_id, due_at)
        SELECT queue_id, %(priority)s, message_id, 1, subscription_id, due.at FROM receiver, due
        WHERE due.at > statement_timestamp()
        ORDER BY message_id, subscription_id
        RETURNING queue_id
    ),
    early AS (
        INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt, subscription_id)
        SELECT queue_id, %(priority)s, message_id, 1, subscription_id FROM receiver, due
        WHERE due.at <= statement_timestamp()
        ORDER BY message_id, subscription_id
        RETURNING queue_id, id
    ),
    placed AS (
        SELECT queue_id, NULL::bigint AS id FROM late UNION ALL SELECT queue_id, id FROM early
    )
"""
_RESULT = """
    SELECT (SELECT id FROM target),
           (SELECT array_agg(id ORDER BY id) FROM stored),
           (SELECT array_agg(ARRAY[queue_id, first, number]) FROM
               (SELECT queue_id, min(id) AS first, count(*) AS number
                FROM placed GROUP BY queue_id) AS by_queue)
"""
# The first sender of an id inserts the row; a second one waits here for the first to commit, and
# takes the row over only when it has expired. When the first rolls back, the second is the first.
_DEDUPLICATED = """
    drawn AS MATERIALIZED (
        SELECT nextval(pg_get_serial_sequence('messaging_message', 'id')) AS id FROM target
    ),
    won AS (
        INSERT INTO messaging_deduplication AS known (scope, key, message_id, digest, expires_at)
        SELECT %(scope)s || target.id, %(deduplication_id)s, drawn.id, %(digest)s,
            statement_timestamp() + target.deduplication_window * interval '1 second'
        FROM target, drawn
        WHERE target.deduplication_window IS DISTINCT FROM 0
        ON CONFLICT (scope, key) DO UPDATE
        SET message_id = excluded.message_id, digest = excluded.digest,
            expires_at = excluded.expires_at
        WHERE known.expires_at <= statement_timestamp()
        RETURNING message_id
    ),
    fresh AS (
        SELECT drawn.id FROM drawn, target
        WHERE target.deduplication_window = 0 OR EXISTS (SELECT FROM won)
    ),
"""
_STORED_FRESH_QUEUE = """
    INSERT INTO messaging_message (id, queue_id, ordering_key, headers, body)
    SELECT fresh.id, target.id, %(ordering_key)s, %(headers)s::jsonb, item.body::jsonb
    FROM fresh, target, unnest(%(bodies)s::text[]) AS item (body)
    RETURNING id
"""
_STORED_FRESH_TOPIC = """
    INSERT INTO messaging_message (id, topic_id, ordering_key, headers, body)
    SELECT fresh.id, target.id, %(ordering_key)s, %(headers)s::jsonb, item.body::jsonb
    FROM fresh, target, unnest(%(bodies)s::text[]) AS item (body)
    RETURNING id
"""


def _statement(is_topic: bool, later: bool, deduplicated: bool) -> str:
    if deduplicated:
        stored = _STORED_FRESH_TOPIC if is_topic else _STORED_FRESH_QUEUE
    else:
        stored = _STORED_TOPIC if is_topic else _STORED_QUEUE
    return (
        f"WITH target AS MATERIALIZED ({_TOPIC if is_topic else _QUEUE}), "
        f"{_DEDUPLICATED if deduplicated else ''}"
        f"stored AS ({stored}), "
        f"receiver AS ({_TO_SUBSCRIBERS if is_topic else _TO_QUEUE}), "
        f"{_LATER if later else _READY} {_RESULT}"
    )


# Put together from the constants above once, at import.
PUBLISH: dict[tuple[bool, bool, bool], Any] = {
    (is_topic, later, deduplicated): _statement(is_topic, later, deduplicated)
    for is_topic in (False, True)
    for later in (False, True)
    for deduplicated in (False, True)
}


# One message, ready at once, without deduplication: what most calls are. The same as the statement
# above for a single body, without the arrays that cost as much again as the two inserts.
SEND_ONE = Statement(
    """
    WITH stored AS (
        INSERT INTO messaging_message (queue_id, ordering_key, headers, body)
        SELECT id, $2, $3::jsonb, $4::jsonb
        FROM messaging_queue WHERE name = $1
        RETURNING id, queue_id
    )
    INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt)
    SELECT queue_id, $5, id, 1 FROM stored
    RETURNING message_id, queue_id, id
    """,
    parameters=5,
)
PUBLISH_ONE = Statement(
    """
    WITH stored AS (
        INSERT INTO messaging_message (topic_id, ordering_key, headers, body)
        SELECT id, $2, $3::jsonb, $4::jsonb
        FROM messaging_topic WHERE name = $1
        RETURNING id, topic_id
    ),
    placed AS (
        INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt, subscription_id)
        SELECT binding.queue_id, $5, stored.id, 1, binding.subscription_id
        FROM stored JOIN messaging_binding AS binding ON binding.topic_id = stored.topic_id
        ORDER BY binding.subscription_id
        RETURNING queue_id, id
    )
    SELECT stored.id, placed.queue_id, placed.id FROM stored LEFT JOIN placed ON true
    """,
    parameters=5,
)


def publish_one(connection: BaseDatabaseWrapper, outgoing: Outgoing) -> Stored | None:
    """Store one message that is ready at once; return None when the name is unknown."""
    params = [
        outgoing.name,
        outgoing.ordering_key,
        outgoing.headers,
        outgoing.bodies[0],
        str(outgoing.priority),
    ]
    rows = run_statement(connection, PUBLISH_ONE if outgoing.is_topic else SEND_ONE, params)
    if not rows:
        return None
    placed = [(queue_id, delivery_id, 1) for _, queue_id, delivery_id in rows if delivery_id]
    return Stored(ids=[rows[0][0]], placed=placed)


def publish(connection: BaseDatabaseWrapper, outgoing: Outgoing) -> Stored | None:
    """Store the messages and their deliveries; return None when the name is unknown."""
    if len(outgoing.bodies) >= COPY_FROM:
        return _publish_by_copy(connection, outgoing)
    deduplicated = outgoing.deduplication_id is not None
    if len(outgoing.bodies) == 1 and not outgoing.is_later and not deduplicated:
        return publish_one(connection, outgoing)
    params = _params(outgoing) | {"bodies": outgoing.bodies}
    if deduplicated:
        params["scope"] = "topic:" if outgoing.is_topic else "queue:"
        params["deduplication_id"] = outgoing.deduplication_id
        params["digest"] = outgoing.digest
    sql = PUBLISH[outgoing.is_topic, outgoing.is_later, deduplicated]
    target, ids, placed = run(connection, sql, params)[0]
    if target is None:
        return None
    if not ids:
        return _original(connection, target, outgoing)
    return Stored(ids=ids, placed=_triples(placed))


ORIGINAL = "SELECT message_id, digest FROM messaging_deduplication WHERE scope = %s AND key = %s"


def _original(connection: BaseDatabaseWrapper, target: int, outgoing: Outgoing) -> Stored | None:
    """Return the message that the deduplication id already stands for."""
    scope = f"{'topic' if outgoing.is_topic else 'queue'}:{target}"
    rows = run(connection, ORIGINAL, (scope, outgoing.deduplication_id))
    if not rows:  # it expired and was pruned since the statement before
        return publish(connection, outgoing)
    message_id, digest = rows[0]
    if bytes(digest) != outgoing.digest:
        raise DeduplicationConflict(str(outgoing.deduplication_id), message_id)
    return Stored(ids=[message_id], placed=[], duplicate=True)


DRAW = """
    WITH target AS MATERIALIZED (SELECT id FROM messaging_{kind} WHERE name = %(name)s)
    SELECT target.id, array_agg(nextval(pg_get_serial_sequence('messaging_message', 'id')))
    FROM target, generate_series(1, %(count)s)
    GROUP BY target.id
"""
DRAW_FOR: dict[bool, Any] = {
    False: DRAW.format(kind="queue"),
    True: DRAW.format(kind="topic"),
}
COPY_TO: dict[bool, Any] = {
    False: "COPY messaging_message (id, queue_id, ordering_key, headers, body) FROM STDIN",
    True: "COPY messaging_message (id, topic_id, ordering_key, headers, body) FROM STDIN",
}


def _place(is_topic: bool, later: bool) -> str:
    return (
        f"WITH target AS (SELECT %(target)s::bigint AS id), "
        f"stored AS (SELECT unnest(%(ids)s::bigint[]) AS id), "
        f"receiver AS ({_TO_SUBSCRIBERS if is_topic else _TO_QUEUE}), "
        f"{_LATER if later else _READY} {_RESULT}"
    )


PLACE: dict[tuple[bool, bool], Any] = {
    (is_topic, later): _place(is_topic, later)
    for is_topic in (False, True)
    for later in (False, True)
}


def _publish_by_copy(connection: BaseDatabaseWrapper, outgoing: Outgoing) -> Stored | None:
    with transaction.atomic(using=connection.alias, savepoint=False):
        draw = {"name": outgoing.name, "count": len(outgoing.bodies)}
        drawn = run(connection, DRAW_FOR[outgoing.is_topic], draw)
        if not drawn:
            return None
        target, ids = drawn[0]
        row = (target, outgoing.ordering_key, outgoing.headers)
        with (
            connection.wrap_database_errors,
            psycopg.Cursor(connection.connection) as cursor,
            cursor.copy(COPY_TO[outgoing.is_topic]) as copy,
        ):
            for message_id, body in zip(ids, outgoing.bodies, strict=True):
                copy.write_row((message_id, *row, body))
        # By id: the name could have gone to another queue since the ids were drawn.
        params = _params(outgoing) | {"target": target, "ids": ids}
        _, ids, placed = run(connection, PLACE[outgoing.is_topic, outgoing.is_later], params)[0]
    return Stored(ids=ids, placed=_triples(placed))


def _params(outgoing: Outgoing) -> dict[str, Any]:
    return {
        "name": outgoing.name,
        "headers": outgoing.headers,
        "priority": outgoing.priority,
        "ordering_key": outgoing.ordering_key,
        "delay": outgoing.delay,
        "deliver_at": outgoing.deliver_at,
    }


def _triples(placed: list[list[Any]] | None) -> list[tuple[int, int | None, int]]:
    return [(queue_id, first, count) for queue_id, first, count in placed or ()]


KNOWN: dict[bool, Any] = {
    False: "SELECT name FROM messaging_queue ORDER BY name LIMIT 1000",
    True: "SELECT name FROM messaging_topic ORDER BY name LIMIT 1000",
}


def known_names(connection: BaseDatabaseWrapper, is_topic: bool) -> list[str]:
    """Return the names of queues or topics, for the suggestion in an error."""
    return [name for (name,) in run(connection, KNOWN[is_topic])]
