"""Keep replies to requests until whoever asked has read them."""

import re

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run

PREFIX = "messaging.reply."
TOKEN = re.compile(re.escape(PREFIX) + r"[0-9a-f]{32}")
# A reply that nobody has read for so long is pruned, seconds.
KEPT = 3_600


def is_token(name: str) -> bool:
    """Tell whether a name stands for the reply to one request, and for no queue."""
    return TOKEN.fullmatch(name) is not None


# Of several replies the first one counts: a handler may have run twice.
KEEP = """
    INSERT INTO messaging_reply (token, body) VALUES (%s, %s::jsonb)
    ON CONFLICT DO NOTHING RETURNING 1
"""


def keep(connection: BaseDatabaseWrapper, token: str, body: str) -> bool:
    """Store a reply, given as JSON text; return whether it is the first one."""
    return bool(run(connection, KEEP, (token, body)))


TAKE = "DELETE FROM messaging_reply WHERE token = %s RETURNING body::text"


def take(connection: BaseDatabaseWrapper, token: str) -> str | None:
    """Read a reply and forget it; return its JSON text, or None when there is none yet."""
    rows = run(connection, TAKE, (token,))
    return rows[0][0] if rows else None


FATE = """
    SELECT reason, error, description FROM messaging_deadletter WHERE message_id = %s
    ORDER BY id DESC LIMIT 1
"""


def fate(connection: BaseDatabaseWrapper, message_id: int) -> tuple[str, str, str] | None:
    """Return reason, error and description of a request that is dead, or None."""
    rows = run(connection, FATE, (message_id,))
    return rows[0] if rows else None


SERVERS = """
    SELECT queue.paused_at IS NOT NULL,
        EXISTS (
            SELECT FROM messaging_worker AS worker
            WHERE worker.state = 'running' AND worker.queues @> to_jsonb(queue.name::text)
            AND worker.seen_at > statement_timestamp() - %(silence)s * interval '1 second'),
        coalesce(pg_sequence_last_value(pg_get_serial_sequence('messaging_delivery', 'id')), 0)
    FROM messaging_queue AS queue WHERE queue.name = %(name)s
"""


def servers(
    connection: BaseDatabaseWrapper, name: str, silence: float
) -> tuple[bool, bool, int] | None:
    """Return whether a queue is paused, whether a worker serves it, and the newest delivery.

    None: there is no such queue. A worker without a sign of life for ``silence`` seconds is dead.
    """
    rows = run(connection, SERVERS, {"name": name, "silence": silence})
    return rows[0] if rows else None


# Only what came after the request was prepared is looked at, however many wait before it.
WITHDRAW = """
    DELETE FROM messaging_delivery WHERE ctid = ANY (ARRAY(
        SELECT delivery.ctid FROM messaging_delivery AS delivery
        WHERE delivery.queue_id = (SELECT id FROM messaging_queue WHERE name = %(name)s)
        AND delivery.priority = %(priority)s AND delivery.id > %(after)s
        AND delivery.message_id = %(message_id)s
        LIMIT 1 FOR UPDATE SKIP LOCKED))
    RETURNING 1
"""
WITHDRAW_LATER = """
    DELETE FROM messaging_scheduled WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM messaging_scheduled
        WHERE message_id = %(message_id)s AND lane_id IS NULL FOR UPDATE SKIP LOCKED))
    RETURNING 1
"""


def withdraw(
    connection: BaseDatabaseWrapper, name: str, *, priority: int, after: int, message_id: int
) -> bool:
    """Take back a request that still waits; return whether it did."""
    params = {"name": name, "priority": priority, "after": after, "message_id": message_id}
    return bool(run(connection, WITHDRAW, params) or run(connection, WITHDRAW_LATER, params))


PRUNE = """
    DELETE FROM messaging_reply WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM messaging_reply
        WHERE created_at < statement_timestamp() - %(kept)s * interval '1 second'
        LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
    RETURNING 1
"""


def prune(connection: BaseDatabaseWrapper, limit: int) -> int:
    """Delete replies that nobody has read for an hour; return how many."""
    return len(run(connection, PRUNE, {"kept": KEPT, "limit": limit}))
