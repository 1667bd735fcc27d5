"""Find the keys that are set aside, and give them their tokens back."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import Rows, run


class Parked(NamedTuple):
    """A key that is set aside since ``parked_at``; of more than 10,000 messages, 10,001 wait."""

    key: str
    parked_at: Any
    waiting: int


PARKED = """
    SELECT lane.key, lane.parked_at,
        (SELECT count(*) FROM (SELECT FROM messaging_laneentry AS entry
            WHERE entry.queue_id = %(queue_id)s AND entry.lane_id = lane.id
            ORDER BY entry.id LIMIT 10001) AS bounded)
    FROM messaging_lane AS lane
    WHERE lane.queue_id = %(queue_id)s AND lane.parked_at IS NOT NULL
    ORDER BY lane.id LIMIT %(limit)s
"""


def parked(connection: BaseDatabaseWrapper, queue_id: int, limit: int) -> list[Parked]:
    """Return the keys of a queue that are set aside, those longest known first."""
    rows = run(connection, PARKED, {"queue_id": queue_id, "limit": limit})
    return [Parked._make(row) for row in rows]


WAITING = """
    SELECT lane.id,
        (SELECT count(*) FROM (SELECT FROM messaging_laneentry AS entry
            WHERE entry.queue_id = lane.queue_id AND entry.lane_id = lane.id
            ORDER BY entry.id LIMIT %(limit)s) AS bounded)
    FROM messaging_lane AS lane WHERE lane.id = ANY (%(ids)s::bigint[])
"""


def waiting(connection: BaseDatabaseWrapper, lane_ids: Sequence[int], limit: int) -> dict[int, int]:
    """Return how many messages wait in each lane, at most ``limit``."""
    return dict(run(connection, WAITING, {"ids": list(lane_ids), "limit": limit}))


LANES_OF = "SELECT id FROM messaging_lane WHERE queue_id = %s AND key = %s ORDER BY id"


def lanes_of(connection: BaseDatabaseWrapper, queue_id: int, key: str) -> list[int]:
    """Return the lanes of a key, whatever its kind."""
    return [lane_id for (lane_id,) in run(connection, LANES_OF, (queue_id, key))]


# The lane first, so that of two who release it one finds it parked; and in a statement of its own,
# since the next one has to see what publishers committed until the lock was granted.
UNPARK = """
    UPDATE messaging_lane SET parked_at = NULL WHERE id = ANY (ARRAY(
        SELECT id FROM messaging_lane
        WHERE id = ANY (%s::bigint[]) AND parked_at IS NOT NULL
        ORDER BY queue_id, kind, key FOR UPDATE))
    RETURNING id
"""
# What has nothing to deliver ends instead.
GIVE_TOKENS = """
    WITH lane AS MATERIALIZED (
        SELECT lane.id, lane.queue_id,
            (SELECT entry.priority FROM messaging_laneentry AS entry
             WHERE entry.queue_id = lane.queue_id AND entry.lane_id = lane.id
             ORDER BY entry.id LIMIT 1) AS head
        FROM messaging_lane AS lane WHERE lane.id = ANY (%(ids)s::bigint[])
    ),
    ended AS (
        DELETE FROM messaging_lane AS known USING lane
        WHERE known.id = lane.id AND lane.head IS NULL
    ),
    served AS (
        UPDATE messaging_lane AS known SET tokens = 1 FROM lane
        WHERE known.id = lane.id AND lane.head IS NOT NULL
    ),
    token AS (
        INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt, lane_id)
        SELECT queue_id, head, 0, 1, id FROM lane WHERE head IS NOT NULL ORDER BY id
        RETURNING queue_id, priority, id
    )
    SELECT queue_id, priority, min(id), count(*) FROM token GROUP BY queue_id, priority
"""
# The key waits for a retry: its token is scheduled.
HURRY = """
    WITH moved AS (
        DELETE FROM messaging_scheduled WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messaging_scheduled
            WHERE message_id = 0 AND lane_id = ANY (%(ids)s::bigint[])
            ORDER BY id FOR UPDATE SKIP LOCKED))
        RETURNING queue_id, priority, lane_id
    ),
    token AS (
        INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt, lane_id)
        SELECT queue_id, priority, 0, 1, lane_id FROM moved ORDER BY lane_id
        RETURNING queue_id, priority, id
    )
    SELECT queue_id, priority, min(id), count(*) FROM token GROUP BY queue_id, priority
"""


def release(connection: BaseDatabaseWrapper, lane_ids: Sequence[int]) -> tuple[int, Rows]:
    """Let lanes that are parked or wait for a retry go on; return how many did, and their tokens.

    The tokens are (queue, priority, first id, count) groups.
    """
    unparked = [lane_id for (lane_id,) in run(connection, UNPARK, (list(lane_ids),))]
    rows = run(connection, GIVE_TOKENS, {"ids": unparked}) if unparked else []
    waiting = run(connection, HURRY, {"ids": list(lane_ids)})
    return len(unparked) + sum(count for *_, count in waiting), rows + waiting
