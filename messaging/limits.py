"""Limits: what one process may do, so that all of them together keep to a queue's limits.

Permits of a rate are taken in a transaction of their own before a claim, and those not used are
given back: a row that all workers write must not be locked while handlers run.
"""

import time
from collections import Counter
from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from .messages import Message
from .policies import QueuePolicy
from .store import leases, limits
from .store.connection import connection_for

# A single active consumer says so again long before its time is over, seconds.
ACTIVE_FOR = 3.0
RENEW_EVERY = 0.5
# How soon to look again when others have taken all the places of a queue, seconds.
PLACE_WAIT = 0.1


class Limits:
    """The limits of a process, by the name under which it works; its threads share it."""

    def __init__(self, worker: str, using: str | None = None) -> None:
        self._worker = worker
        self._using = using
        self._active_until: dict[int, float] = {}

    def renew(self, policies: Sequence[QueuePolicy]) -> bool:
        """Take or keep the turn of each queue with a single active consumer.

        Returns whether the process has become the active one of any. Call it every
        ``RENEW_EVERY`` seconds, from a thread that runs no handlers.
        """
        gained = False
        for policy in policies:
            if not policy.single_active_consumer:
                continue
            asked = time.monotonic()
            connection = connection_for(self._using)
            if limits.activate(connection, policy.id, self._worker, ACTIVE_FOR):
                gained = gained or not self.is_active(policy)
                self._active_until[policy.id] = asked + ACTIVE_FOR
            else:
                self._active_until.pop(policy.id, None)
        return gained

    def resign(self) -> None:
        """Leave its turns to other workers, when no thread handles anything any more."""
        if self._active_until:
            self._active_until.clear()
            limits.resign(connection_for(self._using), self._worker)

    def is_active(self, policy: QueuePolicy) -> bool:
        """Tell whether this process may consume the queue."""
        if not policy.single_active_consumer:
            return True
        return time.monotonic() < self._active_until.get(policy.id, 0.0)

    def take(self, policy: QueuePolicy, wanted: int) -> limits.Permits:
        """Take permits of the queue's rate; call it outside of a transaction."""
        if policy.rate_limit is None:
            return limits.Permits(wanted, 0.0)
        connection = connection_for(self._using)
        return limits.take_permits(connection, policy.id, policy.rate_limit, {"": wanted})[""]

    def give_back(self, policy: QueuePolicy, unused: int) -> None:
        """Return permits that no message was handled with."""
        if policy.rate_limit is not None and unused > 0:
            connection = connection_for(self._using)
            limits.give_back_permits(connection, policy.id, policy.rate_limit, unused)

    def enter(
        self, connection: BaseDatabaseWrapper, policy: QueuePolicy, wanted: int, *, at_once: bool
    ) -> int:
        """Return how many messages this transaction may claim; it holds their places till its end.

        ``at_once``: they are in flight together, in one call; otherwise one after another.
        """
        if policy.single_active_consumer and not self._has_turn(connection, policy):
            return 0
        if policy.concurrency_limit is None:
            return wanted
        places = limits.enter(
            connection, policy.id, policy.concurrency_limit, wanted if at_once else 1
        )
        return min(wanted, places) if at_once or not places else wanted

    def hold(self, connection: BaseDatabaseWrapper, policy: QueuePolicy, wanted: int) -> int:
        """Return how many messages this transaction may claim, to hold them under leases."""
        if policy.single_active_consumer and not self._has_turn(connection, policy):
            return 0
        if policy.concurrency_limit is None:
            return wanted
        limits.queue_up(connection, policy.id)
        return limits.enter(connection, policy.id, policy.concurrency_limit, wanted)

    def _has_turn(self, connection: BaseDatabaseWrapper, policy: QueuePolicy) -> bool:
        """Take a single active consumer's lock, unless another still holds any message.

        That one was the active one before; its leases end the turn when they end.
        """
        # The leases after the lock: who held the lock may have left some.
        return limits.take_turn(connection, policy.id) and not leases.held_by_others(
            connection, policy.id, self._worker
        )

    def choose(
        self, connection: BaseDatabaseWrapper, policy: QueuePolicy, messages: Sequence[Message]
    ) -> tuple[list[Message], dict[int, float]]:
        """Return the messages that the rates of their ordering keys let through now.

        And, by lane, the seconds until the next one of each key. In the transaction of the claim:
        nobody else has messages of these keys in hand.
        """
        keyed = [m for m in messages if m.ordering_key is not None and m.delivery.lane_id]
        if policy.key_rate_limit is None or not keyed:
            return list(messages), {}
        wanted = Counter(str(message.ordering_key) for message in keyed)
        permits = limits.take_permits(connection, policy.id, policy.key_rate_limit, dict(wanted))
        waits = {
            int(message.delivery.lane_id or 0): permits[str(message.ordering_key)].wait
            for message in keyed
        }
        left = {key: permit.granted for key, permit in permits.items()}
        chosen = []
        for message in messages:
            if message.ordering_key is not None and message.delivery.lane_id:
                left[message.ordering_key] -= 1
                if left[message.ordering_key] < 0:
                    continue
            chosen.append(message)
        return chosen, {lane: wait for lane, wait in waits.items() if wait > 0}
