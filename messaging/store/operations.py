"""Count, purge, release and cancel what waits, for operators; every statement is bounded."""

from collections.abc import Sequence
from typing import NamedTuple

from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors

from .connection import Rows, run

# Counts are exact up to here; one more means "more than".
COUNT_LIMIT = 10_000


class Depth(NamedTuple):
    """How many messages a queue has, each number at most ``COUNT_LIMIT + 1``.

    ``held`` are the dead letters in the queue, ``dead`` those that come from it, wherever held.
    """

    ready: int = 0
    scheduled: int = 0
    held: int = 0
    dead: int = 0

    def __str__(self) -> str:
        kinds = ("ready", "scheduled", "dead letters held here", "dead letters from here")
        parts = [f"{counted(n)} {kind}" for n, kind in zip(self, kinds, strict=True) if n]
        return ", ".join(parts) or "none"


def counted(number: int) -> str:
    """Say a bounded count: "10,000+" above the limit up to which counts are exact."""
    return f"{number:,}" if number <= COUNT_LIMIT else f"{COUNT_LIMIT:,}+"


# Each count reads at most the limit from the index of its queue, however much waits. BETWEEN and
# the order make it so: they ask for an order that only this index has. With "=" a scan of another
# index or of the whole table looks as cheap, and for an empty queue next to a full one never ends.
DEPTHS = """
    SELECT queue.id,
        (SELECT count(*) FROM (SELECT FROM messaging_delivery
            WHERE queue_id BETWEEN queue.id AND queue.id
            ORDER BY queue_id, priority, id LIMIT %(limit)s) AS bounded),
        (SELECT count(*) FROM (SELECT FROM messaging_scheduled
            WHERE queue_id BETWEEN queue.id AND queue.id
            ORDER BY queue_id, due_at LIMIT %(limit)s) AS bounded),
        (SELECT count(*) FROM (SELECT FROM messaging_deadletter
            WHERE queue_id BETWEEN queue.id AND queue.id
            ORDER BY queue_id, id LIMIT %(limit)s) AS bounded),
        (SELECT count(*) FROM (SELECT FROM messaging_deadletter
            WHERE origin_id BETWEEN queue.id AND queue.id
            ORDER BY origin_id, id LIMIT %(limit)s) AS bounded)
    FROM unnest(%(ids)s::bigint[]) AS queue (id)
"""


def depths(connection: BaseDatabaseWrapper, queue_ids: Sequence[int]) -> dict[int, Depth]:
    """Return the depth of each queue."""
    rows = run(connection, DEPTHS, {"ids": list(queue_ids), "limit": COUNT_LIMIT + 1})
    return {queue_id: Depth(*numbers) for queue_id, *numbers in rows}


class Ceiling(NamedTuple):
    """The newest ids at one moment: what a bulk operation stops at."""

    ready: int
    scheduled: int
    dead: int


# The sequences know without a look at the tables. What is drawn and not yet committed counts too.
CEILING = """
    SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('messaging_delivery', 'id')), 0),
        coalesce(pg_sequence_last_value(pg_get_serial_sequence('messaging_scheduled', 'id')), 0),
        coalesce(pg_sequence_last_value(pg_get_serial_sequence('messaging_deadletter', 'id')), 0)
"""


def ceiling(connection: BaseDatabaseWrapper) -> Ceiling:
    """Return the ids that freeze a bulk operation."""
    return Ceiling(*run(connection, CEILING)[0])


# Goes on behind the last batch instead of walking again over the entries that it has deleted. What
# a worker has locked is skipped: it is being handled.
PURGE_READY = """
    DELETE FROM messaging_delivery
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM messaging_delivery
        WHERE queue_id = %(queue_id)s AND (priority, id) > (%(priority)s, %(id)s)
        AND id <= %(upto)s
        ORDER BY priority, id LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING priority, id
"""
FIRST = (-32_768, 0)


def purge_ready(
    connection: BaseDatabaseWrapper,
    queue_id: int,
    *,
    after: tuple[int, int],
    upto: int,
    limit: int,
) -> tuple[int, tuple[int, int]]:
    """Delete the next ready deliveries behind (priority, id); return how many, and the last."""
    params = {
        "queue_id": queue_id,
        "priority": after[0],
        "id": after[1],
        "upto": upto,
        "limit": limit,
    }
    rows = run(connection, PURGE_READY, params)
    return len(rows), max(rows, default=after)


