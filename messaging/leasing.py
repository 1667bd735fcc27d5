"""Lease: hold messages for a time, and settle them by their tokens.

A message is settled in the transaction of its effects, as long as its lease lasts. Afterwards
anybody may end the lease, which counts as a failed delivery, and whoever held it is too late.
"""

import os
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from . import signals
from .acknowledgement import (
    outcome_of_death,
    outcome_of_expiry,
    outcome_of_lapse,
    settle,
)
from .delivery import deliver
from .engines import Source, engine, wakeup
from .messages import Delivered, Message, Outcome, Settlement
from .policies import QueuePolicy
from .store import leases, workers
from .store.configuration import policies
from .store.connection import connection_for

SWEEP_BATCH = 1_000

Choose = Callable[[Sequence[Message]], tuple[list[Message], dict[int, float]]]


def holder() -> str:
    """Return the name under which this process holds messages: host and process id."""
    return f"{socket.gethostname()}/{os.getpid()}"


class Sources(threading.local):
    """The readers of one thread, which remember how far they have come."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, int], tuple[BaseDatabaseWrapper, Source]] = {}


_sources = Sources()


def source_for(policy: QueuePolicy, using: str | None) -> Source:
    """Return this thread's reader of a queue."""
    connection = connection_for(using)
    key = (connection.alias, policy.id)
    known = _sources.known.get(key)
    if known is None or known[0] is not connection:
        known = _sources.known[key] = (connection, engine().source(policy, using))
    known[1].policy = policy
    return known[1]


def waiting(worker: str) -> str:
    """Return the name under which a worker holds what it does not run yet."""
    return f"{worker} waiting"


def lease(
    source: Source,
    limit: int,
    seconds: float,
    worker: str,
    *,
    using: str | None,
    thorough: bool = False,
    choose: Choose | None = None,
) -> tuple[list[Message], list[Outcome]]:
    """Claim up to ``limit`` messages and hold them, in this transaction.

    Those that cannot be delivered are settled; what became of them comes back as well. ``choose``
    says which of them may be delivered now, and for how long the lanes of the others wait.
    """
    claimed, outcomes = deliver(source, limit, thorough=thorough, one_a_lane=True)
    now = time.monotonic()
    late = [m for m in claimed if m.deadline is not None and now >= m.deadline]
    outcomes += [outcome_of_expiry(source.policy, m) for m in late]
    messages = [m for m in claimed if m.deadline is None or now < m.deadline]
    rest: list[Delivered] = []
    waits: dict[int, float] = {}
    if choose is not None:
        chosen, waits = choose(messages)
        rest = [m.delivery for m in messages if m not in chosen]
        messages = chosen
        # Of the others the token is out, and waits where it is given back.
        waits = {d.lane_id: waits[d.lane_id] for d in rest if d.lane_id in waits}
    if messages:
        held = leases.hold(connection_for(using), [m.delivery for m in messages], seconds, worker)
        for message, delivered in zip(messages, held, strict=True):
            message.delivery = delivered
    if outcomes or rest:
        settle(source, outcomes, worker, unhandled=rest, waits=waits)
    return messages, outcomes


def settle_held(
    source: Source,
    outcomes: Sequence[Outcome],
    worker: str,
    *,
    using: str | None,
    released: Sequence[Delivered] = (),
    goes_on: bool = False,
) -> set[int]:
    """End leases and settle what was still held, in this transaction; return those tokens."""
    held = [outcome.delivered for outcome in outcomes] + list(released)
    ended = {delivered.token for delivered in leases.end(connection_for(using), held)}
    settle_ended(
        source,
        [outcome for outcome in outcomes if outcome.delivered.token in ended],
        worker,
        released=[delivered for delivered in released if delivered.token in ended],
        goes_on=goes_on,
    )
    return {token for token in ended if token is not None}


def settle_ended(
    source: Source,
    outcomes: Sequence[Outcome],
    worker: str,
    *,
    released: Sequence[Delivered] = (),
    goes_on: bool = False,
) -> None:
    """Settle deliveries whose leases this transaction has ended.

    Each that was held had a token of its lane, and a settlement gives back one for each lane: those
    of one fairness key are settled one after another.
    """
    left: list[Outcome | Delivered] = [*outcomes, *released]
    while left:
        lanes: set[int] = set()
        now: list[Outcome] = []
        back: list[Delivered] = []
        later: list[Outcome | Delivered] = []
        for each in left:
            lane_id = each.delivered.lane_id if isinstance(each, Outcome) else each.lane_id
            if lane_id in lanes:
                later.append(each)
                continue
            if lane_id is not None:
                lanes.add(lane_id)
            if isinstance(each, Outcome):
                now.append(each)
            else:
                back.append(each)
        settle(source, now, worker, unhandled=back, goes_on=goes_on)
        left = later


