"""Connection: run a prepared statement on the caller's own connection, inside its transaction.

Django's cursors bind on the client and never prepare. The hot statements go to the psycopg
connection beneath, and still pass Django's execute wrappers and query log, so that tools which
watch a connection see them.
"""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, LiteralString

import psycopg
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors

from .. import conf
from ..exceptions import MessagingError

# psycopg prepares nothing while the threshold is None, which is Django's default. This one lets
# the statements here be prepared, and no other statement of the same connection ever.
ONLY_ON_REQUEST = 1_000_000_000

Params = Mapping[str, Any] | Sequence[Any] | None
Rows = list[tuple[Any, ...]]


def connection_for(using: str | None = None) -> BaseDatabaseWrapper:
    """Return Django's connection to the database that holds the messages."""
    return connections[using or conf.DATABASE]


def run(connection: BaseDatabaseWrapper, sql: LiteralString, params: Params = None) -> Rows:
    """Execute one statement and return its rows."""
    connection.close_if_health_check_failed()
    connection.ensure_connection()
    if connection.needs_rollback:
        connection.validate_no_broken_transaction()
    if not connection.execute_wrappers and not connection.queries_logged:
        return _execute(connection, sql, params)
    return _execute_watched(connection, sql, params)


def _execute(connection: BaseDatabaseWrapper, sql: LiteralString, params: Params) -> Rows:
    raw = connection.connection
    prepare = conf.PREPARE_STATEMENTS
    if prepare and raw.prepare_threshold is None:
        raw.prepare_threshold = ONLY_ON_REQUEST
    with connection.wrap_database_errors, psycopg.Cursor(raw) as cursor:
        # Binary results: psycopg decodes them in C, where Django's text loaders are Python.
        cursor.execute(sql, params, prepare=prepare, binary=True)
        return cursor.fetchall() if cursor.description else []


def _execute_watched(connection: BaseDatabaseWrapper, sql: LiteralString, params: Params) -> Rows:
    def execute(sql: LiteralString, params: Params, many: bool, context: Any) -> Rows:
        started = time.monotonic()
        try:
            return _execute(connection, sql, params)
        finally:
            if connection.queries_logged:
                took = time.monotonic() - started
                connection.queries_log.append({"sql": sql, "time": f"{took:.3f}"})

    call: Any = execute
    for wrapper in reversed(connection.execute_wrappers):
        call = partial(wrapper, call)
    rows: Rows = call(sql, params, False, {"connection": connection, "cursor": None})
    return rows


def refusal(error: Exception) -> MessagingError | None:
    """Return what to tell a sender whose transaction cannot be written to, if that is the case."""
    cause = error.__cause__
    if isinstance(cause, errors.InFailedSqlTransaction):
        return MessagingError(
            "This transaction is aborted by an earlier database error; nothing can be stored in "
            "it. Roll back (leave the atomic() block) and send again."
        )
    if isinstance(cause, errors.ReadOnlySqlTransaction):
        return MessagingError(
            "This transaction or database is read-only; nothing can be stored in it. Send on a "
            "connection to the primary, in a transaction that may write."
        )
    return None
