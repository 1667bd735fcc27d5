"""Connection: run a prepared statement on the caller's own connection, inside its transaction.

Django's cursors bind on the client and never prepare. The hot statements go to the psycopg
connection beneath, and still pass Django's execute wrappers and query log, so that tools which
watch a connection see them.
"""

import time
from asyncio import _get_running_loop
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, LiteralString
from weakref import WeakKeyDictionary

import psycopg
from django.db import DatabaseError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors, generators
from psycopg.pq import ExecStatus, TransactionStatus

from .. import conf
from ..exceptions import EngineUnavailable, MessagingError, PublishUncertain
from .pooling import BACKEND, is_pooled

# psycopg prepares nothing while the threshold is None, which is Django's default. This one lets
# the statements here be prepared, and no other statement of the same connection ever.
ONLY_ON_REQUEST = 1_000_000_000

Params = Mapping[str, Any] | Sequence[Any] | None
Execute = Callable[[], "Rows"]
Rows = list[tuple[Any, ...]]


def connection_for(using: str | None = None) -> BaseDatabaseWrapper:
    """Return Django's connection to the database that holds the messages."""
    return connections[using or conf.DATABASE]


class Statement:
    """A hot statement with ``$1`` parameters, whose columns are all integers.

    Once psycopg has prepared it, it goes to the server by its name. psycopg's cursor would look for
    the best way to send each parameter, and build an object to load the rows: more work than the
    rest of a small message.
    """

    def __init__(self, sql: LiteralString, parameters: int) -> None:
        self.sql = sql
        # What psycopg files a prepared statement under: its text, and the types of its parameters,
        # here all left to the server.
        self.key = sql.encode(), (0,) * parameters


def run(connection: BaseDatabaseWrapper, sql: LiteralString, params: Params = None) -> Rows:
    """Execute one statement and return its rows."""
    _make_ready(connection)
    if _is_watched(connection):
        return _watched(connection, sql, params, partial(_execute, connection, sql, params))
    return _execute(connection, sql, params)


def run_statement(
    connection: BaseDatabaseWrapper, statement: Statement, params: list[str | None]
) -> Rows:
    """Execute a hot statement with parameters as text and return its rows of integers."""
    _make_ready(connection)
    if _is_watched(connection):
        execute = partial(_send, connection, statement, params)
        return _watched(connection, statement.sql, params, execute)
    return _send(connection, statement, params)


def _make_ready(connection: BaseDatabaseWrapper) -> None:
    # Django's checks cost as much as all the rest of a small message, and are for these cases only.
    if (
        connection.connection is None
        or connection.health_check_enabled  # type: ignore[attr-defined]
        or _get_running_loop() is not None
    ):
        connection.close_if_health_check_failed()
        connection.ensure_connection()
    if connection.autocommit and connection.connection.closed:
        # Lost since the last statement, with no transaction: Django would wait for the request's
        # end, which never comes in a script.
        connection.close()
        connection.connect()
    if connection.needs_rollback:
        connection.validate_no_broken_transaction()


def _is_watched(connection: BaseDatabaseWrapper) -> bool:
    return bool(connection.execute_wrappers) or connection.queries_logged


def _execute(connection: BaseDatabaseWrapper, sql: LiteralString, params: Params) -> Rows:
    raw = connection.connection
    with connection.wrap_database_errors, psycopg.Cursor(raw) as cursor:
        # Binary results: psycopg decodes them in C, where Django's text loaders are Python.
        cursor.execute(sql, params, prepare=_may_prepare(raw), binary=True)
        return cursor.fetchall() if cursor.description else []


def _send(connection: BaseDatabaseWrapper, statement: Statement, params: list[str | None]) -> Rows:
    raw = connection.connection
    name = _name_of(raw, statement)
    if name is None:
        return _execute_raw(connection, statement.sql, params)
    try:
        with raw.lock:
            raw.pgconn.send_query_prepared(name, [p if p is None else p.encode() for p in params])
            # psycopg's way of waiting, so that Ctrl-C comes through.
            result = raw.wait(generators.execute(raw.pgconn))[-1]
        if result.status != ExecStatus.TUPLES_OK:
            raise errors.error_from_result(result, encoding=raw.info.encoding)
    except psycopg.Error:
        with connection.wrap_database_errors:
            raise
    value = result.get_value
    columns = range(result.nfields)
    return [
        tuple([None if (text := value(row, column)) is None else int(text) for column in columns])
        for row in range(result.ntuples)
    ]


