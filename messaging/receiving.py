"""Receive: pull messages from a queue under a lease, and settle them when they are handled.

Receiving commits by itself: a lease that its caller could roll back would hold nothing. Settling
joins the caller's transaction, so that effects and acknowledgement commit together or not at all.
"""

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

from asgiref.sync import sync_to_async
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from . import conf, leasing, maintenance
from .answering import answerable
from .ear import AsyncEar, Ear
from .engines import wakeup
from .exceptions import InvalidOption, NotSupported, UnknownQueue
from .limits import PLACE_WAIT, RENEW_EVERY, Limits
from .messages import Message, Outcome
from .names import check_queue_name
from .policies import QueuePolicy
from .settling import MAX_LEASE, Lease, Seconds, check_seconds, release_many
from .store.configuration import policies
from .store.connection import connection_for
from .store.publishing import known_names

MAX_LIMIT = 1_000
MAX_WAIT = 3_600
TIDY_EVERY = 1.0
RETRY_DUE = 0.1


def receive(
    queue: str,
    *,
    limit: int = 1,
    lease: Seconds | None = None,
    wait: Seconds = 0,
    using: str | None = None,
) -> list[Message]:
    """Take up to ``limit`` messages (1 to 1,000) of a queue and hold them for ``lease`` seconds.

    ``lease`` is 0 to 43,200 (12 hours), by default the queue's visibility timeout. With nothing
    ready it waits up to ``wait`` seconds, 0 to 3,600 (SQS: long polling), and returns an empty list
    after that. A paused queue gives nothing; of an ordering key one message is out at a time.

    A queue's limits hold for all who consume it together, workers and receivers: what is held under
    a lease is in flight. Of a queue with a single active consumer, a process takes the turn when it
    looks for messages and nobody else has it, and gives it up 3 seconds after its last look: it
    keeps it while it waits. Nobody else gets any message before its leases have ended.

    Each message is settled once: ``message.acknowledge()`` in the transaction of its effects,
    ``release(after=)``, ``reject(reason)``; ``extend(seconds)`` holds it for longer. What is not
    settled in time counts as a failed delivery and comes again, at the limit it is dead with the
    reason ``timeout``; settling it then raises LeaseLost and changes nothing.

    Raises UnknownQueue, InvalidOption, and NotSupported inside ``transaction.atomic()``, where the
    lease could be rolled back; the transaction of a ``TestCase`` is not in the way.
    """
    reception = Reception(queue, limit, lease, wait, using)
    found = reception.look(thorough=True)
    if found or reception.is_over:
        return found
    with Ear(using) as ear:
        while not found and not reception.is_over:
            ear.wait(reception.queue_id, reception.pause())
            found = reception.look()
    return found


async def areceive(
    queue: str,
    *,
    limit: int = 1,
    lease: Seconds | None = None,
    wait: Seconds = 0,
    using: str | None = None,
) -> list[Message]:
    """Receive from async code; the same as :func:`receive`, and holds no thread while it waits."""
    reception = Reception(queue, limit, lease, wait, using)
    found = await _look(reception, thorough=True)
    if found or reception.is_over:
        return found
    async with AsyncEar(using) as ear:
        while not found and not reception.is_over:
            await ear.wait(reception.queue_id, reception.pause())
            found = await _look(reception)
    return found


async def _look(reception: "Reception", *, thorough: bool = False) -> list[Message]:
    """Look in a thread; whoever is cancelled meanwhile gives back what was found for him."""
    looking = asyncio.ensure_future(sync_to_async(reception.look)(thorough=thorough))
    try:
        return await asyncio.shield(looking)
    except asyncio.CancelledError:
        found = await looking
        await sync_to_async(release_many)(found)
        raise


