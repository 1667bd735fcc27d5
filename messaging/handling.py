"""Handle: call the consumer's function for each message, and undo a failing one alone."""

import inspect
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, NamedTuple

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import TransactionManagementError
from psycopg import errors
from psycopg.pq import TransactionStatus

from .consuming import Consumer
from .exceptions import Expired
from .messages import Message

SAVEPOINT = "SAVEPOINT messaging_handler"
ROLLBACK = "ROLLBACK TO SAVEPOINT messaging_handler"
RELEASE = "RELEASE SAVEPOINT messaging_handler"
# "ROLLBACK TO SAVEPOINT" is how Django leaves an inner atomic() block.
ENDS_TRANSACTION = re.compile(
    r"\s*(COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(WORK\s+|TRANSACTION\s+)?TO))\b",
    re.IGNORECASE,
)


class Handled(NamedTuple):
    """What calling the function came to: ``error`` None means that it returned.

    ``duration`` in seconds; ``used_database`` tells whether it ran SQL in the transaction.
    """

    message: Message
    error: BaseException | None
    duration: float
    used_database: bool


class TransactionLost(Exception):
    """The transaction of the handlers is gone.

    ``guilty``: the message is to blame and its delivery failed. ``ended``: the handler itself
    committed or rolled back, so that what the claim took may be gone for good. ``handled`` are the
    messages before it in the same transaction.
    """

    def __init__(
        self, message: Message, error: BaseException, *, guilty: bool, ended: bool = False
    ) -> None:
        self.message = message
        self.error = error
        self.guilty = guilty
        self.ended = ended
        self.handled: list[Handled] = []
        super().__init__(str(error))


