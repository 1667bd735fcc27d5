"""Batch: call the consumer's function once for many messages, all or none.

A batch that fails is undone, and none of its messages has failed yet: smaller batches follow until
the one at fault is alone. So one poisoned message costs its neighbours a few calls, and no attempt.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from . import signals
from .consuming import Consumer
from .exceptions import Expired, Retry
from .handling import Handled, TransactionLost, call, check_transaction
from .messages import Message
from .watch import Watch


def handle_batch(
    consumer: Consumer,
    messages: Sequence[Message],
    connection: BaseDatabaseWrapper,
    *,
    starting: Callable[[Message], None] | None = None,
) -> list[Handled]:
    """Call the function with the messages, within the transaction that claimed them.

    Messages that are in the result are done with. When a batch of several has failed they are not
    in it; what has expired is.
    """
    now = time.monotonic()
    late = [m for m in messages if m.deadline is not None and now >= m.deadline]
    expired = [Handled(message, Expired(), 0.0, False) for message in late]
    batch = [m for m in messages if m.deadline is None or now < m.deadline]
    if not batch:
        return expired
    if starting is not None:
        starting(batch[0])
    watch = Watch(connection)
    with watch.watching():
        watch.begin()
        result, error, duration = call(consumer, list(batch), batch[0], connection)
        outcomes: list[BaseException | None] = []
        if error is None:
            try:
                outcomes = _outcomes(result, batch)
            except TypeError as wrong:
                error = wrong
        if error is None:
            watch.keep()
        else:
            try:
                check_transaction(connection, batch[0], error)
            except TransactionLost as lost:
                lost.handled = expired
                lost.guilty = lost.guilty and len(batch) == 1
                raise
            watch.undo()
            if len(batch) > 1 and not isinstance(error, Retry):
                signals.report_batch(consumer.queue, len(batch), error)
                return expired
            outcomes = [error] * len(batch)
    share = duration / len(batch)
    return expired + [
        Handled(message, outcome, share, watch.touched)
        for message, outcome in zip(batch, outcomes, strict=True)
    ]


def _outcomes(result: Any, batch: Sequence[Message]) -> list[BaseException | None]:
    """Return what the function says of each message; anything but a list or a mapping: all done."""
    if isinstance(result, Mapping):
        if unknown := result.keys() - {message.id for message in batch}:
            raise TypeError(
                f"The consumer returned outcomes of {len(unknown)} messages that it was not given, "
                f"such as {next(iter(unknown))!r}. The keys are message ids; leave out those that "
                f"are done, or return None when all are."
            )
        return [_outcome(result.get(message.id), message) for message in batch]
    if isinstance(result, list | tuple):
        if len(result) != len(batch):
            raise TypeError(
                f"The consumer returned {len(result)} outcomes for {len(batch)} messages. Return "
                f"one for each, in their order, or None when all are done."
            )
        return [_outcome(each, message) for each, message in zip(result, batch, strict=True)]
    return [None] * len(batch)


def _outcome(outcome: Any, message: Message) -> BaseException | None:
    if outcome is None or outcome is True:
        return None
    if isinstance(outcome, BaseException):
        return outcome
    raise TypeError(
        f"The consumer returned {type(outcome).__name__} as the outcome of message {message.id}. "
        f"Use None or True for done, or an exception such as Retry() or Reject()."
    )
