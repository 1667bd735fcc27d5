"""Take messages from where they wait on a queue, for an operator."""

from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from ..messages import Delivered
from .connection import run

# Where a message is ready there is no index for it: all that is ready on the queue is looked at.
TAKE = """
    WITH ready AS (
        DELETE FROM messaging_delivery WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messaging_delivery
            WHERE queue_id = %(queue_id)s AND lane_id IS NULL
            AND message_id = ANY (%(ids)s::bigint[])
            ORDER BY priority, id FOR UPDATE SKIP LOCKED))
        RETURNING id, queue_id, priority, message_id, attempt, subscription_id, expires_at,
            NULL::bigint AS lane_id, NULL::bigint AS entry_id
    ),
    entry AS (
        DELETE FROM messaging_laneentry WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messaging_laneentry
            WHERE queue_id = %(queue_id)s AND message_id = ANY (%(ids)s::bigint[])
            ORDER BY lane_id, id FOR UPDATE SKIP LOCKED))
        RETURNING 0::bigint, queue_id, priority, message_id, attempt, subscription_id, expires_at,
            lane_id, id
    ),
    later AS (
        DELETE FROM messaging_scheduled WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messaging_scheduled
            WHERE message_id = ANY (%(ids)s::bigint[]) AND lane_id IS NULL
            AND queue_id = %(queue_id)s
            ORDER BY id FOR UPDATE SKIP LOCKED))
        RETURNING 0::bigint, queue_id, priority, message_id, attempt, subscription_id, expires_at,
            NULL::bigint, NULL::bigint
    )
    SELECT *, NULL::bigint FROM (
        SELECT * FROM ready UNION ALL SELECT * FROM entry UNION ALL SELECT * FROM later
    ) AS taken
    ORDER BY message_id
"""


def take(
    connection: BaseDatabaseWrapper, queue_id: int, message_ids: Sequence[int]
) -> list[Delivered]:
    """Take messages that are ready or scheduled, but for those that a worker has in hand."""
    rows = run(connection, TAKE, {"queue_id": queue_id, "ids": list(message_ids)})
    return [Delivered._make(row) for row in rows]
