"""Lease: hold a message, handle it in a transaction of its own, and settle it by its token.

The transaction that ends the lease is that of the effects. A worker that comes too late, because it
was stopped or cut off for longer than its lease, rolls them back and goes on.
"""

import logging
import random
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from asgiref.sync import async_to_sync
from django.db import DatabaseError, InterfaceError, OperationalError, transaction

from .. import leasing, signals
from ..acknowledgement import outcome_of
from ..exceptions import LeaseLost, NotSupported
from ..handling import Handled, TransactionLost, handle_leased, is_conflict
from ..limits import PLACE_WAIT, Limits
from ..messages import Message, Outcome
from ..settling import Lease, Seconds
from ..store import leases
from ..store.connection import connection_for
from .coroutines import call_all
from .deadlines import Deadlines
from .heart import Heart
from .losses import INNOCENT_LOSSES, is_answer
from .transacting import Transactor
from .work import Work

logger = logging.getLogger("messaging")

SHORTEST = 1.0
FIRST_RECONNECT = 0.1
LAST_RECONNECT = 3.0


class HandlersLease(Lease):
    """A message as a leased handler sees it, which settles it by returning or raising."""

    def acknowledge(self) -> None:
        raise self._unsupported("acknowledged", "return from the handler")

    def release(self, after: Seconds | None) -> None:
        raise self._unsupported("released", "raise Retry(after=..., counts=False)")

    def reject(self, reason: str) -> None:
        raise self._unsupported("rejected", "raise Reject(reason)")

    def _unsupported(self, what: str, remedy: str) -> NotSupported:
        return NotSupported(
            f"Message {self.message.id} cannot be {what} by its handler, whose transaction ends "
            f"its lease: {remedy} instead."
        )


class Failed(Exception):
    """A handler has failed, and what it did is being rolled back."""

    def __init__(self, error: BaseException, duration: float) -> None:
        self.error = error
        self.duration = duration
        super().__init__(str(error))


def seconds_of(work: Work) -> float:
    """Return how long a consumer's leases last between two heartbeats, a second at least."""
    lease = work.consumer.lease
    return max(SHORTEST, work.source.policy.visibility_timeout if lease is None else lease)


def claim(
    work: Work,
    limit: int,
    limits: Limits | None,
    *,
    worker: str,
    using: str | None,
    thorough: bool = False,
) -> tuple[list[Message], list[Outcome]]:
    """Claim and hold up to ``limit`` messages, as many as the queue's limits let in, and commit."""
    connection = connection_for(using)
    policy = work.source.policy
    try:
        with transaction.atomic(using=connection.alias):
            if limits is not None:
                limit = limits.hold(connection, policy, limit)
            if not limit:
                work.close(PLACE_WAIT * random.uniform(0.5, 1))  # noqa: S311
                return [], []
            return leasing.lease(
                work.source,
                limit,
                seconds_of(work),
                worker,
                using=using,
                thorough=thorough,
                choose=(lambda found: limits.choose(connection, policy, found)) if limits else None,
            )
    except DatabaseError:
        work.source.rewind()
        raise