def _name_of(raw: psycopg.Connection[Any], statement: Statement) -> bytes | None:
    """Return the name under which psycopg has prepared a statement, where it can be used as it is.

    psycopg's own record is what counts: it deallocates its statements after a rollback, and begins
    the transaction with the first one that it executes.
    """
    if not raw.autocommit and raw.pgconn.transaction_status == TransactionStatus.IDLE:
        return None
    names: Mapping[Any, bytes] = raw._prepared._names
    return names.get(statement.key)


def _execute_raw(
    connection: BaseDatabaseWrapper, sql: LiteralString, params: list[str | None]
) -> Rows:
    raw = connection.connection
    with connection.wrap_database_errors, psycopg.RawCursor(raw) as cursor:
        cursor.execute(sql, params, prepare=_may_prepare(raw), binary=True)
        return cursor.fetchall()


def _may_prepare(raw: psycopg.Connection[Any]) -> bool:
    chosen: bool | None = conf.PREPARE_STATEMENTS
    prepare = _is_direct(raw) if chosen is None else chosen
    if prepare and raw.prepare_threshold is None:
        raw.prepare_threshold = ONLY_ON_REQUEST
    return prepare


def _is_direct(raw: psycopg.Connection[Any]) -> bool:
    """Tell whether the server's session is this connection's own; asked once for each.

    A pooler in transaction mode gives the session, and what is prepared there, to others.
    """
    known = _direct.get(raw)
    if known is None:
        with psycopg.Cursor(raw) as cursor:
            row = cursor.execute(BACKEND, prepare=False).fetchone()
        known = _direct[raw] = row is not None and not is_pooled(raw, row[0])
    return known


_direct: WeakKeyDictionary[psycopg.Connection[Any], bool] = WeakKeyDictionary()


def _watched(
    connection: BaseDatabaseWrapper, sql: LiteralString, params: Params, execute: Execute
) -> Rows:
    def innermost(sql: LiteralString, params: Params, many: bool, context: Any) -> Rows:
        started = time.monotonic()
        try:
            return execute()
        finally:
            if connection.queries_logged:
                took = time.monotonic() - started
                connection.queries_log.append({"sql": sql, "time": f"{took:.3f}"})

    call: Any = innermost
    for wrapper in reversed(connection.execute_wrappers):
        call = partial(wrapper, call)
    rows: Rows = call(sql, params, False, {"connection": connection, "cursor": None})
    return rows


class explaining:
    """Tell a sender why the database did not take its message, where that is known."""

    __slots__ = ("connection", "message_id")

    def __init__(self, connection: BaseDatabaseWrapper, message_id: str | None) -> None:
        self.connection = connection
        self.message_id = message_id

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: object
    ) -> None:
        if isinstance(error, DatabaseError) and not isinstance(error, MessagingError):
            explained = _explanation(self.connection, error, self.message_id)
            if explained is not None:
                raise explained from error


def _explanation(
    connection: BaseDatabaseWrapper, error: DatabaseError, message_id: str | None
) -> MessagingError | None:
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
    if connection.connection is None and isinstance(error, OperationalError):
        return EngineUnavailable(
            f"The database cannot be reached, and nothing was stored ({_line(error)}). Send again "
            f"when it is back."
        )
    if not is_lost(connection, error):
        return None
    if connection.in_atomic_block or not connection.get_autocommit():
        return EngineUnavailable(
            f"The connection was lost, and nothing of this transaction is stored "
            f"({_line(error)}). Run the transaction again."
        )
    return PublishUncertain([] if message_id is None else [message_id])


def is_lost(connection: BaseDatabaseWrapper, error: BaseException) -> bool:
    """Tell whether an error means that the connection is gone."""
    if connection.connection is None or connection.connection.closed:
        return True
    cause = error.__cause__
    return isinstance(cause, psycopg.Error) and cause.diag.severity_nonlocalized in LAST_WORDS


# What the server says before it closes a connection.
LAST_WORDS = ("FATAL", "PANIC")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
