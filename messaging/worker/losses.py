"""Losses: what becomes of messages whose transaction is gone, and whom that is blamed on."""

import random
import time
from collections.abc import Callable, Sequence

from django.db import DatabaseError, OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..acknowledgement import outcome_of, settle
from ..engines import engine
from ..handling import TransactionLost, is_conflict
from ..messages import Message, Outcome, Settlement
from .work import Work

# After so many lost transactions in a row a message is no longer thought innocent.
INNOCENT_LOSSES = 3
LOST_PATIENCE = 30.0


def is_answer(error: DatabaseError) -> bool:
    """Tell whether the server refused this transaction, rather than the connection."""
    sqlstate = getattr(error.__cause__, "sqlstate", None)
    # Shut down, terminated, connection lost: nothing that a message could help. A session that was
    # ended because its transaction idled (25P03) is an answer: the handler took too long.
    return sqlstate is not None and not sqlstate.startswith(("57P", "08"))


def restore(
    work: Work,
    lost: TransactionLost,
    messages: Sequence[Message],
    dead: Sequence[Outcome],
    worker: str,
    connection: BaseDatabaseWrapper,
) -> None:
    """Put back what a handler's own commit has taken from its queue for good."""
    good = {id(each.message) for each in lost.handled if each.error is None}
    unsettled = [message.delivery for message in messages if id(message) not in good]
    unsettled += [outcome.delivered for outcome in dead]
    # The tokens of their keys are gone as well.
    outcomes = [
        Outcome(message.delivery, Settlement.ACKNOWLEDGED)
        for message in messages
        if id(message) in good
    ]
    with transaction.atomic(using=connection.alias):
        settle(work.source, outcomes, worker, unhandled=unsettled)


def count(
    work: Work,
    lost: TransactionLost,
    worker: str,
    connection: BaseDatabaseWrapper,
    *,
    go_on: Callable[[], bool],
) -> list[Outcome]:
    """Count a failure whose transaction is gone, or let the message be tried again at once."""
    if connection.closed_in_transaction or not connection.is_usable():
        connection.close()
    delivered = lost.message.delivery
    if not lost.guilty:
        work.losses[delivered.id] += 1
        if work.losses[delivered.id] < INNOCENT_LOSSES:
            if not is_conflict(lost.error):
                raise OperationalError(str(lost.error)) from lost.error  # reconnect
            time.sleep(random.uniform(0, 0.02))  # noqa: S311 - lets the winner finish
            return []
    outcome = outcome_of(work.source.policy, lost.message, lost.error, 0.0)
    deadline = time.monotonic() + LOST_PATIENCE
    while time.monotonic() < deadline and go_on():
        with transaction.atomic(using=connection.alias):
            taken, held = engine().take_lost(delivered, connection.alias)
            if taken is not None:
                settle(work.source, [outcome._replace(delivered=taken)], worker)
        if taken is not None:
            return [outcome]
        if not held:
            break
        time.sleep(0.05)
    return []
