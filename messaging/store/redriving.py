"""Redrive dead letters: have them wait again, each at its old place where it has one."""

from collections.abc import Sequence
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import Rows, run
from .retention import keep_log

# Where a dead letter would go is the queue asked for, or the one that it comes from. What is held
# by the very queue that it would go to, without having come from there, would only go in a circle.
HOME = """
    SELECT coalesce(%(to)s::bigint, dead.origin_id)
    WHERE dead.queue_id IS DISTINCT FROM %(to)s::bigint OR dead.origin_id = %(to)s::bigint
"""
# One statement: whoever deletes the dead letter inserts its delivery, so that doing it twice moves
# it once. A message that retention took from the log is put back into it under its old id, as of
# the oldest transaction, so that it is no news to the readers of its topic. What comes from a queue
# that no longer exists stays.
# Of a lane everything is as in migration 0004, which says why: locks in order, then the ids. The
# sign of "added" tells whether the lane is unparked: what parked it comes back to its place.
REDRIVE: Any = """
    WITH chosen AS MATERIALIZED (
        DELETE FROM messaging_deadletter AS dead
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messaging_deadletter AS dead
            WHERE id = ANY (%(ids)s::bigint[])
            AND EXISTS (SELECT FROM messaging_queue AS queue WHERE queue.id = ({home}))
            ORDER BY id
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING *
    ),
    noted AS (
        INSERT INTO messaging_edit (message_id, what, headers, edited_by)
        SELECT message_id, 'redriven', '{}', %(by)s FROM chosen ORDER BY id
    ),
    bound AS MATERIALIZED (
        SELECT chosen.id, chosen.message_id, chosen.priority, queue.id AS queue_id,
            CASE WHEN chosen.ordering_key IS NULL THEN 1 ELSE 0 END AS kind,
            coalesce(chosen.ordering_key, chosen.fairness_key) AS key,
            CASE WHEN queue.id = chosen.origin_id AND chosen.ordering_key IS NOT NULL
                THEN chosen.entry_id END AS entry_id,
            CASE WHEN queue.id = chosen.origin_id THEN chosen.subscription_id END
                AS subscription_id,
            statement_timestamp() + queue.message_ttl * interval '1 second' AS expires_at
        FROM chosen JOIN messaging_queue AS queue
            ON queue.id = coalesce(%(to)s::bigint, chosen.origin_id)
    ),
    restored AS (
        INSERT INTO messaging_message (id, queue_id, topic_id, ordering_key, fairness_key,
            correlation_id, causation_id, reply_to, headers, body, published_at, transaction)
        SELECT message_id, CASE WHEN topic_id IS NULL THEN origin_id END, topic_id, ordering_key,
            fairness_key, correlation_id, causation_id, reply_to, headers, coalesce(body, 'null'),
            published_at, '1'
        FROM chosen
        WHERE NOT EXISTS (
            SELECT FROM messaging_message AS message WHERE message.id = chosen.message_id)
        ON CONFLICT (id) DO NOTHING
    ),
    placed AS (
        INSERT INTO messaging_delivery
            (queue_id, priority, message_id, attempt, subscription_id, expires_at)
        SELECT queue_id, priority, message_id, 1, subscription_id, expires_at
        FROM bound WHERE key IS NULL ORDER BY id
        RETURNING queue_id, priority, id
    ),
    wanted AS (
        SELECT queue_id, kind, key, bool_or(entry_id IS NOT NULL) AS unparks,
            least(count(*), CASE kind WHEN 0 THEN 1 ELSE 8 END)::smallint AS tokens
        FROM bound WHERE key IS NOT NULL GROUP BY queue_id, kind, key
    ),
    lane AS (
        INSERT INTO messaging_lane AS known (queue_id, kind, key, tokens, added)
        SELECT queue_id, kind, key, tokens, CASE WHEN unparks THEN tokens ELSE -tokens END
        FROM wanted ORDER BY queue_id, kind, key
        ON CONFLICT (queue_id, kind, key) DO UPDATE SET
            added = CASE WHEN known.parked_at IS NULL OR excluded.added > 0
                THEN least(excluded.tokens, CASE known.kind WHEN 0 THEN 1 ELSE 8 END - known.tokens)
                ELSE 0 END,
            tokens = CASE WHEN known.parked_at IS NULL OR excluded.added > 0
                THEN least(known.tokens + excluded.tokens, CASE known.kind WHEN 0 THEN 1 ELSE 8 END)
                ELSE known.tokens END,
            parked_at = CASE WHEN excluded.added > 0 THEN NULL ELSE known.parked_at END
        RETURNING id, queue_id, kind, key, abs(added) AS added
    ),
    entry AS (
        INSERT INTO messaging_laneentry (id, queue_id, lane_id, priority, message_id, attempt,
            subscription_id, expires_at)
        SELECT coalesce(entry_id, nextval(pg_get_serial_sequence('messaging_laneentry', 'id'))),
            queue_id, lane_id, priority, message_id, 1, subscription_id, expires_at
        FROM (
            SELECT bound.*, lane.id AS lane_id FROM bound JOIN lane USING (queue_id, kind, key)
            ORDER BY bound.entry_id, bound.id
        ) AS in_order
        RETURNING queue_id, priority
    ),
    token AS (
        INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt, lane_id)
        SELECT lane.queue_id,
            (SELECT bound.priority FROM bound
             WHERE (bound.queue_id, bound.kind, bound.key) = (lane.queue_id, lane.kind, lane.key)
             ORDER BY bound.entry_id, bound.id LIMIT 1),
            0, 1, lane.id
        FROM lane, generate_series(1, lane.added)
        RETURNING queue_id, priority, id
    )
    SELECT queue_id, priority, min(id), count(*) FROM placed GROUP BY queue_id, priority
    UNION ALL
    SELECT queue_id, priority, min(id), 0 FROM token GROUP BY queue_id, priority
    UNION ALL
    SELECT queue_id, priority, NULL, count(*) FROM entry GROUP BY queue_id, priority
""".replace("{home}", HOME)


def redrive(
    connection: BaseDatabaseWrapper, ids: Sequence[int], to: int | None = None, *, by: str = ""
) -> Rows:
    """Move dead letters to the queue given, or back; return (queue, priority, first id, count).

    The first id is None, or the count 0, of what is in lanes and its tokens. The timeline of each
    message has who did it.
    """
    params = {"ids": list(ids), "to": to, "by": by[:150]}
    with transaction.atomic(using=connection.alias, savepoint=False):
        keep_log(connection)
        return run(connection, REDRIVE, params)


STUCK: Any = """
    SELECT count(*) FILTER (WHERE NOT EXISTS (
            SELECT FROM messaging_queue AS queue WHERE queue.id = dead.origin_id)),
        count(*) FILTER (WHERE dead.queue_id = %(to)s::bigint AND dead.origin_id <> dead.queue_id)
    FROM messaging_deadletter AS dead WHERE dead.id = ANY (%(ids)s::bigint[])
"""


def stuck(
    connection: BaseDatabaseWrapper, ids: Sequence[int], to: int | None = None
) -> tuple[int, int]:
    """Return how many of these dead letters have lost their queue, and are held by ``to``."""
    homeless, held = run(connection, STUCK, {"ids": list(ids), "to": to})[0]
    return (0 if to is not None else homeless), held
