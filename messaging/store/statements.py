"""Statements: the SQL that stores messages with their deliveries, put together from its parts."""

from enum import StrEnum
from typing import Any

from .conditions import condition
from .outgoing import NOT_YET_KNOWN, Outgoing


class Obstacle(StrEnum):
    """Why a statement has stored nothing."""

    # An operator has stopped the queue from accepting messages.
    DISABLED = "disabled"
    # The bodies have to be hashed first, because they identify the messages.
    UNIDENTIFIED = "unidentified"
    # A queue has a max length, which takes a transaction to keep.
    LIMITED = "limited"
    # The topic has a schema, and the bodies were not held against the version that counts now.
    UNVALIDATED = "unvalidated"


class Identity(StrEnum):
    """What tells that a message was stored before."""

    # A deduplication id, within the window of the queue or topic.
    WINDOW = "window"
    # The id that the sender made, wherever it sends it.
    SENDER = "sender"


# Names are resolved by the statement itself: no cache of queues and topics can ever be stale.
_QUEUE = """
    SELECT id, deduplication_window, message_ttl, max_length IS NOT NULL AS is_limited,
        CASE WHEN disabled_at IS NOT NULL THEN 'disabled'
             WHEN content_based_deduplication AND NOT %(is_identified)s THEN 'unidentified'
             WHEN max_length IS NOT NULL AND NOT %(in_block)s THEN 'limited' END AS obstacle
    FROM messaging_queue WHERE name = %(name)s
"""
_TOPIC = """
    SELECT found.id, found.deduplication_window, found.is_limited, found.reads_bodies,
        CASE WHEN found.schema_id <> coalesce(%(schema_id)s::bigint, 0) THEN 'unvalidated'
             WHEN found.content_based_deduplication AND NOT %(is_identified)s THEN 'unidentified'
             WHEN found.is_limited AND NOT %(in_block)s THEN 'limited' END AS obstacle
    FROM (
        SELECT topic.*, coalesce(bound.is_limited, false) AS is_limited,
            coalesce(bound.reads_bodies, false) AS reads_bodies
        FROM messaging_topic AS topic CROSS JOIN LATERAL (
            SELECT bool_or(queue.max_length IS NOT NULL) AS is_limited,
                bool_or(binding.on_body) AS reads_bodies
            FROM messaging_binding AS binding
            JOIN messaging_queue AS queue ON queue.id = binding.queue_id
            WHERE binding.topic_id = topic.id AND queue.disabled_at IS NULL
        ) AS bound
        WHERE topic.name = %(name)s
    ) AS found
"""
_OPEN = "SELECT * FROM target WHERE obstacle IS NULL"

_COLUMNS = (
    "ordering_key, fairness_key, headers, correlation_id, causation_id, reply_to, source, body"
)
_VALUES = """%(ordering_key)s::text, %(fairness_key)s::text, %(headers)s::jsonb,
        %(correlation_id)s::text, %(causation_id)s::bigint, %(reply_to)s::text,
        %(source)s::text"""
