"""Room: keep a queue within its max length.

A queue's row in ``messaging_room`` holds the room that may be taken without counting: a hundredth
of the max length at most, so that whatever else fills the queue meanwhile (a redrive, an expired
lease, a lower limit) takes it past its limit by no more than that. Only those who send to a limited
queue touch the row; it makes them wait for each other's commits, which exactness costs. A statement
takes its rows in the order of the queues; two transactions that send to two limited queues, one
after the other and in opposite orders, may deadlock: PostgreSQL ends one of them with an error. A
worker handles its message again, uncounted; other callers send in one order or try again.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import QueueFull
from ..messages import Delivered, Failure, Outcome, Settlement
from . import deadletters
from .connection import run

# Most that a sender removes beyond what it adds, when a limit was set on a queue far above it.
MOST_AT_ONCE = 1_000
# Up to here every message is counted; a queue that may be longer gives up a hundredth at a time.
COUNTED_EXACTLY = 10_000

# Takes the rows' locks in order, so that publishers to several queues do not wait for each other.
SPEND = """
    INSERT INTO messaging_room AS room (queue_id, free)
    SELECT queue.id, -need.number
    FROM unnest(%s::bigint[], %s::bigint[]) AS need (queue_id, number)
    JOIN messaging_queue AS queue ON queue.id = need.queue_id
    WHERE queue.max_length IS NOT NULL
    ORDER BY queue.id
    ON CONFLICT (queue_id) DO UPDATE
    SET free = excluded.free + least(room.free,
        (SELECT max_length / 100 FROM messaging_queue AS queue WHERE queue.id = room.queue_id))
    RETURNING queue_id, free
"""


class Short(NamedTuple):
    """A queue whose room did not suffice; ``length`` counts what was just added, up to a bound."""

    queue_id: int
    name: str
    limit: int
    overflow: str
    length: int


def take(connection: BaseDatabaseWrapper, placed: Sequence[Sequence[Any]]) -> None:
    """Take the room of what was just stored, or make it; raise QueueFull where that is forbidden.

    Runs in a block that an error rolls back.
    """
    added = {queue_id: count for queue_id, _, count in placed}
    spent = run(connection, SPEND, (list(added), list(added.values())))
    short = [_count(connection, queue_id, added[queue_id]) for queue_id, free in spent if free < 0]
    for queue in short:
        if queue.overflow == "reject" and queue.length > queue.limit:
            raise QueueFull(queue.name, queue.limit)
    for queue in short:
        excess = queue.length - queue.limit
        if excess > 0:
            spare = queue.limit // 100 if queue.limit > COUNTED_EXACTLY else 0
            excess -= _drop(connection, queue, excess + spare)
        free = max(0, min(-excess, queue.limit // 100))
        run(connection, SET_FREE, (free, queue.queue_id))


SET_FREE = "UPDATE messaging_room SET free = %s WHERE queue_id = %s"

# What waits, wherever: not the tokens of lanes, which stand for what is counted as their entries,
# and of the keys only this transaction's own arrivals can be seen.
COUNT = """
    SELECT queue.id, queue.name, queue.max_length, queue.overflow, (
        SELECT count(*) FROM (
            SELECT FROM messaging_delivery WHERE queue_id = queue.id AND lane_id IS NULL
            UNION ALL
            SELECT FROM messaging_laneentry WHERE queue_id = queue.id
            UNION ALL
            SELECT FROM messaging_scheduled WHERE queue_id = queue.id AND lane_id IS NULL
            UNION ALL
            SELECT FROM messaging_arrival
            WHERE queue_id = queue.id AND transaction = pg_current_xact_id()
            LIMIT queue.max_length + %s) AS waiting)
    FROM messaging_queue AS queue WHERE queue.id = %s
