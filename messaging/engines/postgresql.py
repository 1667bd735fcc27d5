"""The engine that keeps messages in PostgreSQL, in the transaction of its caller."""

import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from django.db import DatabaseError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..messages import Delivered, MessageId, Outcome, Settlement
from ..policies import QueuePolicy
from ..store import commits, deadletters, deliveries, lanes, leases, publishing, receipts
from ..store.connection import connection_for, explaining
from . import wakeup
from .hints import Hints

PRIORITIES = range(-100, 101)
NO_WAITS: Mapping[int, float] = MappingProxyType({})


class PostgreSQLEngine:
    """Messages are rows; what a caller rolls back never existed."""

    def store(self, outgoing: publishing.Outgoing, using: str | None) -> list[MessageId] | None:
        connection = connection_for(using)
        # The context costs as much as the call, so only a failure enters it.
        try:
            stored = publishing.publish(connection, outgoing)
        except DatabaseError:
            with explaining(connection, outgoing.message_id):
                raise
        if stored is publishing.NEEDS_BLOCK:
            return self._store_in_block(connection, outgoing)
        return self._ids(connection, outgoing, stored)

    def _store_in_block(
        self, connection: BaseDatabaseWrapper, outgoing: publishing.Outgoing
    ) -> list[MessageId] | None:
        with (
            explaining(connection, outgoing.message_id),
            transaction.atomic(using=connection.alias),
        ):
            # In here too: a block that fails makes a new connection, if it has to.
            with explaining(connection, outgoing.message_id):
                stored = publishing.publish_in_block(connection, outgoing)
            return self._ids(connection, outgoing, stored)

    def _ids(
        self,
        connection: BaseDatabaseWrapper,
        outgoing: publishing.Outgoing,
        stored: publishing.Published,
    ) -> list[MessageId] | None:
        if not isinstance(stored, publishing.Stored):
            return None
        if not stored.duplicates:
            self._announce(connection, outgoing, stored)
            return list(map(MessageId, stored.ids))
        if len(stored.duplicates) < len(stored.ids):
            self._announce(connection, outgoing, stored)
        return [
            MessageId.of_duplicate(message_id)
            if position in stored.duplicates
            else MessageId(message_id)
            for position, message_id in enumerate(stored.ids)
        ]

    def source(self, policy: QueuePolicy, using: str | None) -> "PostgreSQLSource":
        return PostgreSQLSource(policy, connection_for(using))

    def take_lost(self, delivered: Delivered, using: str | None) -> tuple[Delivered | None, bool]:
        connection = connection_for(using)
        if delivered.token is not None:
            return leases.take_lost(connection, delivered)
        taken, held = deliveries.take_lost(
            connection,
            queue_id=delivered.queue_id,
            # A token has the priority of what was first in its lane.
            priorities=PRIORITIES if delivered.lane_id else [delivered.priority],
            delivery_id=delivered.id,
        )
        if taken is None or not delivered.entry_id:
            return taken, held
        entry = lanes.take_one(connection, taken, delivered.entry_id)
        if entry is None:  # purged meanwhile; the token goes on
            lanes.pass_on(connection, taken.queue_id, [(int(taken.lane_id or 0), False)])
        return entry, False

    def _announce(
        self,
        connection: BaseDatabaseWrapper,
        outgoing: publishing.Outgoing,
        stored: publishing.Stored,
    ) -> None:
        """Tell the workers after the commit; a lost wake-up costs latency, never a message."""
        if not connection.in_atomic_block and not connection.autocommit:
            return  # Django runs no hooks for those who commit by hand: the workers' polls find it
        arrivals = [
            wakeup.Arrival(queue_id, outgoing.priority, first, count)
            for queue_id, first, count in stored.placed
        ]
        if connection.in_atomic_block:
            ids = stored.ids if outgoing.message_id is None else [outgoing.message_id]
            commits.watch_commit(connection)
            hook = commits.AfterCommit(ids, partial(wakeup.announce, connection, arrivals))
            transaction.on_commit(hook, using=connection.alias, robust=True)
        elif arrivals:
            wakeup.announce(connection, arrivals)


