"""Metrics: the figures of queues and workers, each bounded whatever waits.

Rates are per second over the last ten seconds. Series are sums of five seconds over the last five
minutes, the oldest first, without the five seconds that have not ended.
"""

import datetime
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from django.db import OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.errors import QueryCanceled

from .store import figures as store
from .store.connection import connection_for

SHOWN = 200
WORKERS = 500
WINDOW = 10
BUCKET = 5
SERIES = 300
BUCKETS = SERIES // BUCKET
# A worker that has not been heard of for longer counts as gone, seconds.
LIVE = 15
OLD = 60
# What the figures may take of the server, milliseconds a statement.
TIME_LIMIT = 1_000

Series = tuple[int, ...]
NOTHING: Series = (0,) * BUCKETS


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """A number that was counted up to a bound: when it is not exact, there are more."""

    number: int
    is_exact: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Flow:
    """What moved: rates per second, and series of sums.

    ``failed`` are failed deliveries, whether they are tried again or dead; ``dead`` those that are,
    ``newly_dead`` their number in five minutes, ``newly_expired`` that of the messages that nobody
    handled in time and nobody keeps, ``newly_dropped`` that of those which made room for others in
    a full queue. ``busy`` is how many handlers ran at a time.
    """

    in_rate: float = 0.0
    out_rate: float = 0.0
    failed_rate: float = 0.0
    newly_dead: int = 0
    newly_expired: int = 0
    newly_dropped: int = 0
    busy: float = 0.0
    published: Series = NOTHING
    acknowledged: Series = NOTHING
    failed: Series = NOTHING
    dead: Series = NOTHING


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueFigures:
    """One queue: what waits in it, what moves through it, and who serves it.

    ``ready``, ``scheduled``, ``dead`` (dead letters from this queue) and ``held`` (those that it
    keeps) are None, and so is ``oldest_age``, when they could not be counted in time. ``ready`` are
    also those that wait behind a key. ``in_flight`` are those that handlers run, and the ``leased``
    ones, which somebody holds. ``oldest_age`` is the seconds since the first ready message was
    published, ``utilisation`` the share of its workers' threads that its handlers used, 0 to 1.
    """

    id: int
    name: str
    description: str
    paused_at: datetime.datetime | None
    paused_by: str
    pause_reason: str
    disabled_at: datetime.datetime | None
    holds_dead_letters: bool
    ready: Count | None
    scheduled: Count | None
    dead: Count | None
    held: Count | None
    oldest_age: float | None
    in_flight: int
    leased: int
    consumers: int
    threads: int
    utilisation: float
    flow: Flow

    @property
    def is_paused(self) -> bool:
        return self.paused_at is not None

    @property
    def is_disabled(self) -> bool:
        return self.disabled_at is not None

    @property
    def is_idle_dead_letter_queue(self) -> bool:
        """Tell whether it only keeps the dead letters of another queue."""
        waits = self.ready is not None and self.ready.number > 0
        moves = any(self.flow.published) or any(self.flow.acknowledged)
        return self.holds_dead_letters and not (waits or moves or self.consumers or self.is_paused)


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerFigures:
    """One worker process, as its last heartbeat ``silent`` seconds ago described it."""

    name: str
    host: str
    pid: int
    version: str
    queues: tuple[str, ...]
    threads: int
    running: Mapping[str, int]
    handled: int
    failed: int
    state: str
    started_at: datetime.datetime
    seen_at: datetime.datetime
    silent: float

    @property
    def is_live(self) -> bool:
        return self.silent <= LIVE

    @property
    def in_flight(self) -> int:
        return sum(self.running.values())


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """The sums of the queues that were counted; None where one of them could not be."""

    ready: Count | None
    scheduled: Count | None
    dead: Count | None
    oldest_age: float | None
    oldest_queue: str
    in_flight: int
    threads: int
    flow: Flow


class Trouble(StrEnum):
    """What an operator should look at, the worst first."""

    NO_WORKER = "no worker"
    NO_CONSUMER = "no consumer"
    DEAD_LETTERS = "dead letters"
    PAUSED = "paused"
    OLD = "old"


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """A queue that needs attention, and why; ``queue`` is None when it is about all of them."""

    trouble: Trouble
    queue: QueueFigures | None


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadLetterFigures:
    """A dead letter in short; the queues' names are empty when they were deleted."""

    id: int
    message_id: int
    origin: str
    held_in: str
    reason: str
    error: str
    description: str
    attempts: int
    died_at: datetime.datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """All figures of one moment; ``number`` is how many queues there are, shown or not."""

    at: datetime.datetime
    queues: tuple[QueueFigures, ...]
    number: int
    totals: Totals
    attention: tuple[Attention, ...]
    workers: tuple[WorkerFigures, ...]
    dead_letters: tuple[DeadLetterFigures, ...]
    # Seconds until the next scheduled delivery is due; negative when nobody took it in time.
    next_due: float | None


