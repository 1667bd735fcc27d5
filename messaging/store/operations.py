"""Release and cancel what is scheduled, and find dead letters, for operators."""

from collections.abc import Sequence

from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors

from ..messages import Delivered
from .connection import Rows, run

# Of a lane's token, which is no delivery, nothing is done here. What joins a lane does so at the
# commit, like what is published with a key.
RELEASE = """
    WITH moved AS (
        DELETE FROM messaging_scheduled
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messaging_scheduled
            WHERE id = ANY (%(ids)s::bigint[]) AND lane_id IS NULL
            ORDER BY id
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING queue_id, priority, message_id, attempt, subscription_id, expires_at, due_at, id,
            joins_lane
    ),
    placed AS (
        INSERT INTO messaging_delivery
            (queue_id, priority, message_id, attempt, subscription_id, expires_at)
        SELECT queue_id, priority, message_id, attempt, subscription_id, expires_at
        FROM moved WHERE NOT joins_lane
        ORDER BY due_at, id
        RETURNING queue_id, priority, id
    ),
    joining AS (
        INSERT INTO messaging_arrival (queue_id, kind, key, priority, message_id, attempt,
            subscription_id, expires_at)
        SELECT moved.queue_id, CASE WHEN message.ordering_key IS NULL THEN 1 ELSE 0 END,
            coalesce(message.ordering_key, message.fairness_key), moved.priority,
            moved.message_id, moved.attempt, moved.subscription_id, moved.expires_at
        FROM moved JOIN messaging_message AS message ON message.id = moved.message_id
        WHERE moved.joins_lane
        ORDER BY moved.due_at, moved.id
        RETURNING queue_id, priority
    )
    SELECT queue_id, priority, min(id), count(*) FROM placed GROUP BY queue_id, priority
    UNION ALL
    SELECT queue_id, priority, NULL, count(*) FROM joining GROUP BY queue_id, priority
"""


def release(connection: BaseDatabaseWrapper, ids: Sequence[int]) -> Rows:
    """Make scheduled deliveries ready; return (queue, priority, first id, count) groups.

    The first id is None where messages join their lanes.
    """
    return run(connection, RELEASE, {"ids": list(ids)})


CANCEL = """
    DELETE FROM messaging_scheduled
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM messaging_scheduled
        WHERE id = ANY (%(ids)s::bigint[]) AND lane_id IS NULL
        ORDER BY id FOR UPDATE SKIP LOCKED
    ))
    RETURNING queue_id, message_id
"""


def cancel(connection: BaseDatabaseWrapper, ids: Sequence[int]) -> Rows:
    """Delete scheduled deliveries; return the (queue, message) of those that existed."""
    return run(connection, CANCEL, {"ids": list(ids)})


# Waits for whoever makes one of them ready at this moment: the answer is then what came of it.
CANCEL_MESSAGE = """
    DELETE FROM messaging_scheduled
    WHERE id = ANY (ARRAY(
        SELECT id FROM messaging_scheduled
        WHERE message_id = %(message_id)s AND lane_id IS NULL
        ORDER BY id FOR UPDATE
    ))
    RETURNING queue_id, message_id
"""


def cancel_message(connection: BaseDatabaseWrapper, message_id: int) -> Rows:
    """Delete the scheduled deliveries of a message; return the (queue, message) of each."""
    return run(connection, CANCEL_MESSAGE, {"message_id": message_id})


# Two scans in the order of their own indexes; an OR would read and sort all of both.
DEAD_OF_QUEUE = """
    (SELECT id FROM messaging_deadletter
     WHERE (queue_id, id) > (%(queue_id)s, %(after)s)
     AND (queue_id, id) <= (%(queue_id)s, %(upto)s)
     ORDER BY queue_id, id LIMIT %(limit)s)
    UNION
    (SELECT id FROM messaging_deadletter
     WHERE (origin_id, id) > (%(queue_id)s, %(after)s)
     AND (origin_id, id) <= (%(queue_id)s, %(upto)s)
     ORDER BY origin_id, id LIMIT %(limit)s)
    ORDER BY id LIMIT %(limit)s
"""


def dead_of_queue(
    connection: BaseDatabaseWrapper, queue_id: int, *, after: int, upto: int, limit: int
) -> list[int]:
    """Return the next ids of dead letters that are held in a queue or come from it."""
    params = {"queue_id": queue_id, "after": after, "upto": upto, "limit": limit}
    return [dead_id for (dead_id,) in run(connection, DEAD_OF_QUEUE, params)]


END_LEASES = """
    DELETE FROM messaging_lease WHERE id = ANY (ARRAY(
        SELECT id FROM messaging_lease WHERE id = ANY (%(ids)s::bigint[])
        ORDER BY id FOR UPDATE SKIP LOCKED))
    RETURNING id, queue_id, priority, message_id, attempt, subscription_id, expires_at, lane_id,
        entry_id, token
"""


def end_leases(connection: BaseDatabaseWrapper, ids: Sequence[int]) -> list[Delivered]:
    """Take deliveries from whoever holds them; return those that nobody is settling."""
    rows = run(connection, END_LEASES, {"ids": list(ids)})
    return [Delivered._make(row) for row in rows]


def was_cancelled(error: OperationalError) -> bool:
    """Tell whether the server gave a statement up because it took too long."""
    return isinstance(error.__cause__, errors.QueryCanceled)


def limit_time(connection: BaseDatabaseWrapper, seconds: float) -> None:
    """Have the server give up each statement of this transaction that takes longer."""
    run(
        connection, "SELECT set_config('statement_timeout', %s, true)", (f"{seconds * 1000:.0f}ms",)
    )
