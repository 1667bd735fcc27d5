"""Take messages that were selected from where they wait, and have them wait on another queue."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import QueueDisabled, UnknownQueue
from .connection import Rows, run
from .searching import KEYED, READY, SCHEDULED, Row, Section


class Taken(NamedTuple):
    """A message that waits nowhere any more, until this transaction has it wait again."""

    place: Any
    id: int
    message_id: int
    priority: int
    expires_at: Any
    due_at: Any
    subscription_id: int | None = None


# By all columns of the index, one look-up a row. What somebody has in hand is locked and left.
TAKE: dict[Section, Any] = {
    READY: """
        DELETE FROM messaging_delivery WHERE ctid = ANY (ARRAY(
            SELECT waiting.ctid
            FROM unnest(%(places)s::smallint[], %(ids)s::bigint[]) AS chosen (place, id)
            JOIN messaging_delivery AS waiting ON waiting.queue_id = %(queue_id)s
                AND waiting.priority = chosen.place AND waiting.id = chosen.id
            WHERE waiting.lane_id IS NULL
            ORDER BY waiting.priority, waiting.id FOR UPDATE OF waiting SKIP LOCKED))
        RETURNING priority, id, message_id, priority, expires_at, NULL::timestamptz
    """,
    KEYED: """
        DELETE FROM messaging_laneentry WHERE ctid = ANY (ARRAY(
            SELECT waiting.ctid
            FROM unnest(%(places)s::bigint[], %(ids)s::bigint[]) AS chosen (place, id)
            JOIN messaging_laneentry AS waiting ON waiting.queue_id = %(queue_id)s
                AND waiting.lane_id = chosen.place AND waiting.id = chosen.id
            ORDER BY waiting.lane_id, waiting.id FOR UPDATE OF waiting SKIP LOCKED))
        RETURNING lane_id, id, message_id, priority, expires_at, NULL::timestamptz
    """,
    SCHEDULED: """
        DELETE FROM messaging_scheduled WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messaging_scheduled
            WHERE id = ANY (%(ids)s::bigint[]) AND queue_id = %(queue_id)s AND lane_id IS NULL
            ORDER BY id FOR UPDATE SKIP LOCKED))
        RETURNING due_at, id, message_id, priority, expires_at, due_at
    """,
}


def take(
    connection: BaseDatabaseWrapper, section: Section, queue_id: int, rows: Sequence[Row]
) -> list[Taken]:
    """Remove rows from where they wait; return those that were there, in the order of delivery.

    The tokens of lanes stay: whoever claims one finds what is left, or ends the lane.
    """
    params = {
        "queue_id": queue_id,
        "ids": [row.id for row in rows],
        "places": [] if section is SCHEDULED else [int(row.place) for row in rows],
    }
    taken = [Taken(*row) for row in run(connection, TAKE[section], params)]
    return sorted(taken, key=lambda each: each[:2])


# The lock lets nobody delete the queue meanwhile. Senders to it are to count again, because what is
# moved here takes the room that they were promised.
TARGET = "SELECT name, disabled_at IS NOT NULL FROM messaging_queue WHERE id = %s FOR KEY SHARE"
RECOUNT = "UPDATE messaging_room SET free = 0 WHERE queue_id = %s"
# What has a key joins its lane at the commit, like what is published. The smaller expiry wins.
PLACE = """
    WITH given AS MATERIALIZED (
        SELECT given.message_id, given.priority, given.due_at, given.position,
            given.subscription_id,
            least(given.expires_at,
                statement_timestamp() + queue.message_ttl * interval '1 second') AS expires_at,
            coalesce(message.ordering_key, message.fairness_key) AS key,
            CASE WHEN message.ordering_key IS NULL THEN 1 ELSE 0 END AS kind
        FROM unnest(%(message_ids)s::bigint[], %(priorities)s::smallint[],
            %(expiries)s::timestamptz[], %(dues)s::timestamptz[], %(subscriptions)s::bigint[])
            WITH ORDINALITY AS given
                (message_id, priority, expires_at, due_at, subscription_id, position)
        JOIN messaging_queue AS queue ON queue.id = %(to)s
        LEFT JOIN messaging_message AS message ON message.id = given.message_id
    ),
    ready AS (
        INSERT INTO messaging_delivery
            (queue_id, priority, message_id, attempt, subscription_id, expires_at)
        SELECT %(to)s, priority, message_id, 1, subscription_id, expires_at FROM given
        WHERE due_at IS NULL AND key IS NULL ORDER BY position
        RETURNING queue_id, priority, id
    ),
    joining AS (
        INSERT INTO messaging_arrival
            (queue_id, kind, key, priority, message_id, attempt, subscription_id, expires_at)
        SELECT %(to)s, kind, key, priority, message_id, 1, subscription_id, expires_at FROM given
        WHERE due_at IS NULL AND key IS NOT NULL ORDER BY position
        RETURNING queue_id, priority
    ),
    later AS (
        INSERT INTO messaging_scheduled
            (queue_id, priority, message_id, attempt, subscription_id, expires_at, due_at,
                joins_lane)
        SELECT %(to)s, priority, message_id, 1, subscription_id, expires_at, due_at,
            key IS NOT NULL FROM given
        WHERE due_at IS NOT NULL ORDER BY position
    )
    SELECT queue_id, priority, min(id), count(*) FROM ready GROUP BY queue_id, priority
    UNION ALL
    SELECT queue_id, priority, NULL, count(*) FROM joining GROUP BY queue_id, priority
"""


def place(connection: BaseDatabaseWrapper, to: int, taken: Sequence[Taken]) -> Rows:
    """Have messages wait on a queue as new; return (queue, priority, first id, count) groups.

    What was due later stays so. Raises UnknownQueue when the queue is gone, QueueDisabled when it
    accepts nothing.
    """
    target = run(connection, TARGET, (to,))
    if not target:
        raise UnknownQueue(f"number {to}")
    ((name, is_disabled),) = target
    if is_disabled:
        raise QueueDisabled(name)
    run(connection, RECOUNT, (to,))
    params = {
        "to": to,
        "message_ids": [each.message_id for each in taken],
        "priorities": [each.priority for each in taken],
        "expiries": [each.expires_at for each in taken],
        "dues": [each.due_at for each in taken],
        "subscriptions": [each.subscription_id for each in taken],
    }
    return run(connection, PLACE, params)
