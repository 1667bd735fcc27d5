"""Peek: see what is next in a queue, in the order of delivery, without a lock."""

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run
from .searching import Row

# One look-up a priority, as a claim does it. A token stands for the next entry of its lane, the
# second token of a fairness key for the second one.
NEXT: Any = """
    WITH RECURSIVE level AS (
        (SELECT priority FROM messaging_delivery
         WHERE queue_id = %(queue_id)s ORDER BY priority DESC LIMIT 1)
        UNION ALL
        SELECT (SELECT priority FROM messaging_delivery
                WHERE queue_id = %(queue_id)s AND priority < level.priority
                ORDER BY priority DESC LIMIT 1)
        FROM level WHERE level.priority IS NOT NULL
    ),
    ready AS (
        SELECT ready.*, row_number() OVER turns AS number,
            row_number() OVER (PARTITION BY ready.lane_id ORDER BY ready.priority DESC, ready.id)
                AS turn
        FROM level CROSS JOIN LATERAL (
            SELECT * FROM messaging_delivery
            WHERE queue_id = %(queue_id)s AND priority = level.priority
            ORDER BY id LIMIT %(look)s
        ) AS ready
        WINDOW turns AS (ORDER BY ready.priority DESC, ready.id)
    ),
    following AS (
        SELECT number, id, message_id, priority, attempt, subscription_id, expires_at
        FROM ready WHERE lane_id IS NULL
        UNION ALL
        SELECT ready.number, entry.* FROM ready CROSS JOIN LATERAL (
            SELECT id, message_id, priority, attempt, subscription_id, expires_at
            FROM messaging_laneentry
            WHERE queue_id = %(queue_id)s AND lane_id = ready.lane_id
            ORDER BY id OFFSET ready.turn - 1 LIMIT 1
        ) AS entry
        WHERE ready.lane_id IS NOT NULL
        ORDER BY number LIMIT %(limit)s
    )
    SELECT row_number() OVER (ORDER BY following.number), %(queue_id)s::bigint, NULL,
        following.id, following.message_id, following.priority, following.attempt,
        following.subscription_id, following.expires_at, NULL, '', queue.name,
        coalesce(topic.name, ''), coalesce(message.ordering_key, message.fairness_key, ''),
        coalesce((SELECT concat_ws(': ', nullif(attempt.error, ''),
                nullif(attempt.description, ''))
            FROM messaging_attempt AS attempt
            WHERE attempt.message_id = following.message_id
            AND attempt.queue_id = %(queue_id)s ORDER BY attempt.id DESC LIMIT 1), ''),
        message.published_at, message.headers::text, message.body::text
    FROM following
    JOIN messaging_queue AS queue ON queue.id = %(queue_id)s
    LEFT JOIN messaging_message AS message ON message.id = following.message_id
    LEFT JOIN messaging_topic AS topic ON topic.id = message.topic_id
    ORDER BY following.number
"""


def next_of(connection: BaseDatabaseWrapper, queue_id: int, limit: int) -> list[Row]:
    """Return the messages that are next in a queue."""
    # Tokens that find nothing do not count, so a few more are looked at.
    params = {"queue_id": queue_id, "limit": limit, "look": limit + 100}
    return [Row._make(row) for row in run(connection, NEXT, params)]
