"""Subscribe queues and end it, and find the ephemeral subscriptions that nobody uses any more."""

import json
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run
from .locking import lock


class Found(NamedTuple):
    """A subscription, and whether it takes the messages that were asked for."""

    id: int
    is_same: bool


class Idle(NamedTuple):
    """An ephemeral queue that goes, and how long nobody had been there, in seconds."""

    queue: str
    seconds: float


# The lock keeps the queue until the subscription is committed: it would belong to none.
QUEUE = "SELECT id FROM messaging_queue WHERE name = %s FOR KEY SHARE"


def queue_id(connection: BaseDatabaseWrapper, name: str) -> int | None:
    """Return the id of a queue, which then stays until this transaction ends; None: no such."""
    rows = run(connection, QUEUE, (name,))
    return int(rows[0][0]) if rows else None


# Waits for whoever is subscribing the same at this moment.
ADD = """
    INSERT INTO messaging_subscription
        (pattern, queue_id, is_active, filter, filter_scope, description)
    VALUES (%(pattern)s, %(queue_id)s, true, %(filter)s::jsonb, %(scope)s, '')
    ON CONFLICT (pattern, queue_id) DO NOTHING
    RETURNING id
"""
# The scope of no filter is no difference.
FIND = """
    SELECT id, filter IS NOT DISTINCT FROM %(filter)s::jsonb
        AND (filter IS NULL OR filter_scope = %(scope)s)
    FROM messaging_subscription WHERE pattern = %(pattern)s AND queue_id = %(queue_id)s
"""


def _subject(pattern: str, queue_id: int, filter: Any, scope: str) -> dict[str, Any]:
    text = None if filter is None else json.dumps(filter, ensure_ascii=False)
    return {"pattern": pattern, "queue_id": queue_id, "filter": text, "scope": scope}


def add(
    connection: BaseDatabaseWrapper, pattern: str, queue_id: int, filter: Any, scope: str
) -> int | None:
    """Subscribe a queue; return the subscription's id, or None when it was subscribed already."""
    rows = run(connection, ADD, _subject(pattern, queue_id, filter, scope))
    return int(rows[0][0]) if rows else None


def find(
    connection: BaseDatabaseWrapper, pattern: str, queue_id: int, filter: Any, scope: str
) -> Found | None:
    """Return the subscription of a queue to exactly this pattern, or None."""
    rows = run(connection, FIND, _subject(pattern, queue_id, filter, scope))
    return Found._make(rows[0]) if rows else None


# Before anything else: a snapshot that is older than the lock would not show who published last.
READ_COMMITTED = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
# A publisher reads the bindings in the statement that stores, and has them locked until its
# transaction ends. So nobody who has published is under way once the lock is there, and whoever
# publishes after it reads what this transaction has written. First what the triggers lock: whoever
# has that already may have published, too.
KEEP_OUT = (
    "SELECT pg_advisory_xact_lock(hashtext('messaging_binding'), 0)",
    "LOCK TABLE messaging_binding IN ACCESS EXCLUSIVE MODE",
)


def keep_publishers_out(connection: BaseDatabaseWrapper, seconds: float) -> None:
    """Let nobody publish until this transaction, which begins here, ends; TimeoutError."""
    run(connection, READ_COMMITTED)
    lock(connection, KEEP_OUT, seconds)


REMOVE = """
    DELETE FROM messaging_subscription
    WHERE pattern = %s AND queue_id = %s RETURNING id
"""


def remove(connection: BaseDatabaseWrapper, pattern: str, queue_id: int) -> bool:
    """Delete the subscription of a queue to a pattern; return whether there was one."""
    return bool(run(connection, REMOVE, (pattern, queue_id)))


# Of this column alone, which no trigger looks at. One that has ended stays so.
TOUCH = """
    UPDATE messaging_subscription SET seen_at = statement_timestamp()
    WHERE id = %s AND idle_timeout > 0 RETURNING id
"""


def touch(connection: BaseDatabaseWrapper, subscription_id: int) -> bool:
    """Note that an ephemeral subscription is in use; return whether it still is one."""
    return bool(run(connection, TOUCH, (subscription_id,)))


# One that has ended has no idle timeout, and is looked at when it was to be tried again.
IS_OVER = """
    idle_timeout IS NOT NULL
    AND seen_at < statement_timestamp() - idle_timeout * interval '1 second'
"""
ANY_IDLE: Any = f"SELECT EXISTS (SELECT FROM messaging_subscription WHERE {IS_OVER})"  # noqa: S608 - a constant


def any_idle(connection: BaseDatabaseWrapper) -> bool:
    """Tell whether the time of any ephemeral subscription is up."""
    return bool(run(connection, ANY_IDLE)[0][0])


END = """
    UPDATE messaging_subscription
    SET is_active = false, idle_timeout = 0,
        seen_at = statement_timestamp() + %(again)s * interval '1 second'
    WHERE id = %(id)s AND idle_timeout IS NOT NULL
"""


def end(connection: BaseDatabaseWrapper, subscription_id: int, again: float) -> None:
    """Take no more messages; what is left is to be looked at ``again`` in so many seconds."""
    run(connection, END, {"id": subscription_id, "again": again})


# Of several workers that look at the same time each gets another one. The row that is locked is
# looked at again: a sign of life that came meanwhile counts.
CLAIM_IDLE: Any = f"""
    WITH idle AS MATERIALIZED (
        SELECT id, seen_at FROM messaging_subscription
        WHERE {IS_OVER} ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    UPDATE messaging_subscription AS subscription
    SET is_active = false, idle_timeout = 0,
        seen_at = statement_timestamp() + %(again)s * interval '1 second'
    FROM idle, messaging_queue AS queue
    WHERE subscription.id = idle.id AND queue.id = subscription.queue_id
    RETURNING queue.name, extract(epoch FROM statement_timestamp() - idle.seen_at)::float8
"""  # noqa: S608 - a constant


def claim_idle(connection: BaseDatabaseWrapper, again: float) -> Idle | None:
    """End one ephemeral subscription whose time is up, and return it; None: there is none."""
    rows = run(connection, CLAIM_IDLE, {"again": again})
    return Idle._make(rows[0]) if rows else None