class Leaseholder(Transactor):
    """What one thread does with messages that it holds, beside those it need not hold."""

    def __init__(self, *, heart: Heart | None, **options: Any) -> None:
        super().__init__(**options)
        # None in a test, where nothing lasts long enough.
        self._heart = heart
        self._deadlines = Deadlines(self._slots, self._slot)

    def transact(self, work: Work, limits: Limits | None, limit: int) -> list[Outcome]:
        """Handle up to ``limit`` messages in the way of their consumer; return the outcomes."""
        if not work.consumer.is_leased:
            return super().transact(work, limits, limit)
        messages, outcomes = claim(
            work, limit, limits, worker=self._name, using=self._using, thorough=self._thorough
        )
        self.claimed = bool(messages or outcomes) or work.source.tidied
        if not messages:
            return outcomes
        with ExitStack() as ends:
            for message in messages:
                if self._heart is not None:
                    ends.enter_context(self._heart.beating(message.delivery, seconds_of(work)))
            if self._company is not None:
                ends.enter_context(self._join(self._company, messages[0]))
            self._tally.started(work.consumer.queue, len(messages))
            try:
                handle = self._handle_at_once if work.consumer.is_async else self._handle_each
                return outcomes + handle(work, messages)
            finally:
                self._tally.finished(work.consumer.queue, len(messages))

    def _handle_at_once(self, work: Work, messages: Sequence[Message]) -> list[Outcome]:
        """Run an async consumer until all of its messages have ended."""
        for message in messages:
            message.lease = Lease(message, work.source.policy, self._name, self._using)
        handled = async_to_sync(call_all)(work.consumer, messages, self._deadlines)
        return settle_handled(work, handled, worker=self._name, using=self._using)

    def _handle_each(self, work: Work, messages: Sequence[Message]) -> list[Outcome]:
        outcomes = []
        for message in messages:
            message.lease = HandlersLease(message, work.source.policy, self._name, self._using)
            hard = work.consumer.hard_timeout
            deadline = 0.0 if hard is None else time.monotonic() + hard
            self._slots.start(self._slot, message.delivery, deadline)
            try:
                outcome = self._bring_to_an_end(work, message)
            except LeaseLost:
                report_lost(message, self._name)
            else:
                outcomes += [outcome] if outcome is not None else []
        return outcomes

    def _bring_to_an_end(self, work: Work, message: Message) -> Outcome | None:
        """Handle until that comes to something: what the database undid is done again."""
        policy = work.source.policy
        for losses in range(1, INNOCENT_LOSSES + 1):
            try:
                return self._handle_one(work, message)
            except Failed as failed:
                outcome = outcome_of(policy, message, failed.error, failed.duration)
            except TransactionLost as lost:
                outcome = outcome_of(policy, message, lost.error, 0.0)
                if not lost.guilty and losses < INNOCENT_LOSSES:
                    if not self._is_still_held(message, lost.error):
                        return None
                    continue
            return self._settle(work, outcome)
        return None

    def _handle_one(self, work: Work, message: Message) -> Outcome:
        """Handle, end the lease and commit; raise what rolled it back."""
        connection = connection_for(self._using)
        handled = None
        try:
            with transaction.atomic(using=connection.alias):
                handled = handle_leased(work.consumer, message, connection)
                if handled.error is not None:
                    raise Failed(handled.error, handled.duration)
                outcome = outcome_of(work.source.policy, message, None, handled.duration)
                self._end(work, outcome)
                return outcome
        except DatabaseError as error:
            # What the handler itself raised has been looked at.
            guilty = is_answer(error) and not is_conflict(error)
            raise TransactionLost(message, error, guilty=guilty) from error
        except InterfaceError as error:
            raise TransactionLost(message, error, guilty=False) from error

    def _settle(self, work: Work, outcome: Outcome) -> Outcome | None:
        """Settle a failure in a new transaction, for as long as it takes to get a connection."""
        assert outcome.message is not None  # noqa: S101
        while True:
            try:
                with transaction.atomic(using=connection_for(self._using).alias):
                    self._end(work, outcome)
                return outcome
            except (OperationalError, InterfaceError) as error:
                if not self._is_still_held(outcome.message, error):
                    return None

    def _end(self, work: Work, outcome: Outcome) -> None:
        """End the lease and settle, in this transaction; raise LeaseLost when it is too late."""
        held = leasing.settle_held(work.source, [outcome], self._name, using=self._using)
        if not held:
            raise LeaseLost(outcome.delivered.message_id)

    def _is_still_held(self, message: Message, error: BaseException) -> bool:
        """Get a usable connection and look whether the lease was settled or lost meanwhile."""
        wait = FIRST_RECONNECT
        while self._go_on():
            connection = connection_for(self._using)
            try:
                if is_conflict(error):
                    time.sleep(random.uniform(0, 0.02))  # noqa: S311 - lets the winner finish
                elif not connection.in_atomic_block:
                    connection.close_if_unusable_or_obsolete()
                if leases.is_held(connection, message.delivery):
                    return True
                report_lost(message, self._name)
                return False
            except (OperationalError, InterfaceError) as lost:
                error = lost
                logger.warning(
                    "Worker reconnects worker=%s in=%.1f error=%s",
                    self._name,
                    wait,
                    signals.printable(lost, 200),
                )
                connection.close()
                self._pause(wait * random.uniform(0.5, 1))  # noqa: S311 - spreads reconnects
                wait = min(wait * 2, LAST_RECONNECT)
        return False


def report_lost(message: Message, worker: str) -> None:
    """Log that a message was settled by another, or its lease ended, before it was handled."""
    logger.warning(
        "Message lost its lease and is not settled id=%s queue=%s attempt=%s worker=%s",
        message.id,
        message.queue,
        message.attempt,
        worker,
    )


def settle_handled(
    work: Work, handled: Sequence[Handled], *, worker: str, using: str | None
) -> list[Outcome]:
    """Settle what async handlers came to; return what was not settled before or lost."""
    policy = work.source.policy
    outcomes = [outcome_of(policy, each.message, each.error, each.duration) for each in handled]
    with transaction.atomic(using=connection_for(using).alias):
        ended = leasing.settle_held(work.source, outcomes, worker, using=using)
    for each in handled:
        lease = each.message.lease
        settled_itself = isinstance(lease, Lease) and lease.is_settled
        if each.message.delivery.token not in ended and not settled_itself:
            report_lost(each.message, worker)
    return [outcome for outcome in outcomes if outcome.delivered.token in ended]