class PostgreSQLSource:
    """One queue as one worker thread reads it; remembers how far it has come."""

    def __init__(self, policy: QueuePolicy, connection: BaseDatabaseWrapper) -> None:
        self.policy = policy
        self._connection = connection
        self._hints = Hints()
        # Whether the last claim found nothing but tokens that nothing was behind.
        self.tidied = False

    def claim(
        self, limit: int, *, thorough: bool = False, one_a_lane: bool = False
    ) -> list[deliveries.Claimed]:
        self.tidied = False
        sweeping = thorough or self._hints.sweep_due()
        claimed = self._sweep(limit) if sweeping else self._take(limit)
        if all(row.lane_id is None for row in claimed):
            return claimed
        return self._expand(claimed, limit, one_a_lane)

    def _expand(
        self, claimed: Sequence[deliveries.Claimed], limit: int, one_a_lane: bool
    ) -> list[deliveries.Claimed]:
        """Replace tokens by what waits in their lanes."""
        tokens: dict[int, deliveries.Claimed] = {}
        plain, surplus = [], []
        for row in claimed:
            if row.lane_id is None:
                plain.append(row)
            elif row.lane_id in tokens:
                surplus.append(Delivered._make(row[:10]))
            else:
                tokens[row.lane_id] = row
        if surplus:  # a second token of one fairness key: another worker's share
            deliveries.put_back(self._connection, surplus)
        each = 1 if one_a_lane else max(1, (limit - len(plain)) // len(tokens))
        going = [row for row in tokens.values() if row.attempt == lanes.GO]
        parking = {k: row.priority for k, row in tokens.items() if row.attempt == lanes.PARK}
        entries = lanes.take(self._connection, self.policy.id, going, each) if going else []
        found = {entry.lane_id for entry in entries}
        empty = {lane_id: row for lane_id, row in tokens.items() if lane_id not in found}
        if empty and (plain or entries):
            # Ending a lane locks it, and what the handlers send may have to wait for other lanes.
            deliveries.put_back(self._connection, [Delivered._make(r[:10]) for r in empty.values()])
        elif empty:
            self._pass_on([(lane_id, True) for lane_id in empty if lane_id not in parking])
            self._park(parking)
            self.tidied = True
        return plain + entries

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

    def settle(
        self,
        outcomes: Sequence[Outcome],
        unhandled: Sequence[Delivered],
        worker: str,
        *,
        waits: Mapping[int, float] = NO_WAITS,
        avoided: Collection[int] = (),
        goes_on: bool = False,
    ) -> None:
        if plain := [d for d in unhandled if d.lane_id is None]:
            self._put_back(plain, avoided)
        if any(o.delivered.lane_id is not None for o in outcomes) or len(plain) < len(unhandled):
            in_lanes = [d for d in unhandled if d.lane_id is not None]
            self._settle_lanes(outcomes, in_lanes, waits, avoided, goes_on)
        else:
            self._retry([o for o in outcomes if o.settlement is Settlement.RETRY])
        if dead := [o for o in outcomes if o.settlement is Settlement.DEAD]:
            deadletters.bury(self._connection, dead)
        if failed := [o for o in outcomes if o.failure is not None]:
            deadletters.record_attempts(self._connection, failed, worker)
        if not self.policy.retention and (
            over := [
                o.delivered.message_id
                for o in outcomes
                if o.settlement in (Settlement.ACKNOWLEDGED, Settlement.EXPIRED)
            ]
        ):
            deliveries.forget(self._connection, self.policy.id, over)

    def keep_receipt(self, outcomes: Sequence[Outcome], worker: str) -> None:
        done = [o for o in outcomes if o.settlement is Settlement.ACKNOWLEDGED]
        if done:
            receipts.keep(
                self._connection,
                self.policy.id,
                [o.delivered.message_id for o in done],
                by=worker,
                seconds=sum([o.duration for o in done]),
            )
        if len(done) == len(outcomes):
            return
        expired = [o for o in outcomes if o.settlement is Settlement.EXPIRED]
        if expired:
            ids = [o.delivered.message_id for o in expired]
            receipts.keep(
                self._connection, self.policy.id, ids, by=worker, outcome=receipts.EXPIRED
            )

    def _retry(self, retries: Sequence[Outcome]) -> None:
        if retries:
            deliveries.schedule(
                self._connection,
                [o.delivered for o in retries],
                [o.delivered.attempt + o.counts for o in retries],
                [o.after for o in retries],
            )

    def _settle_lanes(
        self,
        outcomes: Sequence[Outcome],
        unhandled: Sequence[Delivered],
        waits: Mapping[int, float],
        avoided: Collection[int],
        goes_on: bool,
    ) -> None:
        """Settle by the keys' order: what failed keeps its place or gives it up."""
        if not goes_on:
            lanes.join_now(self._connection)
        retries = [o for o in outcomes if o.settlement is Settlement.RETRY]
        skipping = self._skipping([o.delivered for o in retries])
        staying = [o for o in retries if self._stays(o.delivered, skipping)]
        self._retry([o for o in retries if not self._stays(o.delivered, skipping)])
        returning = [o.delivered for o in staying] + list(unhandled)
        if returning:
            attempts = [o.delivered.attempt + o.counts for o in staying]
            attempts += [d.attempt for d in unhandled]
            lanes.put_back(self._connection, returning, attempts)
        touched = {d.lane_id: d.priority for d in [o.delivered for o in outcomes] + [*unhandled]}
        held = {lane: after for lane, after in waits.items() if lane in touched}
        held |= {o.delivered.lane_id: o.after for o in staying}  # type: ignore[misc]
        untouched = {d.lane_id: d for d in reversed(unhandled)}
        for lane in held.keys() | {o.delivered.lane_id for o in outcomes}:
            untouched.pop(lane, None)
        self._put_back_tokens(list(untouched.values()), avoided)
        parked = self._parked(outcomes) - held.keys()
        if held:
            wait = [(lane, touched[lane], after) for lane, after in held.items()]
            lanes.hold(self._connection, self.policy.id, wait)
        self._park({lane: touched[lane] for lane in sorted(parked)}, goes_on)
        going_on = touched.keys() - held.keys() - untouched.keys() - parked - {None}
        self._pass_on([(lane, False) for lane in sorted(filter(None, going_on))], goes_on)

    def _put_back(self, delivered: Sequence[Delivered], avoided: Collection[int]) -> None:
        deliveries.put_back(self._connection, delivered)
        for each in delivered:
            if each.id not in avoided:
                self._hints.lower(each.priority, each.id)

    def _put_back_tokens(self, firsts: Sequence[Delivered], avoided: Collection[int]) -> None:
        """Put back the tokens of lanes of which nothing was handled, given what is first in each.

        With the same ids, by which the supervisor looks for what a process died of.
        """
        if firsts:
            tokens = [
                d._replace(
                    message_id=0,
                    attempt=lanes.GO,
                    subscription_id=None,
                    expires_at=None,
                    entry_id=None,
                    token=None,
                )
                for d in firsts
            ]
            self._put_back(tokens, avoided)

    def _skipping(self, retries: Sequence[Delivered]) -> set[int | None]:
        """Return the lanes whose order does not matter to a retry."""
        in_lanes = {d.lane_id for d in retries if d.lane_id is not None}
        if not in_lanes or self.policy.on_failure == "skip":
            return set(in_lanes)
        return set(lanes.fair_ones(self._connection, in_lanes))

    def _stays(self, delivered: Delivered, skipping: Collection[int | None]) -> bool:
        return delivered.lane_id is not None and delivered.lane_id not in skipping

    def _parked(self, outcomes: Sequence[Outcome]) -> set[int]:
        """Return the lanes that a dead letter sets aside."""
        if self.policy.on_failure != "park":
            return set()
        dead = {
            o.delivered.lane_id
            for o in outcomes
            if o.settlement is Settlement.DEAD and o.delivered.lane_id is not None
        }
        return dead - lanes.fair_ones(self._connection, dead) if dead else set()

    def _park(self, parked: Mapping[int, int], goes_on: bool = False) -> None:
        if parked and goes_on:
            for priority, first in lanes.give_back_to_park(
                self._connection, self.policy.id, list(parked)
            ):
                self._hints.lower(priority, first)
        elif parked:
            lanes.park(self._connection, self.policy.id, list(parked.items()))

    def _pass_on(self, given: Sequence[tuple[int, bool]], goes_on: bool = False) -> None:
        if given:
            give = lanes.give_back if goes_on else lanes.pass_on
            for priority, first in give(self._connection, self.policy.id, given):
                self._hints.lower(priority, first)

    def notice(self, priority: int, first: int) -> None:
        self._hints.lower(priority, first)

    def rewind(self) -> None:
        self._hints.forget()


ENGINE = PostgreSQLEngine()