@contextmanager
def limited(using: str | None = None) -> Iterator[tuple[datetime.datetime, float | None]]:
    """Enter a transaction for reading, in which statements end after a second.

    Gives the database's time, and the seconds until the next scheduled delivery is due.
    """
    connection = connection_for(using)
    with transaction.atomic(using=connection.alias):
        yield store.begin(connection, TIME_LIMIT)
        # Nothing was written, and what comes after in an outer transaction gets its limit back.
        transaction.set_rollback(True, using=connection.alias)


def overview(*, dead_letters: int = 8, using: str | None = None) -> Overview:
    """Return all figures of this moment; raise DatabaseError when they cannot be had."""
    connection = connection_for(using)
    with limited(using) as (now, next_due):
        processes = workers(using)
        queues, number, flow = _queues(connection, processes)
        dead = recent_dead_letters(dead_letters, using)
    return Overview(
        at=now,
        queues=queues,
        number=number,
        totals=totals(queues, processes, flow),
        attention=tuple(attention(queues, processes, overdue=-(next_due or 0))),
        workers=processes,
        dead_letters=dead,
        next_due=next_due,
    )


def queue_figures(using: str | None = None) -> list[QueueFigures]:
    """Return the figures of the 200 queues in which most happens, by name."""
    connection = connection_for(using)
    with limited(using):
        queues, _, _ = _queues(connection, workers(using))
    return list(queues)


def workers(using: str | None = None) -> tuple[WorkerFigures, ...]:
    """Return the worker processes that have not signed off, by name."""
    rows = store.workers(connection_for(using), WORKERS)
    return tuple(WorkerFigures(**row._asdict() | {"queues": tuple(row.queues)}) for row in rows)


def recent_dead_letters(limit: int, using: str | None = None) -> tuple[DeadLetterFigures, ...]:
    """Return the newest dead letters, the newest first."""
    return tuple(
        DeadLetterFigures(
            id=row[0],
            message_id=row[1],
            origin=row[2] or "",
            held_in=row[3] or "",
            reason=row[4],
            error=row[5],
            description=row[6],
            attempts=row[7],
            died_at=row[8],
        )
        for row in store.dead_letters(connection_for(using), limit)
    )


def totals(queues: Sequence[QueueFigures], workers: Sequence[WorkerFigures], flow: Flow) -> Totals:
    """Return the sums over the queues."""
    oldest = max(queues, key=lambda queue: queue.oldest_age or 0, default=None)
    has_age = oldest is not None and oldest.oldest_age is not None
    return Totals(
        ready=_total([queue.ready for queue in queues]),
        scheduled=_total([queue.scheduled for queue in queues]),
        dead=_total([queue.dead for queue in queues]),
        oldest_age=oldest.oldest_age if oldest else None,
        oldest_queue=oldest.name if oldest and has_age else "",
        in_flight=sum(worker.in_flight for worker in workers if worker.is_live)
        + sum(queue.leased for queue in queues),
        threads=sum(worker.threads for worker in workers if worker.is_live),
        flow=flow,
    )


def attention(
    queues: Sequence[QueueFigures], workers: Sequence[WorkerFigures], *, overdue: float = 0
) -> list[Attention]:
    """Return what an operator should look at, the worst first.

    ``overdue`` is how long a scheduled delivery has been due, in seconds.
    """
    found: list[Attention] = []
    nobody_works = not any(worker.is_live for worker in workers)
    waiting = any(_waits(queue) and not queue.is_paused for queue in queues)
    if nobody_works and (waiting or overdue > LIVE):
        found.append(Attention(trouble=Trouble.NO_WORKER, queue=None))
    for queue in queues:
        if queue.flow.newly_dead:
            found.append(Attention(trouble=Trouble.DEAD_LETTERS, queue=queue))
        if not _waits(queue):
            continue
        if queue.is_paused:
            found.append(Attention(trouble=Trouble.PAUSED, queue=queue))
        elif not queue.consumers and not nobody_works:
            found.append(Attention(trouble=Trouble.NO_CONSUMER, queue=queue))
        elif queue.consumers and (queue.oldest_age or 0) > OLD:
            found.append(Attention(trouble=Trouble.OLD, queue=queue))
    order = list(Trouble)
    return sorted(found, key=lambda each: order.index(each.trouble))