def sweep_expired(using: str | None = None) -> int:
    """Count as failed what was held for longer than its lease; return how many there were."""
    connection = connection_for(using)
    with transaction.atomic(using=connection.alias):
        taken = leases.take_expired(connection, SWEEP_BATCH)
        _settle_taken(taken, outcome_of_lapse, using)
    return len(taken)


def count_deaths(names: Sequence[str], how: str, using: str | None = None) -> int:
    """Count as failed what workers were running that have died; return how many there were.

    What they held and did not run yet is given back.
    """
    connection = connection_for(using)
    with transaction.atomic(using=connection.alias):
        taken = leases.take_from(connection, names)
        _settle_taken(taken, lambda policy, held, _: outcome_of_death(policy, held, how), using)
        _give_back(leases.take_from(connection, [waiting(name) for name in names]), using)
    return len(taken)


def release_all(names: Sequence[str], using: str | None = None) -> int:
    """Give back, uncounted, what workers hold that end; return how many there were."""
    connection = connection_for(using)
    with transaction.atomic(using=connection.alias):
        taken = leases.take_from(connection, [*names, *(waiting(name) for name in names)])
        _give_back(taken, using)
    return len(taken)


def _give_back(taken: Sequence[tuple[Delivered, str]], using: str | None) -> None:
    connection = connection_for(using)
    for policy, held in _by_queue(connection, taken):
        released = [delivered for delivered, _ in held]
        settle_ended(engine().source(policy, using), [], holder(), released=released)
        announce(connection, released)


def _settle_taken(
    taken: Sequence[tuple[Delivered, str]],
    outcome_of: Callable[[QueuePolicy, Delivered, str], Outcome],
    using: str | None,
) -> None:
    connection = connection_for(using)
    for policy, held in _by_queue(connection, taken):
        outcomes = [outcome_of(policy, delivered, worker) for delivered, worker in held]
        source = engine().source(policy, using)
        for worker in sorted({worker for _, worker in held}):
            theirs = [
                o for o, (_, held_by) in zip(outcomes, held, strict=True) if held_by == worker
            ]
            settle_ended(source, theirs, worker)
            note(connection, policy, theirs, worker)


def _by_queue(
    connection: BaseDatabaseWrapper, taken: Sequence[tuple[Delivered, str]]
) -> list[tuple[QueuePolicy, list[tuple[Delivered, str]]]]:
    """Return what was taken by its queue's policy; what has no queue any more is left out."""
    by_queue: defaultdict[int, list[tuple[Delivered, str]]] = defaultdict(list)
    for delivered, worker in taken:
        by_queue[delivered.queue_id].append((delivered, worker))
    known = policies(connection, ids=list(by_queue)) if by_queue else []
    return [(policy, by_queue[policy.id]) for policy in known]


def note(
    connection: BaseDatabaseWrapper,
    policy: QueuePolicy,
    outcomes: Sequence[Outcome],
    worker: str,
) -> None:
    """Count in the statistics what no worker tallies, and tell observers after the commit."""
    counts = [
        sum(outcome.settlement is settlement for outcome in outcomes)
        for settlement in (
            Settlement.ACKNOWLEDGED,
            Settlement.RETRY,
            Settlement.DEAD,
            Settlement.EXPIRED,
        )
    ]
    acknowledged, failed, dead, expired = counts
    workers.record(connection, worker, [(policy.id, acknowledged, failed, dead, expired, 0.0)])
    for outcome in outcomes:
        _after_commit(connection, partial(signals.report, outcome, policy.name, worker))


def announce(connection: BaseDatabaseWrapper, released: Iterable[Delivered]) -> None:
    """Wake the workers for what was given back, after the commit."""
    arrivals = [wakeup.Arrival(d.queue_id, d.priority, d.id) for d in released]
    if arrivals:
        _after_commit(connection, lambda: wakeup.announce(connection, arrivals))


def _after_commit(connection: BaseDatabaseWrapper, call: Callable[[], None]) -> None:
    transaction.on_commit(call, using=connection.alias, robust=True)
