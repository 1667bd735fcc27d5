"""Handle: call the consumer's function for each message, and undo a failing one alone."""

import inspect
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import errors
from psycopg.pq import TransactionStatus

from .answering import Answer, answerable
from .causation import cause
from .consuming import Consumer
from .exceptions import Expired
from .messages import Message
from .timeouts import TimeLimit
from .watch import Watch

IN_TRANSACTION = TransactionStatus.INTRANS


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
    watch.begin()
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
                handled.append(_call(consumer, message, connection, watch))
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


def handle_leased(consumer: Consumer, message: Message, connection: BaseDatabaseWrapper) -> Handled:
    """Call the function in a transaction of its own, which only its first SQL begins.

    What a failing handler did is left for the caller to roll back.
    """
    watch = Watch(connection)
    watch.begin()
    with watch.watching():
        result, error, duration = call(
            consumer, message, message, connection, has_begun=lambda: watch.touched
        )
        if message.answer is not None:
            error = error or _reply(message, result)
    if error is not None and watch.touched:
        check_transaction(connection, message, error)
    return Handled(message, error, duration, watch.touched)


def _call(
    consumer: Consumer, message: Message, connection: BaseDatabaseWrapper, watch: Watch
) -> Handled:
    """Call the function for one message, and undo what it did when it fails."""
    if watch.touched:  # by the one before
        watch.begin()
    result, error, duration = call(consumer, message, message, connection)
    if message.answer is not None:
        error = error or _reply(message, result)
    if error is not None:
        check_transaction(connection, message, error)
        watch.undo()
    else:
        watch.keep()
    return Handled(message, error, duration, watch.touched)


def _reply(message: Message, result: Any) -> Exception | None:
    """Reply with what the handler returned, where a reply is wanted; return what went wrong."""
    if not isinstance(message.answer, Answer):
        return None
    try:
        message.answer.give_result(result)
    except Exception as error:  # whatever it is, the message has failed
        return error
    return None


def call(
    consumer: Consumer,
    argument: Any,
    first: Message,
    connection: BaseDatabaseWrapper,
    *,
    has_begun: Callable[[], bool] = lambda: True,
) -> tuple[Any, BaseException | None, float]:
    """Call the function in its time; return its result, its error and how long it took.

    ``first`` is the message that is the cause of what is sent meanwhile.
    """
    result: Any = None
    error: BaseException | None = None
    limit = None if consumer.timeout is None else TimeLimit(consumer.timeout, connection)
    process = os.getpid()
    causing = cause.set(first)
    if argument is first:
        if first.reply_to is not None:
            answerable(first, connection.alias)
    else:
        for message in argument:
            if message.reply_to is not None:
                answerable(message, connection.alias)
    started = time.perf_counter()
    # Two blocks: the inner one's end is the last moment at which a timeout can be raised.
    try:
        try:
            if limit is not None:
                limit.begin()
            result = consumer.function(argument)
        finally:
            if limit is not None:
                limit.end()
    # SystemExit and the like too: a handler must not be able to end its worker.
    except BaseException as raised:
        error = raised
    duration = time.perf_counter() - started
    cause.reset(causing)
    if os.getpid() != process:  # a child that the handler forked: the transaction is its parent's
        os._exit(1)
    if error is None and result is not None and inspect.isawaitable(result):
        error = _never_awaited(result)
    error = error or _left_broken(connection, has_begun())
    if limit is not None:
        limit.close()
        error = error and limit.explain(error)
    return result, error, duration


def _never_awaited(result: Any) -> TypeError:
    """Return the error of a function that only made a coroutine."""
    if inspect.iscoroutine(result):
        result.close()
    return TypeError(
        f"The consumer returned a {type(result).__name__} that nobody awaits; nothing was done. "
        f"Run it in the consumer, with asgiref.sync.async_to_sync."
    )


def _left_broken(connection: BaseDatabaseWrapper, has_begun: bool) -> BaseException | None:
    """Find what a handler that returned has left behind."""
    raw = connection.connection
    if raw is None or connection.closed_in_transaction:
        return RuntimeError("The handler closed the database connection of its transaction.")
    status = raw.pgconn.transaction_status
    if status == IN_TRANSACTION and not connection.needs_rollback:
        return None
    if status == TransactionStatus.INERROR or connection.needs_rollback:
        return RuntimeError(
            "The handler caught a database error and returned; nothing after that error was "
            "stored. Put the statement that may fail in its own atomic() block."
        )
    if has_begun and status != IN_TRANSACTION:
        return RuntimeError("The handler ended the transaction that held its message.")
    return None


def check_transaction(
    connection: BaseDatabaseWrapper, message: Message, error: BaseException
) -> None:
    """Raise TransactionLost when a rollback to the savepoint cannot save the transaction."""
    if connection.closed_in_transaction or connection.connection is None:
        raise TransactionLost(message, error, guilty=True) from error
    status = connection.connection.info.transaction_status
    if status == TransactionStatus.IDLE:
        raise TransactionLost(message, error, guilty=True, ended=True) from error
    if status == TransactionStatus.ACTIVE:  # a timeout has left a statement half-way
        raise TransactionLost(message, error, guilty=True) from error
    if status == TransactionStatus.UNKNOWN or is_conflict(error):
        raise TransactionLost(message, error, guilty=False) from error


def is_conflict(error: BaseException) -> bool:
    """Tell whether the database chose this transaction as the loser of a conflict."""
    cause = error.__cause__ or error
    return isinstance(cause, errors.DeadlockDetected | errors.SerializationFailure)