def _waits(queue: QueueFigures) -> bool:
    return queue.ready is not None and queue.ready.number > 0


def _total(counts: Sequence[Count | None]) -> Count | None:
    known = [count for count in counts if count is not None]
    if len(known) < len(counts):
        return None
    return Count(
        number=sum(count.number for count in known), is_exact=all(count.is_exact for count in known)
    )


def _queues(
    connection: BaseDatabaseWrapper, workers: Sequence[WorkerFigures]
) -> tuple[tuple[QueueFigures, ...], int, Flow]:
    """Return the queues shown, the number of all, and what moved through all of them."""
    rows = store.queues(connection, seconds=SERIES, limit=SHOWN)
    # By name, so that a row stays where it is while its figures move.
    rows.sort(key=lambda row: row.name)
    ids = [row.id for row in rows]
    stats = store.stats(connection, ids, seconds=SERIES + BUCKET, width=BUCKET, window=WINDOW)
    by_queue: dict[int | None, list[store.StatRow]] = defaultdict(list)
    for stat in stats:
        by_queue[stat.queue_id].append(stat)
    depths = _depths(connection, ids)
    figures = tuple(
        _figures(row, _flow(by_queue[row.id]), depths.get(row.id), workers) for row in rows
    )
    return figures, rows[0].number if rows else 0, _flow(stats)


def _depths(connection: BaseDatabaseWrapper, ids: Sequence[int]) -> dict[int, store.DepthRow]:
    """Return what waits by queue; nothing when the server needs too long to count it."""
    try:
        with transaction.atomic(using=connection.alias):
            return {row.queue_id: row for row in store.depths(connection, ids)}
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            return {}
        raise


def _figures(
    row: store.QueueRow,
    flow: Flow,
    depth: store.DepthRow | None,
    workers: Sequence[WorkerFigures],
) -> QueueFigures:
    serving = [worker for worker in workers if worker.is_live and row.name in worker.queues]
    threads = sum(worker.threads for worker in serving)
    leased = depth.leased if depth else 0
    return QueueFigures(
        id=row.id,
        name=row.name,
        description=row.description,
        paused_at=row.paused_at,
        paused_by=row.paused_by,
        pause_reason=row.pause_reason,
        disabled_at=row.disabled_at,
        holds_dead_letters=row.holds_dead_letters,
        ready=_count(depth.ready) if depth else None,
        scheduled=_count(depth.scheduled) if depth else None,
        dead=_count(depth.dead) if depth else None,
        held=_count(depth.held) if depth else None,
        oldest_age=depth.oldest_age if depth else None,
        in_flight=sum(worker.running.get(row.name, 0) for worker in serving) + leased,
        leased=leased,
        consumers=len(serving),
        threads=threads,
        utilisation=min(1.0, flow.busy / threads) if threads else 0.0,
        flow=flow,
    )


def _count(number: int) -> Count:
    return Count(number=min(number, store.COUNTED), is_exact=number <= store.COUNTED)


def _flow(stats: Sequence[store.StatRow]) -> Flow:
    published, acknowledged, failed, dead = ([0] * BUCKETS for _ in range(4))
    for stat in stats:
        # Bucket 0 has not ended: a curve that always falls at its end would only look like a fall.
        if 1 <= stat.bucket <= BUCKETS:
            published[-stat.bucket] += stat.published
            acknowledged[-stat.bucket] += stat.acknowledged
            failed[-stat.bucket] += stat.failed + stat.dead
            dead[-stat.bucket] += stat.dead
    return Flow(
        in_rate=sum(stat.recent_published for stat in stats) / WINDOW,
        out_rate=sum(stat.recent_acknowledged for stat in stats) / WINDOW,
        failed_rate=sum(stat.recent_failed + stat.recent_dead for stat in stats) / WINDOW,
        newly_dead=sum(stat.dead for stat in stats),
        newly_expired=sum(stat.expired for stat in stats),
        newly_dropped=sum(stat.dropped for stat in stats),
        busy=sum(stat.recent_busy for stat in stats) / WINDOW,
        published=tuple(published),
        acknowledged=tuple(acknowledged),
        failed=tuple(failed),
        dead=tuple(dead),
    )