# ORDER BY before INSERT, so that ids follow the order of the bodies.
_STORED = """
    INSERT INTO messaging_message ({owner}, {columns})
    SELECT open.id, {values}, item.body::jsonb
    FROM open, unnest(%(bodies)s::text[]) WITH ORDINALITY AS item (body, position)
    ORDER BY item.position
    RETURNING {returned}
"""
# Bodies come along only where a filter reads them.
_RETURNED = {
    False: "id",
    True: "id, CASE WHEN (SELECT reads_bodies FROM target) THEN body END AS body",
}
# The first sender of an identity inserts the row; a second one waits here for the first to commit,
# and takes the row over only when it has expired. When the first rolls back, the second is the
# first. In the order of keys, so that two batches cannot wait for each other.
_IDENTIFIED = """
    drawn AS MATERIALIZED (
        SELECT item.body, item.key, item.digest, item.position,
            nextval(pg_get_serial_sequence('messaging_message', 'id')) AS id
        FROM open, unnest(%(bodies)s::text[], %(keys)s::text[], %(digests)s::bytea[])
            WITH ORDINALITY AS item (body, key, digest, position)
        ORDER BY item.position
    ),
    won AS (
        INSERT INTO messaging_deduplication AS known (scope, key, message_id, digest, expires_at)
        SELECT {scope}, first.key, first.id, first.digest,
            statement_timestamp() + {window} * interval '1 second'
        FROM open, (SELECT DISTINCT ON (key) * FROM drawn ORDER BY key, position) AS first
        WHERE {window} IS DISTINCT FROM 0
        ORDER BY first.key
        ON CONFLICT (scope, key) DO UPDATE
        SET message_id = excluded.message_id, digest = excluded.digest,
            expires_at = excluded.expires_at
        WHERE known.expires_at <= statement_timestamp()
        RETURNING message_id
    ),
    fresh AS (
        SELECT drawn.* FROM drawn, open
        WHERE {window} = 0 OR drawn.id IN (SELECT message_id FROM won)
    ),
"""
_SCOPES = {
    (False, Identity.WINDOW): "'queue:' || open.id",
    (True, Identity.WINDOW): "'topic:' || open.id",
    (False, Identity.SENDER): "'message:'",
    (True, Identity.SENDER): "'message:'",
}
# A sender's own id counts for seven days at least; NULL is for ever.
SENDERS_WINDOW = (
    "CASE WHEN open.deduplication_window < 604800 THEN 604800 ELSE open.deduplication_window END"
)
_WINDOWS = {Identity.WINDOW: "open.deduplication_window", Identity.SENDER: SENDERS_WINDOW}
_STORED_FRESH = """
    INSERT INTO messaging_message (id, {owner}, {columns})
    SELECT fresh.id, open.id, {values}, fresh.body::jsonb
    FROM fresh, open
    ORDER BY fresh.position
    RETURNING {returned}
"""
_TO_QUEUE = """
    SELECT open.id AS queue_id, stored.id AS message_id, NULL::bigint AS subscription_id,
        open.message_ttl
    FROM open, stored
"""
_TO_SUBSCRIBERS = """
    SELECT binding.queue_id, stored.id AS message_id, binding.subscription_id, queue.message_ttl
    FROM open JOIN messaging_binding AS binding ON binding.topic_id = open.id
    JOIN messaging_queue AS queue ON queue.id = binding.queue_id AND queue.disabled_at IS NULL
    CROSS JOIN stored
    WHERE {taken}
"""
# The smaller of the two wins; NULL for neither.
_EXPIRY = "statement_timestamp() + least(%(expires_in)s::float8, message_ttl) * interval '1 second'"
_PLACE = """
        INSERT INTO messaging_delivery
            (queue_id, priority, message_id, attempt, subscription_id, expires_at)
        SELECT queue_id, %(priority)s, message_id, 1, subscription_id, {expiry}
        FROM {source}
        ORDER BY message_id, subscription_id
        RETURNING queue_id, id
"""
# A message with a key gets its place when the transaction commits (messaging_join_lanes).
_PLACE_BY_KEY = """
        INSERT INTO messaging_arrival
            (queue_id, kind, key, priority, message_id, attempt, subscription_id, expires_at)
        SELECT queue_id, CASE WHEN %(ordering_key)s::text IS NULL THEN 1 ELSE 0 END,
            coalesce(%(ordering_key)s::text, %(fairness_key)s::text), %(priority)s, message_id, 1,
            subscription_id, {expiry}
        FROM {source}
        ORDER BY message_id, subscription_id
        RETURNING queue_id, {unknown} AS id
"""
# A moment in the past means now. The database's clock decides.
_LATER = """
    due AS MATERIALIZED (
        SELECT coalesce(%(deliver_at)s::timestamptz,
            statement_timestamp() + %(delay)s::float8 * interval '1 second') AS at
    ),
    late AS (
        INSERT INTO messaging_scheduled (queue_id, priority, message_id, attempt, subscription_id,
            expires_at, joins_lane, due_at)
        SELECT queue_id, %(priority)s, message_id, 1, subscription_id, {expiry}, {joins_lane},
            due.at
        FROM receiver, due
        WHERE due.at > statement_timestamp()
        ORDER BY message_id, subscription_id
        RETURNING queue_id
    ),
    early AS ({place}),
    placed AS (
        SELECT queue_id, NULL::bigint AS id FROM late UNION ALL SELECT queue_id, id FROM early
    )
"""
_EARLY = "receiver, due WHERE due.at <= statement_timestamp()"
_RESULT = """
    SELECT (SELECT id FROM target), (SELECT obstacle FROM target),
           (SELECT is_limited FROM target), {ids},
           (SELECT array_agg(ARRAY[queue_id, first, number]) FROM
               (SELECT queue_id, min(id) AS first, count(*) AS number
                FROM placed GROUP BY queue_id) AS by_queue)
"""
_IDS = "(SELECT array_agg(id ORDER BY id) FROM stored)"
# In the order of the bodies, NULL for those stored before.
_FRESH_IDS = (
    "(SELECT array_agg(stored.id ORDER BY drawn.position) FROM drawn LEFT JOIN stored USING (id))"
)


