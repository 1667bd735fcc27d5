"""Find out where a message waits, looking at a bounded part of each queue."""

from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run

# Where there is no index by message, this many rows of a queue or a lane are looked at.
LOOKED_AT = 10_000
# So many queues of a topic.
QUEUES = 100


class Place(NamedTuple):
    """One queue where a message waits: "ready", "key", "scheduled" or "leased".

    ``at``: since when its key is parked, when it is due, or until when it is held. ``by`` is who
    holds it, or the key. ``number`` of the delivery, from 1.
    """

    state: str
    queue: str
    at: Any
    by: str
    number: int


WHEREABOUTS = """
    WITH message AS (
        SELECT id, queue_id, topic_id, coalesce(ordering_key, fairness_key) AS key,
            CASE WHEN ordering_key IS NULL THEN 1 ELSE 0 END AS kind
        FROM messaging_message WHERE id = %(message_id)s
    ),
    queue AS MATERIALIZED (
        SELECT queue_id AS id FROM message WHERE queue_id IS NOT NULL
        UNION
        (SELECT binding.queue_id FROM messaging_binding AS binding
         JOIN message ON message.topic_id = binding.topic_id LIMIT %(queues)s)
    ),
    place AS (
        SELECT 'ready' AS state, queue.id AS queue_id, NULL::timestamptz AS at, '' AS by,
            ready.attempt
        FROM queue CROSS JOIN LATERAL (
            SELECT message_id, attempt FROM messaging_delivery
            WHERE queue_id = queue.id ORDER BY queue_id, priority, id LIMIT %(bound)s
        ) AS ready
        WHERE ready.message_id = %(message_id)s
        UNION ALL
        SELECT 'key', lane.queue_id, lane.parked_at, lane.key, entry.attempt
        FROM message JOIN messaging_lane AS lane
            ON lane.queue_id IN (SELECT id FROM queue)
            AND lane.kind = message.kind AND lane.key = message.key
        CROSS JOIN LATERAL (
            SELECT message_id, attempt FROM messaging_laneentry
            WHERE queue_id = lane.queue_id AND lane_id = lane.id ORDER BY id LIMIT %(bound)s
        ) AS entry
        WHERE entry.message_id = %(message_id)s
        UNION ALL
        SELECT 'scheduled', queue_id, due_at, '', attempt
        FROM messaging_scheduled WHERE message_id = %(message_id)s
        UNION ALL
        SELECT 'leased', queue_id, leased_until, worker, attempt
        FROM messaging_lease WHERE message_id = %(message_id)s
    )
    SELECT place.state, coalesce(queue.name, ''), place.at, place.by, place.attempt
    FROM place LEFT JOIN messaging_queue AS queue ON queue.id = place.queue_id
    ORDER BY queue.name, place.state LIMIT %(queues)s
"""


def places(connection: BaseDatabaseWrapper, message_id: int) -> list[Place]:
    """Return where a message waits, as far as that is seen; nothing where it has been handled."""
    params = {"message_id": message_id, "bound": LOOKED_AT, "queues": QUEUES}
    return [Place._make(row) for row in run(connection, WHEREABOUTS, params)]
