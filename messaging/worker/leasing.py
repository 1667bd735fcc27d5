"""Lease: hold a message, handle it in a transaction of its own, and settle it by its token.

The transaction that ends the lease is that of the effects. A worker that comes too late, because it
was stopped or cut off for longer than its lease, rolls them back and goes on.
"""

import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from django.db import DatabaseError, InterfaceError, OperationalError, transaction

from .. import leasing, signals
from ..acknowledgement import outcome_of
from ..exceptions import LeaseLost, NotSupported
from ..handling import TransactionLost, handle_leased, is_conflict
from ..messages import Message, Outcome
from ..settling import Lease, Seconds
from ..store import leases
from ..store import limits as places
from ..store.connection import connection_for
from .heart import Heart
from .limits import Limits
from .losses import INNOCENT_LOSSES, is_answer
from .work import Work

logger = logging.getLogger("messaging")

# How soon to look again when other workers have taken all the places of a queue, seconds.
PLACE_WAIT = 0.1
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
    """Return how long a consumer's leases last between two heartbeats."""
    lease = work.consumer.lease
    return max(SHORTEST, work.source.policy.visibility_timeout) if lease is None else lease


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
                limit = _room(work, limit, worker, using)
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


def _room(work: Work, limit: int, worker: str, using: str | None) -> int:
    """Return how many of ``limit`` messages the queue lets anybody hold now."""
    connection = connection_for(using)
    policy = work.source.policy
    if policy.single_active_consumer and leases.held_by_others(connection, policy.id, worker):
        return 0  # what another worker holds that was the active one before
    if policy.concurrency_limit is None:
        return limit
    return min(limit, places.free_leases(connection, policy.id, policy.concurrency_limit))


@dataclass(kw_only=True)
class Leaseholder:
    """Runs the leased consumers of one thread, a message at a time."""

    worker: str
    using: str | None
    # None in a test, where nothing lasts long enough.
    heart: Heart | None
    thorough: bool
    starting: Callable[[Work, Message], None]
    joining: Callable[[Message], AbstractContextManager[None]]
    waiting: Callable[[float], object]
    go_on: Callable[[], bool]

    def serve(self, work: Work, limits: Limits | None) -> list[Outcome]:
        """Claim and handle the next message; return what was settled."""
        messages, outcomes = claim(
            work, 1, limits, worker=self.worker, using=self.using, thorough=self.thorough
        )
        for message in messages:
            message.lease = HandlersLease(message, work.source.policy, self.worker, self.using)
            outcome = self._handle(work, message)
            if outcome is not None:
                outcomes.append(outcome)
        return outcomes

    def _handle(self, work: Work, message: Message) -> Outcome | None:
        heart = self.heart
        beating = heart.beating(message.delivery, seconds_of(work)) if heart else nullcontext()
        with beating, self.joining(message):
            self.starting(work, message)
            try:
                return self._bring_to_an_end(work, message)
            except LeaseLost:
                report_lost(message, self.worker)
                return None

    def _bring_to_an_end(self, work: Work, message: Message) -> Outcome | None:
        """Handle until that comes to something: what the database undid is done again."""
        policy = work.source.policy
        for losses in range(1, INNOCENT_LOSSES + 1):
            try:
                return self._transact(work, message)
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

    def _transact(self, work: Work, message: Message) -> Outcome:
        """Handle, end the lease and commit; raise what rolled it back."""
        connection = connection_for(self.using)
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
                with transaction.atomic(using=connection_for(self.using).alias):
                    self._end(work, outcome)
                return outcome
            except (OperationalError, InterfaceError) as error:
                if not self._is_still_held(outcome.message, error):
                    return None

    def _end(self, work: Work, outcome: Outcome) -> None:
        """End the lease and settle, in this transaction; raise LeaseLost when it is too late."""
        held = leasing.settle_held(work.source, [outcome], self.worker, using=self.using)
        if not held:
            raise LeaseLost(outcome.delivered.message_id)

    def _is_still_held(self, message: Message, error: BaseException) -> bool:
        """Get a usable connection and look whether the lease was settled or lost meanwhile."""
        wait = FIRST_RECONNECT
        while self.go_on():
            connection = connection_for(self.using)
            try:
                if is_conflict(error):
                    time.sleep(random.uniform(0, 0.02))  # noqa: S311 - lets the winner finish
                elif not connection.in_atomic_block:
                    connection.close_if_unusable_or_obsolete()
                if leases.is_held(connection, message.delivery):
                    return True
                report_lost(message, self.worker)
                return False
            except (OperationalError, InterfaceError) as lost:
                error = lost
                logger.warning(
                    "Worker reconnects worker=%s in=%.1f error=%s",
                    self.worker,
                    wait,
                    signals.printable(lost, 200),
                )
                connection.close()
                self.waiting(wait * random.uniform(0.5, 1))  # noqa: S311 - spreads reconnects
                wait = min(wait * 2, LAST_RECONNECT)
        return False


def report_lost(message: Message, worker: str) -> None:
    """Log that a message was settled by another, or its lease ended, before it was handled."""
    logger.warning(
        "Message lost its lease, effects rolled back id=%s queue=%s attempt=%s worker=%s",
        message.id,
        message.queue,
        message.attempt,
        worker,
    )


def release(messages: Sequence[Message], work: Work, worker: str, using: str | None) -> None:
    """Give back messages that nobody has run, uncounted."""
    connection = connection_for(using)
    delivered = [message.delivery for message in messages]
    with transaction.atomic(using=connection.alias):
        leasing.settle_held(work.source, [], worker, using=using, released=delivered)