# Equal times of a batch's end are read again, since the index ends with the time.
PURGE_SCHEDULED = """
    WITH gone AS (
        DELETE FROM messaging_scheduled
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messaging_scheduled
            WHERE (queue_id, due_at) >= (%(queue_id)s, %(since)s::timestamptz)
            AND queue_id <= %(queue_id)s AND id <= %(upto)s
            ORDER BY queue_id, due_at LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING due_at
    )
    SELECT count(*), max(due_at)::text FROM gone
"""
EARLIEST = "-infinity"


def purge_scheduled(
    connection: BaseDatabaseWrapper, queue_id: int, *, since: str, upto: int, limit: int
) -> tuple[int, str]:
    """Delete the next scheduled deliveries due from ``since`` on; return how many, and the last."""
    params = {"queue_id": queue_id, "since": since, "upto": upto, "limit": limit}
    count, last = run(connection, PURGE_SCHEDULED, params)[0]
    return count, last or since


RELEASE = """
    WITH moved AS (
        DELETE FROM messaging_scheduled
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messaging_scheduled
            WHERE id = ANY (%(ids)s::bigint[])
            ORDER BY id
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING queue_id, priority, message_id, attempt, subscription_id, due_at, id
    ),
    placed AS (
        INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt, subscription_id)
        SELECT queue_id, priority, message_id, attempt, subscription_id FROM moved
        ORDER BY due_at, id
        RETURNING queue_id, priority, id
    )
    SELECT queue_id, priority, min(id), count(*) FROM placed GROUP BY queue_id, priority
"""


def release(connection: BaseDatabaseWrapper, ids: Sequence[int]) -> Rows:
    """Make scheduled deliveries ready; return (queue, priority, first id, count) groups."""
    return run(connection, RELEASE, {"ids": list(ids)})


CANCEL = """
    DELETE FROM messaging_scheduled
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM messaging_scheduled WHERE id = ANY (%(ids)s::bigint[])
        ORDER BY id FOR UPDATE SKIP LOCKED
    ))
    RETURNING id
"""


def cancel(connection: BaseDatabaseWrapper, ids: Sequence[int]) -> list[int]:
    """Delete scheduled deliveries; return the ids that existed."""
    return [scheduled_id for (scheduled_id,) in run(connection, CANCEL, {"ids": list(ids)})]


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


HOMELESS = """
    SELECT dead.id FROM messaging_deadletter AS dead
    WHERE dead.id = ANY (%(ids)s::bigint[])
    AND NOT EXISTS (SELECT FROM messaging_queue AS queue WHERE queue.id = dead.origin_id)
    ORDER BY dead.id
"""


def homeless(connection: BaseDatabaseWrapper, ids: Sequence[int]) -> list[int]:
    """Return which of these dead letters come from a queue that no longer exists."""
    return [dead_id for (dead_id,) in run(connection, HOMELESS, {"ids": list(ids)})]


LIVE_WORKERS = """
    SELECT name FROM messaging_worker
    WHERE queues ? %(queue)s AND seen_at > statement_timestamp() - interval '15 seconds'
    ORDER BY name
"""


def live_workers(connection: BaseDatabaseWrapper, queue: str) -> list[str]:
    """Return the names of the worker processes that serve a queue at present."""
    return [name for (name,) in run(connection, LIVE_WORKERS, {"queue": queue})]


# A sender holds its lock on these tables from before it looks the queue up. So whoever comes first
# is seen: the message by the deletion, or the deletion by the sender.
LOCK = "LOCK TABLE messaging_delivery, messaging_scheduled IN SHARE ROW EXCLUSIVE MODE"
LOCK_TIMEOUT = "SELECT set_config('lock_timeout', %s, true)"


def keep_senders_out(connection: BaseDatabaseWrapper, seconds: float) -> None:
    """Lock what waits until this transaction ends; raise TimeoutError after the time given."""
    before = run(connection, "SELECT current_setting('lock_timeout')")[0][0]
    run(connection, LOCK_TIMEOUT, (f"{seconds * 1000:.0f}ms",))
    try:
        run(connection, LOCK)
    except OperationalError as error:
        if isinstance(error.__cause__, errors.LockNotAvailable | errors.DeadlockDetected):
            raise TimeoutError from error
        raise
    run(connection, LOCK_TIMEOUT, (before,))


def was_cancelled(error: OperationalError) -> bool:
    """Tell whether the server gave a statement up because it took too long."""
    return isinstance(error.__cause__, errors.QueryCanceled)


def limit_time(connection: BaseDatabaseWrapper, seconds: float) -> None:
    """Have the server give up each statement of this transaction that takes longer."""
    run(
        connection, "SELECT set_config('statement_timeout', %s, true)", (f"{seconds * 1000:.0f}ms",)
    )
