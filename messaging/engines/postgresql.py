"""The engine that keeps messages in PostgreSQL, in the transaction of its caller."""

import time
from collections.abc import Sequence

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..messages import Delivered, MessageId, Outcome, Settlement
from ..policies import QueuePolicy
from ..store import deadletters, deliveries, publishing
from ..store.connection import connection_for, refusal
from . import wakeup
from .hints import Hints


class PostgreSQLEngine:
    """Messages are rows; what a caller rolls back never existed."""

    def store(self, outgoing: publishing.Outgoing, using: str | None) -> list[MessageId] | None:
        connection = connection_for(using)
        try:
            stored = publishing.publish(connection, outgoing)
        except DatabaseError as error:
            if explained := refusal(error):
                raise explained from error
            raise
        if stored is None:
            return None
        if stored.duplicate:
            return [MessageId.of_duplicate(stored.ids[0])]
        if stored.placed:
            self._announce(connection, outgoing, stored)
        return [MessageId(message_id) for message_id in stored.ids]

    def source(self, policy: QueuePolicy, using: str | None) -> "PostgreSQLSource":
        return PostgreSQLSource(policy, connection_for(using))

    def take_lost(self, delivered: Delivered, using: str | None) -> tuple[Delivered | None, bool]:
        return deliveries.take_lost(
            connection_for(using),
            queue_id=delivered.queue_id,
            priority=delivered.priority,
            delivery_id=delivered.id,
        )

    def _announce(
        self,
        connection: BaseDatabaseWrapper,
        outgoing: publishing.Outgoing,
        stored: publishing.Stored,
    ) -> None:
        """Tell the workers after the commit; a lost wake-up costs latency, never a message."""
        if not connection.in_atomic_block and not connection.get_autocommit():
            return  # Django runs no hooks for those who commit by hand: the workers' polls find it
        arrivals = [
            wakeup.Arrival(queue_id, outgoing.priority, first, count)
            for queue_id, first, count in stored.placed
        ]
        if not connection.in_atomic_block:
            wakeup.announce(connection, arrivals)
            return
        transaction.on_commit(
            lambda: wakeup.announce(connection, arrivals),
            using=connection.alias,
            robust=True,
        )


class PostgreSQLSource:
    """One queue as one worker thread reads it; remembers how far it has come."""

    def __init__(self, policy: QueuePolicy, connection: BaseDatabaseWrapper) -> None:
        self.policy = policy
        self._connection = connection
        self._hints = Hints()

    def claim(self, limit: int, *, thorough: bool = False) -> list[deliveries.Claimed]:
        if thorough or self._hints.sweep_due():
            return self._sweep(limit)
        return self._take(limit)

    def _take(self, limit: int) -> list[deliveries.Claimed]:
        claimed: list[deliveries.Claimed] = []
        for priority in self._hints.priorities:
            after = self._hints.position(priority)
            rows = deliveries.claim(
                self._connection,
                queue_id=self.policy.id,
                priority=priority,
                after=after,
                limit=limit - len(claimed),
            )
            if rows:
                self._hints.advance(priority, rows[-1].id)
                claimed += rows
                if len(claimed) >= limit:
                    break
        return claimed

    def _sweep(self, limit: int) -> list[deliveries.Claimed]:
        """Claim without hints, and find the priorities that nobody announced."""
        started = time.monotonic()
        self._hints.forget()
        found = deliveries.priorities(self._connection, self.policy.id)
        self._hints.swept(0, found)
        claimed = self._take(limit) if found else []
        self._hints.swept(time.monotonic() - started, found)
        return claimed

    def put_back(self, delivered: Sequence[Delivered]) -> None:
        deliveries.put_back(self._connection, delivered)
        for each in delivered:
            self._hints.lower(each.priority, each.id)

    def settle(self, outcomes: Sequence[Outcome], worker: str) -> None:
        retries = [o for o in outcomes if o.settlement is Settlement.RETRY]
        dead = [o for o in outcomes if o.settlement is Settlement.DEAD]
        if retries:
            deliveries.schedule(
                self._connection,
                [o.delivered for o in retries],
                [o.delivered.attempt + o.counts for o in retries],
                [o.after for o in retries],
            )
        if dead:
            deadletters.bury(self._connection, dead)
        if failed := [o for o in outcomes if o.failure is not None]:
            deadletters.record_attempts(self._connection, failed, worker)

    def notice(self, priority: int, first: int) -> None:
        self._hints.lower(priority, first)

    def rewind(self) -> None:
        self._hints.forget()


ENGINE = PostgreSQLEngine()
