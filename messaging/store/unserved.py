"""Find what has expired on queues that no worker serves, where no claim would notice it."""

import datetime
from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from ..messages import Delivered
from .connection import run
from .workers import SILENCE


class Unserved(NamedTuple):
    """A queue with messages, the database's clock, and when a worker of it was last alive."""

    queue_id: int
    now: datetime.datetime
    served_at: datetime.datetime | None


# One look into an index for each queue; whoever holds messages under leases consumes it as well.
UNSERVED = """
    SELECT queue.id, statement_timestamp(),
        (SELECT max(seen_at) FROM messaging_worker AS worker
         WHERE worker.queues @> to_jsonb(queue.name::text))
    FROM messaging_queue AS queue
    WHERE NOT EXISTS (
        SELECT FROM messaging_worker AS worker
        WHERE worker.queues @> to_jsonb(queue.name::text)
        AND worker.seen_at > statement_timestamp() - %(silence)s * interval '1 second')
    AND EXISTS (SELECT FROM messaging_delivery AS ready WHERE ready.queue_id = queue.id)
    AND NOT EXISTS (SELECT FROM messaging_lease AS held WHERE held.queue_id = queue.id)
"""


def unserved(connection: BaseDatabaseWrapper) -> list[Unserved]:
    """Return the queues on which messages are ready and that nobody consumes."""
    return [Unserved._make(row) for row in run(connection, UNSERVED, {"silence": SILENCE})]


# Looks at so many rows and no more. A worker that starts at this moment takes what is not locked
# here, and this skips what the worker has locked.
TAKE_READY = """
    WITH head AS MATERIALIZED (
        SELECT ctid, id, expires_at, lane_id FROM messaging_delivery
        WHERE queue_id = %(queue_id)s AND priority = %(priority)s AND id > %(after)s
        ORDER BY id LIMIT %(limit)s
    ),
    gone AS (
        DELETE FROM messaging_delivery WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messaging_delivery WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM head
                WHERE expires_at <= statement_timestamp() AND lane_id IS NULL))
            FOR UPDATE SKIP LOCKED))
        RETURNING id, queue_id, priority, message_id, attempt, subscription_id, expires_at
    )
    SELECT gone.*, NULL, NULL, NULL,
        (SELECT CASE WHEN count(*) = %(limit)s THEN max(id) END FROM head)
    FROM (SELECT) AS once LEFT JOIN gone ON true
"""
# The lane goes on without it: whoever claims its token finds what is left.
TAKE_ENTRIES = """
    WITH head AS MATERIALIZED (
        SELECT ctid, id, expires_at FROM messaging_laneentry
        WHERE queue_id = %(queue_id)s AND (lane_id, id) > (%(lane_id)s, %(after)s)
        ORDER BY lane_id, id LIMIT %(limit)s
    )
    DELETE FROM messaging_laneentry WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM messaging_laneentry WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM head WHERE expires_at <= statement_timestamp()))
        FOR UPDATE SKIP LOCKED))
    RETURNING id, queue_id, priority, message_id, attempt, subscription_id, expires_at, NULL, id,
        NULL
"""


def take_ready(
    connection: BaseDatabaseWrapper, queue_id: int, priority: int, after: int, limit: int
) -> tuple[list[Delivered], int | None]:
    """Take what has expired of the next deliveries; return it, and where to go on, if at all."""
    params = {"queue_id": queue_id, "priority": priority, "after": after, "limit": limit}
    rows = run(connection, TAKE_READY, params)
    return [Delivered._make(row[:10]) for row in rows if row[0] is not None], rows[0][10]


def take_entries(connection: BaseDatabaseWrapper, queue_id: int, limit: int) -> list[Delivered]:
    """Take what has expired of the first messages with a key."""
    params = {"queue_id": queue_id, "lane_id": 0, "after": 0, "limit": limit}
    return [Delivered._make(row) for row in run(connection, TAKE_ENTRIES, params)]
