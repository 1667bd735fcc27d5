"""Handle: call the consumer's function for each message, and undo a failing one alone."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors
from psycopg.pq import TransactionStatus

from .consuming import Consumer
from .messages import Message

SAVEPOINT = "SAVEPOINT messaging_handler"
ROLLBACK = "ROLLBACK TO SAVEPOINT messaging_handler"
RELEASE = "RELEASE SAVEPOINT messaging_handler"


class Handled(NamedTuple):
    """What calling the function came to: ``error`` None means that it returned.

    ``duration`` in seconds; ``used_database`` tells whether it ran SQL in the transaction.
    """

    message: Message
    error: BaseException | None
    duration: float
    used_database: bool


class TransactionLost(Exception):
    """The transaction of the handlers is gone; ``guilty`` when the handler itself ended it."""

    def __init__(self, message: Message, error: BaseException, *, guilty: bool) -> None:
        self.message = message
        self.error = error
        self.guilty = guilty
        super().__init__(str(error))


class Watch:
    """Sees a handler's first statement, and opens the savepoint that could undo it.

    A handler that uses no database costs no round trip.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._hooks = 0
        self.touched = False

    def __call__(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        if not self.touched:
            self._run(SAVEPOINT)
            self.touched = True
        return execute(sql, params, many, context)

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
        """Keep what the handler did, together with what the next one does."""
        if self.touched:
            self._run(RELEASE)

    def _run(self, sql: str) -> None:
        with self._connection.wrap_database_errors:
            self._connection.connection.execute(sql)


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
    others run. Whatever was not called is not in the result.
    """
    handled: list[Handled] = []
    watch = Watch(connection)
    connection.execute_wrappers.append(watch)
    try:
        for message in messages:
            if handled and not go_on():
                break
            if starting is not None:
                starting(message)
            handled.append(_call(consumer.function, message, connection, watch))
            if watch.touched:
                if consumer.transaction_size is None:
                    break
                if handled[-1].error is None and len(messages) > 1:
                    watch.keep()
    finally:
        connection.execute_wrappers.remove(watch)
    return handled


def _call(
    function: Callable[[Message], Any],
    message: Message,
    connection: BaseDatabaseWrapper,
    watch: Watch,
) -> Handled:
    error: BaseException | None = None
    watch.begin()
    started = time.perf_counter()
    try:
        function(message)
    # SystemExit and the like too: a handler must not be able to end its worker.
    except BaseException as raised:
        error = raised
    duration = time.perf_counter() - started
    error = error or _left_broken(connection, watch)
    if error is not None:
        _check_transaction(connection, message, error)
        watch.undo()
    return Handled(message, error, duration, watch.touched)


def _left_broken(connection: BaseDatabaseWrapper, watch: Watch) -> BaseException | None:
    """Find what a handler that returned has left behind."""
    if connection.closed_in_transaction or connection.connection is None:
        return RuntimeError("The handler closed the database connection of its transaction.")
    if not watch.touched:
        return None
    status = connection.connection.info.transaction_status
    if status == TransactionStatus.INERROR or connection.needs_rollback:
        return RuntimeError(
            "The handler caught a database error and returned; nothing after that error was "
            "stored. Put the statement that may fail in its own atomic() block."
        )
    return None


def _check_transaction(
    connection: BaseDatabaseWrapper, message: Message, error: BaseException
) -> None:
    """Raise TransactionLost when a rollback to the savepoint cannot save the transaction."""
    if connection.closed_in_transaction or connection.connection is None:
        raise TransactionLost(message, error, guilty=True) from error
    status = connection.connection.info.transaction_status
    if status in (TransactionStatus.UNKNOWN, TransactionStatus.IDLE):
        raise TransactionLost(message, error, guilty=status == TransactionStatus.IDLE) from error
    if is_conflict(error):
        raise TransactionLost(message, error, guilty=False) from error


def is_conflict(error: BaseException) -> bool:
    """Tell whether the database chose this transaction as the loser of a conflict."""
    cause = error.__cause__ or error
    return isinstance(cause, errors.DeadlockDetected | errors.SerializationFailure)
