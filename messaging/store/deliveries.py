"""Claim, put back and settle deliveries, inside the worker's transaction."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from ..messages import Delivered
from .connection import Rows, run


class Claimed(NamedTuple):
    """One claimed delivery with its message, undecoded; body is None when the log lost it.

    Of a lane's token, ``message_id`` is 0. ``seconds_left`` until it expires, by the database's
    clock; None: never.
    """

    id: int
    queue_id: int
    priority: int
    message_id: int
    attempt: int
    subscription_id: int | None
    expires_at: Any
    lane_id: int | None
    entry_id: int | None
    token: int | None
    topic: str | None
    ordering_key: str | None
    headers: str | None
    body: str | None
    published_at: Any
    fairness_key: str | None
    correlation_id: str | None
    causation_id: int | None
    reply_to: str | None
    seconds_left: float | None


FIRST_COLUMN = itemgetter(0)
# As Claimed._make, in C: it spares counting the columns of each row.
as_claimed: Callable[[Iterable[Any]], Claimed] = partial(tuple.__new__, Claimed)


# What every claim tells of a message: the columns of Claimed behind those of the row taken. The
# topic's name by a look-up, and none for what was sent straight to its queue: a join reads all
# topics, and compares each message with them.
PAYLOAD = """
    CASE WHEN message.topic_id IS NOT NULL THEN
        (SELECT name FROM messaging_topic WHERE id = message.topic_id) END,
    message.ordering_key, message.headers::text, message.body::text,
    message.published_at, message.fairness_key, message.correlation_id, message.causation_id,
    message.reply_to, extract(epoch FROM taken.expires_at - statement_timestamp())::float8
    FROM taken
    LEFT JOIN messaging_message AS message ON message.id = taken.message_id
"""
# ARRAY(...) runs once, before the delete: a LIMIT inside a join could be run again by the planner
# and delete more rows than asked.
CLAIM: Any = """
    WITH taken AS (
        DELETE FROM messaging_delivery
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messaging_delivery
            WHERE queue_id = %(queue_id)s AND priority = %(priority)s AND id > %(after)s
            ORDER BY id LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING id, queue_id, priority, message_id, attempt, subscription_id, expires_at, lane_id
    )
    SELECT taken.id, taken.queue_id, taken.priority, taken.message_id, taken.attempt,
        taken.subscription_id, taken.expires_at, taken.lane_id, NULL::bigint, NULL::bigint,
        {payload}
""".replace("{payload}", PAYLOAD)


def claim(
    connection: BaseDatabaseWrapper, *, queue_id: int, priority: int, after: int, limit: int
) -> list[Claimed]:
    """Take the next deliveries of one priority whose id is greater than ``after``."""
    params = {"queue_id": queue_id, "priority": priority, "after": after, "limit": limit}
    rows = run(connection, CLAIM, params)
    # Here and not in the statement, which would sort the bodies too; they are nearly in order.
    rows.sort(key=FIRST_COLUMN)
    return list(map(as_claimed, rows))


# A loose index scan: one look-up a priority, however many deliveries wait.
PRIORITIES = """
    WITH RECURSIVE level AS (
        (SELECT priority FROM messaging_delivery
         WHERE queue_id = %(queue_id)s ORDER BY priority DESC LIMIT 1)
        UNION ALL
        SELECT (SELECT priority FROM messaging_delivery
                WHERE queue_id = %(queue_id)s AND priority < level.priority
                ORDER BY priority DESC LIMIT 1)
        FROM level WHERE level.priority IS NOT NULL
    )
    SELECT priority FROM level WHERE priority IS NOT NULL
"""


def priorities(connection: BaseDatabaseWrapper, queue_id: int) -> list[int]:
    """Return the priorities that have deliveries waiting, highest first."""
    return [priority for (priority,) in run(connection, PRIORITIES, {"queue_id": queue_id})]


# The same ids as before, so that what was put back is the next again. A conflict means that it is
# there already: a rollback was faster.
PUT_BACK = """
    INSERT INTO messaging_delivery
        (id, queue_id, priority, message_id, attempt, subscription_id, expires_at, lane_id)
    SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::smallint[], %s::bigint[], %s::smallint[],
        %s::bigint[], %s::timestamptz[], %s::bigint[])
    ON CONFLICT DO NOTHING
"""


def put_back(connection: BaseDatabaseWrapper, delivered: Sequence[Delivered]) -> None:
    """Insert claimed deliveries again as they were, for the next claim."""
    run(connection, PUT_BACK, _columns(delivered))


SCHEDULE = """
    INSERT INTO messaging_scheduled
        (queue_id, priority, message_id, attempt, subscription_id, expires_at, due_at, joins_lane)
    SELECT queue_id, priority, message_id, attempt, subscription_id, expires_at,
        statement_timestamp() + after * interval '1 second', false
    FROM unnest(%s::bigint[], %s::smallint[], %s::bigint[], %s::smallint[], %s::bigint[],
        %s::timestamptz[], %s::float8[])
        AS retry (queue_id, priority, message_id, attempt, subscription_id, expires_at, after)