class Reception:
    """One call of receive(): what it asks for, and until when."""

    def __init__(
        self, queue: str, limit: int, lease: Seconds | None, wait: Seconds, using: str | None
    ) -> None:
        self._queue = check_queue_name(queue)
        self._limit = _check_limit(limit)
        self._lease = None if lease is None else check_seconds("lease", lease, MAX_LEASE)
        self._until = time.monotonic() + check_seconds("wait", wait, MAX_WAIT)
        self._using = using
        self._due_in: float | None = None
        self._limits = Limits(leasing.holder(), using)
        # How soon to look again because of a limit, seconds.
        self._limited_for: float | None = None
        self.queue_id = 0

    @property
    def is_over(self) -> bool:
        """Whether the time to wait is up."""
        return time.monotonic() >= self._until

    def pause(self) -> float:
        """Return how long to wait until the next look, if nothing is heard, in seconds."""
        pause: float = min(conf.POLL_INTERVAL, self._until - time.monotonic())
        if self._due_in is not None:
            # Not in circles: another may be about to make due what is due.
            pause = min(pause, max(RETRY_DUE, self._due_in))
        if self._limited_for is not None:
            pause = min(pause, self._limited_for)
        return max(0.0, pause)

    def look(self, *, thorough: bool = False) -> list[Message]:
        """Take what is ready."""
        connection = connection_for(self._using)
        check_commits(connection, "receive()", "the lease")
        if _tidied.is_long_ago(connection):
            self._tidy(connection)
        policy = self._policy(connection)
        self._limited_for = None
        if policy.paused:
            return []
        if policy.is_limited:
            return self._look_within_limits(policy, connection, thorough)
        return self._look_everywhere(policy, connection, self._limit, thorough)

    def _look_within_limits(
        self, policy: QueuePolicy, connection: BaseDatabaseWrapper, thorough: bool
    ) -> list[Message]:
        """Take what this process may have now of what is ready."""
        if policy.single_active_consumer:
            self._limited_for = RENEW_EVERY
            self._limits.renew([policy])
            if not self._limits.is_active(policy):
                return []
        permits = self._limits.take(policy, self._limit)
        if not permits.granted:
            self._come_back_in(permits.wait)
            return []
        found = self._look_everywhere(policy, connection, permits.granted, thorough)
        self._limits.give_back(policy, permits.granted - len(found))
        return found

    def _come_back_in(self, seconds: float) -> None:
        """Look again in so many seconds at the latest, since a limit lets nothing through."""
        known = self._limited_for
        self._limited_for = seconds if known is None else min(known, seconds)

    def _look_everywhere(
        self, policy: QueuePolicy, connection: BaseDatabaseWrapper, limit: int, thorough: bool
    ) -> list[Message]:
        """Take what is ready; or what has become due, or was held for too long, since last time."""
        return (
            self._take(policy, connection, limit)
            or (self._take(policy, connection, limit) if self._tidy(connection) else [])
            or (self._take(policy, connection, limit, thorough=True) if thorough else [])
        )

    def _tidy(self, connection: BaseDatabaseWrapper) -> bool:
        """Do what workers do as well, for a project without any; return whether it helped."""
        _tidied.note(connection)
        swept = leasing.sweep_expired(self._using)
        arrivals, more = maintenance.promote_due(self._using)
        if arrivals:
            wakeup.announce(connection, arrivals)
        self._due_in = 0.0 if more else maintenance.seconds_until_due(self._using)
        return bool(swept or arrivals)

    def _policy(self, connection: BaseDatabaseWrapper) -> QueuePolicy:
        found = policies(connection, names=[self._queue])
        if not found:
            raise UnknownQueue(self._queue, known_names(connection, False))
        self.queue_id = found[0].id
        return found[0]

    def _take(
        self,
        policy: QueuePolicy,
        connection: BaseDatabaseWrapper,
        limit: int,
        *,
        thorough: bool = False,
    ) -> list[Message]:
        """Claim, hold and commit; what cannot be delivered makes room for what can."""
        seconds = policy.visibility_timeout if self._lease is None else self._lease
        source = leasing.source_for(policy, self._using)
        worker = leasing.holder()
        messages: list[Message] = []
        settled: list[Outcome] = []
        held_back = False

        def choose(found: Sequence[Message]) -> tuple[list[Message], dict[int, float]]:
            nonlocal held_back
            chosen, waits = self._limits.choose(connection, policy, found)
            held_back = len(chosen) < len(found)
            return chosen, waits

        try:
            with transaction.atomic(using=connection.alias):
                if policy.is_limited:
                    limit = self._limits.hold(connection, policy, limit)
                if not limit:
                    self._come_back_in(PLACE_WAIT)
                while limit and not messages:
                    held_back = False
                    messages, outcomes = leasing.lease(
                        source,
                        limit,
                        seconds,
                        worker,
                        using=self._using,
                        thorough=thorough,
                        choose=choose if policy.key_rate_limit is not None else None,
                    )
                    settled += outcomes
                    if not outcomes and not source.tidied and not held_back:
                        break
                if settled:
                    leasing.note(connection, policy, settled, worker)
        except BaseException:
            source.rewind()
            raise
        for message in messages:
            message.lease = Lease(message, policy, worker, self._using)
            answerable(message, self._using)
        return messages


class Tidied(threading.local):
    """When this thread last looked for what is due."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}

    def is_long_ago(self, connection: BaseDatabaseWrapper) -> bool:
        """Whether it is time to do it again."""
        return time.monotonic() >= self._at.get(connection.alias, 0.0) + TIDY_EVERY

    def note(self, connection: BaseDatabaseWrapper) -> None:
        """Note that it does so now."""
        self._at[connection.alias] = time.monotonic()


_tidied = Tidied()


def check_commits(connection: BaseDatabaseWrapper, call: str, what: str) -> None:
    """Refuse a call where what it makes would not be committed at once."""
    blocks: Sequence[Any] = connection.atomic_blocks
    in_test = bool(blocks) and blocks[-1]._from_testcase
    if (connection.in_atomic_block and not in_test) or not (
        connection.in_atomic_block or connection.get_autocommit()
    ):
        raise NotSupported(
            f"{call} was called inside a transaction, whose rollback would undo {what}. Call "
            "it outside of transaction.atomic() (and of ATOMIC_REQUESTS: "
            "@transaction.non_atomic_requests), and acknowledge inside."
        )


def _check_limit(limit: object) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise InvalidOption("limit", limit, f"use 1 to {MAX_LIMIT:,} messages")
    return limit