"""


def _count(connection: BaseDatabaseWrapper, queue_id: int, added: int) -> Short:
    return Short._make(run(connection, COUNT, (added + MOST_AT_ONCE, queue_id))[0])


# Of the lowest priority that waits, what has waited longest, so that an urgent message never makes
# way for a lesser one. What a worker has in its hands is left to it.
DROP = """
    WITH ready AS MATERIALIZED (
        SELECT 1 AS place, ctid AS row, priority, message_id, id FROM messaging_delivery
        WHERE queue_id = %(queue_id)s AND lane_id IS NULL
        ORDER BY priority, id LIMIT %(number)s FOR UPDATE SKIP LOCKED
    ),
    keyed AS MATERIALIZED (
        SELECT 2 AS place, ctid AS row, priority, message_id, id FROM messaging_laneentry
        WHERE queue_id = %(queue_id)s
        ORDER BY priority, message_id LIMIT %(number)s FOR UPDATE SKIP LOCKED
    ),
    later AS MATERIALIZED (
        SELECT 3 AS place, ctid AS row, priority, message_id, id FROM messaging_scheduled
        WHERE queue_id = %(queue_id)s AND lane_id IS NULL
        ORDER BY priority, message_id LIMIT %(number)s FOR UPDATE SKIP LOCKED
    ),
    arriving AS MATERIALIZED (
        SELECT 4 AS place, ctid AS row, priority, message_id, id FROM messaging_arrival
        WHERE queue_id = %(queue_id)s AND transaction = pg_current_xact_id()
        ORDER BY priority, message_id LIMIT %(number)s
    ),
    oldest AS MATERIALIZED (
        SELECT * FROM (TABLE ready UNION ALL TABLE keyed UNION ALL TABLE later
                       UNION ALL TABLE arriving) AS waiting
        ORDER BY priority, message_id, id LIMIT %(number)s
    ),
    gone_ready AS (
        DELETE FROM messaging_delivery
        WHERE ctid = ANY (ARRAY(SELECT row FROM oldest WHERE place = 1))
        RETURNING message_id, priority, attempt, subscription_id, NULL::bigint AS entry_id
    ),
    gone_keyed AS (
        DELETE FROM messaging_laneentry
        WHERE ctid = ANY (ARRAY(SELECT row FROM oldest WHERE place = 2))
        RETURNING message_id, priority, attempt, subscription_id, id AS entry_id
    ),
    gone_later AS (
        DELETE FROM messaging_scheduled
        WHERE ctid = ANY (ARRAY(SELECT row FROM oldest WHERE place = 3))
        RETURNING message_id, priority, attempt, subscription_id, NULL::bigint AS entry_id
    ),
    gone_arriving AS (
        DELETE FROM messaging_arrival
        WHERE ctid = ANY (ARRAY(SELECT row FROM oldest WHERE place = 4))
        RETURNING message_id, priority, attempt, subscription_id, NULL::bigint AS entry_id
    )
    SELECT message_id, priority, attempt, subscription_id, entry_id FROM (
        TABLE gone_ready UNION ALL TABLE gone_keyed UNION ALL TABLE gone_later
        UNION ALL TABLE gone_arriving) AS gone
    ORDER BY message_id
"""

# Of no process in particular: what the sender rolls back was never dropped.
RECORD = "INSERT INTO messaging_stat (process, queue_id, dead, dropped) VALUES ('', %s, %s, %s)"


def _drop(connection: BaseDatabaseWrapper, queue: Short, number: int) -> int:
    """Remove the oldest, which become dead letters if the queue says so; return how many went."""
    rows = run(connection, DROP, {"queue_id": queue.queue_id, "number": number})
    kept = queue.overflow == "dead_letter_oldest"
    if rows:
        counts = (queue.queue_id, len(rows) if kept else 0, 0 if kept else len(rows))
        run(connection, RECORD, counts)
    if kept and rows:
        failure = Failure(
            error="QueueFull",
            description=f"Removed to make room: {queue.name} holds at most {queue.limit:,} "
            f"messages.",
            traceback="",
            fingerprint="",
        )
        dead = [_dead(queue, failure, *row) for row in rows]
        deadletters.bury(connection, dead)
        deadletters.record_attempts(connection, dead, "")
    return len(rows)


def _dead(
    queue: Short,
    failure: Failure,
    message_id: int,
    priority: int,
    attempt: int,
    subscription_id: int | None,
    entry_id: int | None,
) -> Outcome:
    delivered = Delivered(
        id=0,
        queue_id=queue.queue_id,
        priority=priority,
        message_id=message_id,
        attempt=attempt - 1,  # how often it was delivered
        subscription_id=subscription_id,
        entry_id=entry_id,
    )
    return Outcome(delivered, Settlement.DEAD, reason="max_length", failure=failure)