"""


def schedule(
    connection: BaseDatabaseWrapper,
    delivered: Sequence[Delivered],
    attempts: Sequence[int],
    after: Sequence[float],
) -> None:
    """Insert deliveries again, each due ``after`` seconds from now as the attempt given."""
    _, queues, levels, messages, _, subscriptions, expiries, _ = _columns(delivered)
    waits = [float(seconds) for seconds in after]
    params = (queues, levels, messages, list(attempts), subscriptions, expiries, waits)
    run(connection, SCHEDULE, params)


# Only one worker moves at a time; the others go on with their work instead of waiting for it.
PROMOTE = """
    WITH allowed AS MATERIALIZED (
        SELECT pg_try_advisory_xact_lock(hashtext('messaging_scheduled'), 0) AS mine
    ),
    moved AS (
        DELETE FROM messaging_scheduled
        WHERE ctid = ANY (ARRAY(
            SELECT scheduled.ctid FROM messaging_scheduled AS scheduled, allowed
            WHERE allowed.mine AND scheduled.due_at <= statement_timestamp()
            ORDER BY scheduled.due_at, scheduled.id LIMIT %(limit)s
            FOR UPDATE OF scheduled SKIP LOCKED
        ))
        RETURNING queue_id, priority, message_id, attempt, subscription_id, expires_at, lane_id,
            joins_lane, due_at, id
    ),
    placed AS (
        INSERT INTO messaging_delivery
            (queue_id, priority, message_id, attempt, subscription_id, expires_at, lane_id)
        SELECT queue_id, priority, message_id, attempt, subscription_id, expires_at, lane_id
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


def promote(connection: BaseDatabaseWrapper, limit: int) -> Rows:
    """Move due deliveries to ready; return (queue, priority, first id, count) of each group.

    The first id is None where messages join their lanes, which happens at the commit.
    """
    return run(connection, PROMOTE, {"limit": limit})


NEXT_DUE = """
    SELECT extract(epoch FROM due_at - statement_timestamp())::float8
    FROM messaging_scheduled ORDER BY due_at, id LIMIT 1
"""


def seconds_until_due(connection: BaseDatabaseWrapper) -> float | None:
    """Return the time until the next scheduled delivery is due, in seconds, or None."""
    rows = run(connection, NEXT_DUE)
    return float(rows[0][0]) if rows else None


# Never waits: the row may be locked by a backend that has not noticed yet that its worker is dead.
TAKE_LOST = """
    DELETE FROM messaging_delivery
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM messaging_delivery
        WHERE queue_id = %(queue_id)s AND priority = ANY (%(priorities)s::smallint[])
        AND id = %(id)s
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING id, queue_id, priority, message_id, attempt, subscription_id, expires_at, lane_id
"""
EXISTS = """
    SELECT 1 FROM messaging_delivery
    WHERE queue_id = %(queue_id)s AND priority = ANY (%(priorities)s::smallint[]) AND id = %(id)s
"""


def take_lost(
    connection: BaseDatabaseWrapper, *, queue_id: int, priorities: Sequence[int], delivery_id: int
) -> tuple[Delivered | None, bool]:
    """Take one delivery by its key; return it, and whether it exists but is locked."""
    params = {"queue_id": queue_id, "priorities": list(priorities), "id": delivery_id}
    if rows := run(connection, TAKE_LOST, params):
        return Delivered._make((*rows[0], None, None)), False
    return None, bool(run(connection, EXISTS, params))


def _columns(delivered: Sequence[Delivered]) -> tuple[list[Any], ...]:
    return (
        [d.id for d in delivered],
        [d.queue_id for d in delivered],
        [d.priority for d in delivered],
        [d.message_id for d in delivered],
        [d.attempt for d in delivered],
        [d.subscription_id for d in delivered],
        [d.expires_at for d in delivered],
        [d.lane_id for d in delivered],
    )


# Of a queue without retention, what is acknowledged is gone. A message of a topic may still wait on
# other queues: retention takes it when none has it any more. What tells of a message goes with it.
FORGET = """
    WITH gone AS (
        DELETE FROM messaging_message WHERE id = ANY (%s::bigint[]) AND queue_id = %s RETURNING id
    ),
    forgotten AS (
        DELETE FROM messaging_attempt AS attempt USING gone WHERE attempt.message_id = gone.id
    )
    DELETE FROM messaging_edit AS edit USING gone WHERE edit.message_id = gone.id
"""


def forget(connection: BaseDatabaseWrapper, queue_id: int, message_ids: Sequence[int]) -> None:
    """Delete messages from the log that were sent to a queue, and their failed attempts."""
    run(connection, FORGET, (list(message_ids), queue_id))