def _publish(is_topic: bool, later: bool, by_key: bool, identity: Identity | None) -> str:
    names = {
        "owner": "topic_id" if is_topic else "queue_id",
        "columns": _COLUMNS,
        "values": _VALUES,
        "returned": _RETURNED[is_topic],
    }
    receiver = _to_subscribers("stored.body") if is_topic else _TO_QUEUE
    identified = ""
    if identity:
        scope, window = _SCOPES[is_topic, identity], _WINDOWS[identity]
        identified = _IDENTIFIED.format(scope=scope, window=f"({window})")
    return (
        f"WITH target AS MATERIALIZED ({_TOPIC if is_topic else _QUEUE}), "
        f"open AS MATERIALIZED ({_OPEN}), {identified} "
        f"stored AS ({(_STORED_FRESH if identity else _STORED).format(**names)}), "
        f"receiver AS ({receiver}), "
        f"{_placed(later, by_key)} {_RESULT.format(ids=_FRESH_IDS if identity else _IDS)}"
    )


def _to_subscribers(body: str) -> str:
    return _TO_SUBSCRIBERS.format(taken=condition("%(headers)s::jsonb", body))


def _placed(later: bool, by_key: bool) -> str:
    place = _PLACE_BY_KEY if by_key else _PLACE
    names = {"expiry": _EXPIRY, "unknown": f"{NOT_YET_KNOWN}::bigint"}
    if not later:
        return f"placed AS ({place.format(source='receiver', **names)})"
    early = place.format(source=_EARLY, **names)
    return _LATER.format(place=early, expiry=_EXPIRY, joins_lane="true" if by_key else "false")


# Put together from the constants above once, at import.
PUBLISH: dict[tuple[bool, bool, bool, Identity | None], Any] = {
    (is_topic, later, by_key, identity): _publish(is_topic, later, by_key, identity)
    for is_topic in (False, True)
    for later in (False, True)
    for by_key in (False, True)
    for identity in (None, Identity.WINDOW, Identity.SENDER)
}


# What COPY has to know before it begins.
_DRAW = """
    WITH target AS MATERIALIZED ({target})
    SELECT id, obstacle, is_limited, CASE WHEN obstacle IS NULL THEN ARRAY(
        SELECT nextval(pg_get_serial_sequence('messaging_message', 'id'))
        FROM generate_series(1, %(count)s)) END
    FROM target
"""
DRAW: dict[bool, Any] = {
    False: _DRAW.format(target=_QUEUE),
    True: _DRAW.format(target=_TOPIC),
}
COPY: dict[bool, Any] = {
    False: f"COPY messaging_message (id, queue_id, {_COLUMNS}) FROM STDIN",
    True: f"COPY messaging_message (id, topic_id, {_COLUMNS}) FROM STDIN",
}
# By the id of the queue or topic: the name could have gone to another since the ids were drawn.
_PLACE_COPIED = """
    WITH open AS (
        SELECT %(target)s::bigint AS id,
            (SELECT message_ttl FROM messaging_queue WHERE id = %(target)s::bigint) AS message_ttl
    ),
    stored AS (SELECT unnest(%(ids)s::bigint[]) AS id),
    receiver AS ({receiver}),
    {placed}
    SELECT queue_id, min(id), count(*) FROM placed GROUP BY queue_id
"""
# Looked up where a filter reads it, which may have come since the ids were drawn.
_COPIED_BODY = "(SELECT body FROM messaging_message WHERE messaging_message.id = stored.id)"
PLACE_COPIED: dict[tuple[bool, bool, bool], Any] = {
    (is_topic, later, by_key): _PLACE_COPIED.format(
        receiver=_to_subscribers(_COPIED_BODY) if is_topic else _TO_QUEUE,
        placed=_placed(later, by_key),
    )
    for is_topic in (False, True)
    for later in (False, True)
    for by_key in (False, True)
}


def values_of(outgoing: Outgoing) -> dict[str, Any]:
    """Return what every statement wants to know."""
    return {
        "name": outgoing.name,
        "is_identified": outgoing.deduplication_ids is not None,
        "headers": outgoing.headers,
        "priority": outgoing.priority,
        "ordering_key": outgoing.ordering_key,
        "fairness_key": outgoing.fairness_key,
        "correlation_id": outgoing.correlation_id,
        "causation_id": outgoing.causation_id,
        "reply_to": outgoing.reply_to,
        "source": outgoing.source,
        "delay": outgoing.delay,
        "deliver_at": outgoing.deliver_at,
        "expires_in": outgoing.expires_in,
        "schema_id": outgoing.schema_id,
    }
