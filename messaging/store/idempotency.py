"""Keep the records of `once()`."""

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run

# A second caller waits here until the first commits (then it is not the first) or rolls back
# (then it is). An expired record is taken over.
CLAIM = """
    INSERT INTO messaging_idempotency AS known (scope, key, expires_at)
    VALUES (%(scope)s, %(key)s, statement_timestamp() + %(window)s::float8 * interval '1 second')
    ON CONFLICT (scope, key) DO UPDATE
    SET result = NULL, created_at = statement_timestamp(), expires_at = excluded.expires_at
    WHERE known.expires_at <= statement_timestamp()
    RETURNING id
"""


def claim_once(connection: BaseDatabaseWrapper, scope: str, key: str, window: float | None) -> bool:
    """Insert the record; return whether it is new."""
    return bool(run(connection, CLAIM, {"scope": scope, "key": key, "window": window}))


RESULT = "SELECT result::text FROM messaging_idempotency WHERE scope = %s AND key = %s"


def result_of(connection: BaseDatabaseWrapper, scope: str, key: str) -> str | None:
    """Return the stored result as JSON text."""
    rows = run(connection, RESULT, (scope, key))
    return rows[0][0] if rows else None


SAVE = "UPDATE messaging_idempotency SET result = %s::jsonb WHERE scope = %s AND key = %s"


def save_result(connection: BaseDatabaseWrapper, scope: str, key: str, result: Any) -> None:
    """Store the result, JSON text, with the record."""
    run(connection, SAVE, (result, scope, key))