class Watch:
    """Sees a handler's first use of the database, and opens the savepoint that could undo it.

    A handler that uses no database costs no round trip. Django and psycopg make a cursor for
    whatever they run; the statements of this package pass Django's execute wrappers.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._hooks = 0
        self.touched = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch the connection during a block."""
        raw = self._connection.connection
        factory = raw.cursor_factory

        def make_cursor(*args: Any, **kwargs: Any) -> Any:
            self._touch()
            return factory(*args, **kwargs)

        self._connection.execute_wrappers.append(self._on_execute)
        raw.cursor_factory = make_cursor
        try:
            yield
        finally:
            raw.cursor_factory = factory
            self._connection.execute_wrappers.remove(self._on_execute)

    def _on_execute(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        if isinstance(sql, str) and ENDS_TRANSACTION.match(sql):
            raise TransactionManagementError(
                f"A handler cannot end the transaction that holds its message ({sql[:40].strip()}):"
                f" return to commit, raise to roll back."
            )
        self._touch()
        return execute(sql, params, many, context)

    def _touch(self) -> None:
        if not self.touched:
            self._run(SAVEPOINT)
            self.touched = True

    def begin(self) -> None:
        """Be ready for the next handler."""
        self._hooks = len(self._connection.run_on_commit)
        self.touched = False

    def undo(self) -> None:
        """Roll back what the handler did, and forget what it wanted done after the commit."""
        if self.touched:
            self._run(ROLLBACK)
        self._connection.needs_rollback = False
        del self._connection.run_on_commit[self._hooks :]

    def keep(self) -> None:
        """Keep what the handler did; its hooks cannot take those of others with them."""
        hooks: list[Any] = self._connection.run_on_commit
        if len(hooks) > self._hooks:
            hooks[self._hooks :] = [(ids, hook, True) for ids, hook, _ in hooks[self._hooks :]]

    def release(self) -> None:
        """Give up the savepoint, before the next handler gets one."""
        if self.touched:
            self._run(RELEASE)

    def _run(self, sql: LiteralString) -> None:
        with (
            self._connection.wrap_database_errors,
            psycopg.Cursor(self._connection.connection) as cursor,
        ):
            cursor.execute(sql)


def handle(
    consumer: Consumer,
    messages: Sequence[Message],
    connection: BaseDatabaseWrapper,
    *,
    starting: Callable[[Message], None] | None = None,
    go_on: Callable[[], bool] = lambda: True,
) -> list[Handled]:
    """Call the function for each message, within the transaction that claimed them.

    Stops early when ``go_on`` says so, and, unless the consumer has declared a transaction size,
    after the first message whose handler used the database: its row locks would be held while the
    others run. After a failure the other messages of the same key are left out. Whatever was not
    called is not in the result.
    """
    handled: list[Handled] = []
    failed_lanes: set[int | None] = set()
    watch = Watch(connection)
    with watch.watching():
        for message in messages:
            if handled and not go_on():
                break
            if message.delivery.lane_id in failed_lanes:
                continue
            if message.deadline is not None and time.monotonic() >= message.deadline:
                handled.append(Handled(message, Expired(), 0.0, False))
                continue
            if starting is not None:
                starting(message)
            try:
                handled.append(_call(consumer.function, message, connection, watch))
            except TransactionLost as lost:
                lost.handled = handled
                raise
            if handled[-1].error is not None and message.delivery.lane_id is not None:
                failed_lanes.add(message.delivery.lane_id)
            if watch.touched:
                if consumer.transaction_size is None:
                    break
                if handled[-1].error is None and len(messages) > 1:
                    watch.release()
    return handled


def _call(
    function: Callable[[Message], Any],
    message: Message,
    connection: BaseDatabaseWrapper,
    watch: Watch,
) -> Handled:
    error: BaseException | None = None
    process = os.getpid()
    watch.begin()
    started = time.perf_counter()
    try:
        result = function(message)
        if result is not None and inspect.isawaitable(result):
            error = _never_awaited(result)
    # SystemExit and the like too: a handler must not be able to end its worker.
    except BaseException as raised:
        error = raised
    duration = time.perf_counter() - started
    if os.getpid() != process:  # a child that the handler forked: the transaction is its parent's
        os._exit(1)
    error = error or _left_broken(connection)
    if error is not None:
        _check_transaction(connection, message, error)
        watch.undo()
    else:
        watch.keep()
    return Handled(message, error, duration, watch.touched)


def _never_awaited(result: Any) -> TypeError:
    """Return the error of a function that only made a coroutine."""
    if inspect.iscoroutine(result):
        result.close()
    return TypeError(
        f"The consumer returned a {type(result).__name__} that nobody awaits; nothing was done. "
        f"Run it in the consumer, with asgiref.sync.async_to_sync."
    )


def _left_broken(connection: BaseDatabaseWrapper) -> BaseException | None:
    """Find what a handler that returned has left behind."""
    if connection.closed_in_transaction or connection.connection is None:
        return RuntimeError("The handler closed the database connection of its transaction.")
    status = connection.connection.pgconn.transaction_status
    if status == TransactionStatus.INERROR or connection.needs_rollback:
        return RuntimeError(
            "The handler caught a database error and returned; nothing after that error was "
            "stored. Put the statement that may fail in its own atomic() block."
        )
    if status != TransactionStatus.INTRANS:
        return RuntimeError("The handler ended the transaction that held its message.")
    return None


def _check_transaction(
    connection: BaseDatabaseWrapper, message: Message, error: BaseException
) -> None:
    """Raise TransactionLost when a rollback to the savepoint cannot save the transaction."""
    if connection.closed_in_transaction or connection.connection is None:
        raise TransactionLost(message, error, guilty=True) from error
    status = connection.connection.info.transaction_status
    if status == TransactionStatus.IDLE:
        raise TransactionLost(message, error, guilty=True, ended=True) from error
    if status == TransactionStatus.UNKNOWN or is_conflict(error):
        raise TransactionLost(message, error, guilty=False) from error


def is_conflict(error: BaseException) -> bool:
    """Tell whether the database chose this transaction as the loser of a conflict."""
    cause = error.__cause__ or error
    return isinstance(cause, errors.DeadlockDetected | errors.SerializationFailure)
