"""Confirm which messages are stored, waiting for transactions that have not ended yet."""

from collections.abc import Sequence
from typing import Any

from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors

from ..exceptions import PublishUncertain
from .connection import run

# Inserted to be rolled back: whoever inserts the same key waits for a transaction that is still
# storing it, which a look at the table would not see.
MISSING = """
    INSERT INTO messaging_message (id, headers)
    SELECT id, '{}' FROM unnest(%s::bigint[]) AS id ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING id
"""
MISSING_KEYS = """
    INSERT INTO messaging_deduplication (scope, key, message_id, digest)
    SELECT 'message:', key, 0, '' FROM unnest(%s::text[]) AS key ORDER BY key
    ON CONFLICT (scope, key) DO NOTHING
    RETURNING key
"""
DEAD = "SELECT message_id FROM messaging_deadletter WHERE message_id = ANY (%s::bigint[])"
WAIT: Any = "SELECT set_config('lock_timeout', %s, true)"


def missing(
    connection: BaseDatabaseWrapper, ids: Sequence[int], keys: Sequence[str], wait: float
) -> tuple[set[int], set[str]]:
    """Return which ids, and which senders' own ids, are not stored."""
    try:
        with transaction.atomic(using=connection.alias):
            run(connection, WAIT, (f"{max(1, int(wait * 1000))}ms",))
            lost = {row[0] for row in run(connection, MISSING, (sorted(set(ids)),))}
            lost_keys = {row[0] for row in run(connection, MISSING_KEYS, (sorted(set(keys)),))}
            transaction.set_rollback(True, using=connection.alias)
    except OperationalError as error:
        if isinstance(error.__cause__, errors.LockNotAvailable):
            raise PublishUncertain([*ids, *keys]) from error
        raise
    if lost:  # a dead letter outlives the log
        lost -= {row[0] for row in run(connection, DEAD, (sorted(lost),))}
    return lost, lost_keys
