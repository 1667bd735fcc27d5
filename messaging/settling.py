"""Settle: acknowledge, release, reject and extend what is held under a lease.

In the caller's transaction, or one of its own. Whatever is not held any more is refused and changes
nothing, and does not hurt what is settled beside it.
"""

import datetime
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from . import leasing
from .acknowledgement import outcome_of
from .exceptions import InvalidOption, LeaseLost, MessagingError, NotSupported, Reject
from .messages import Message, Outcome, Settlement
from .policies import QueuePolicy
from .store import leases
from .store.connection import connection_for

MAX_LEASE = 12 * 3_600
MAX_AFTER = 100 * 366 * 86_400

Seconds = float | datetime.timedelta


class Lease:
    """One message as receive() and async consumers hold it."""

    def __init__(self, message: Message, policy: QueuePolicy, worker: str, using: str | None):
        self.message = message
        self.policy = policy
        self.worker = worker
        self.using = using
        # Settled in some transaction, which may not have committed.
        self.is_settled = False

    def acknowledge(self) -> None:
        self._settle(_acknowledged(self.message), "acknowledged")

    def release(self, after: Seconds | None) -> None:
        self._settle(_released(self.message, after), "released")

    def reject(self, reason: str) -> None:
        self._settle(_rejected(self.message, self.policy, reason), "rejected")

    def extend(self, seconds: Seconds) -> None:
        held = [(self.message.delivery, _check_extension(seconds))]
        if not leases.extend(connection_for(self.using), held):
            raise LeaseLost(self.message.id, "extended")

    def _settle(self, outcome: Outcome, what: str) -> None:
        if error := _settle_all([(self.message, outcome)], what)[0].error:
            raise error


class Settled(NamedTuple):
    """What settling one message of many came to: ``error`` None means that it was done."""

    message: Message
    error: MessagingError | None


def acknowledge_many(messages: Iterable[Message]) -> list[Settled]:
    """Acknowledge received messages in the caller's transaction, or in one of their own.

    Returns a result for each in order. One that is not held any more has LeaseLost as its
    ``error``, changes nothing and does not hurt the others; raise it to roll back its effects.
    """
    return _settle_all([(each, _acknowledged(each)) for each in messages], "acknowledged")


def release_many(messages: Iterable[Message], after: Seconds | None = None) -> list[Settled]:
    """Give back received messages, now or ``after`` seconds from now; a result for each."""
    return _settle_all([(each, _released(each, after)) for each in messages], "released")


def reject_many(messages: Iterable[Message], reason: str = "") -> list[Settled]:
    """Make received messages dead letters with the reason given; a result for each."""
    entries = [
        (each, _rejected(each, lease.policy, reason) if (lease := _lease_of(each)) else None)
        for each in messages
    ]
    return _settle_all(entries, "rejected")


def extend_many(messages: Iterable[Message], seconds: Seconds) -> list[Settled]:
    """Hold received messages until ``seconds`` from now; a result for each."""
    entries = list(messages)
    length = _check_extension(seconds)
    by_database: defaultdict[str | None, list[Message]] = defaultdict(list)
    for message in entries:
        if lease := _lease_of(message):
            by_database[lease.using].append(message)
    kept: set[int | None] = set()
    for using, held in by_database.items():
        kept |= leases.extend(connection_for(using), [(m.delivery, length) for m in held])
    return [Settled(m, _refusal(m, m.delivery.token in kept, "extended")) for m in entries]


def _settle_all(entries: Sequence[tuple[Message, Outcome | None]], what: str) -> list[Settled]:
    """Settle what is still held, queue by queue, and say for each entry whether it was."""
    by_source: defaultdict[tuple[str | None, int], list[tuple[Lease, Outcome]]] = defaultdict(list)
    for message, outcome in {
        id(message): (message, outcome) for message, outcome in entries
    }.values():
        lease = _lease_of(message)
        if outcome is not None and lease is not None:
            by_source[lease.using, outcome.delivered.queue_id].append((lease, outcome))
    ended: set[int] = set()
    for (using, _), held in by_source.items():
        connection = connection_for(using)
        goes_on = connection.in_atomic_block
        with transaction.atomic(using=connection.alias, savepoint=False):
            ended |= _settle_queue(connection, using, held, goes_on)
    results = []
    for message, _ in entries:
        token = message.delivery.token
        results.append(Settled(message, _refusal(message, token in ended, what)))
        # The same message a second time is one too many.
        ended.discard(token)
    return results


def _settle_queue(
    connection: BaseDatabaseWrapper,
    using: str | None,
    held: Sequence[tuple[Lease, Outcome]],
    goes_on: bool,
) -> set[int]:
    lease = held[0][0]
    source = leasing.source_for(lease.policy, using)
    released = [o.delivered for _, o in held if _is_release(o) and not o.after]
    settled = [o for _, o in held if not (_is_release(o) and not o.after)]
    ended = leasing.settle_held(
        source, settled, lease.worker, using=using, released=released, goes_on=goes_on
    )
    for each, outcome in held:
        if outcome.delivered.token in ended:
            each.is_settled = True
    counted = [o for o in settled if o.delivered.token in ended and not _is_release(o)]
    if counted:
        leasing.note(connection, lease.policy, counted, lease.worker)
    # Also what is behind it in its lane.
    back = [d for d in released if d.token in ended]
    back += [o.delivered for o in settled if o.delivered.token in ended and o.delivered.lane_id]
    leasing.announce(connection, back)
    return ended


def _acknowledged(message: Message) -> Outcome:
    return Outcome(message.delivery, Settlement.ACKNOWLEDGED, message=message)


def _released(message: Message, after: Seconds | None) -> Outcome:
    seconds = 0.0 if after is None else check_seconds("after", after, MAX_AFTER)
    return Outcome(message.delivery, Settlement.RETRY, message=message, after=seconds, counts=False)


def _rejected(message: Message, policy: QueuePolicy, reason: str) -> Outcome:
    return outcome_of(policy, message, Reject(reason), 0.0)


def _is_release(outcome: Outcome) -> bool:
    return outcome.settlement is Settlement.RETRY and not outcome.counts


def _lease_of(message: Message) -> Lease | None:
    return message.lease if isinstance(message.lease, Lease) else None


def _refusal(message: Message, done: bool, what: str) -> MessagingError | None:
    if done:
        return None
    if _lease_of(message) is not None:
        return LeaseLost(message.id, what)
    return NotSupported(
        f"Message {message.id} is not held under a lease and cannot be {what}: give messages that "
        f"receive() has returned."
    )


def _check_extension(seconds: object) -> float:
    length = check_seconds("seconds", seconds, MAX_LEASE, lowest="more than 0")
    if length <= 0:
        raise InvalidOption("seconds", seconds, f"use more than 0 to {MAX_LEASE:,} seconds")
    return length


def check_seconds(option: str, value: object, limit: float, *, lowest: str = "0") -> float:
    """Return a time as seconds, or raise InvalidOption with the range."""
    seconds = value.total_seconds() if isinstance(value, datetime.timedelta) else value
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not 0 <= seconds <= limit
    ):
        raise InvalidOption(option, value, f"use {lowest} to {limit:,} seconds")
    return float(seconds)
