"""Act on the messages of a queue that a filter describes."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import InvalidOption, OperationRefused, QueueDisabled
from ..models import Queue
from ..store import deadletters, receipts, redriving, searching, selected
from ..store.connection import connection_for
from ..store.depths import COUNT_LIMIT, counted
from ..store.filters import Filter, State
from ..store.purging import Ceiling
from ..store.searching import Row, Section
from .batches import BATCH, announced
from .history import Done, Operator, name_of, recorded
from .looking import Seen, seen
from .purging import ceiling
from .queues import find_queue, join_lanes
from .rewriting import Rewriting

WAITING = (State.READY, State.SCHEDULED)
SAMPLES = 10
# How long a preview counts, and one statement may take, seconds.
COUNT_FOR = 5.0
SECONDS = 10.0

Act = Callable[[BaseDatabaseWrapper, Section, Sequence[Row]], int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """What a filter describes: how many messages, and the first of them.

    ``count`` is exact up to 10,000; with ``is_exact`` false there are more, or at least so many
    among the ``looked_at`` that there was time for.
    """

    count: int
    is_exact: bool
    looked_at: int
    samples: tuple[Seen, ...]

    def __str__(self) -> str:
        if self.is_exact:
            return counted(self.count)
        if self.count > COUNT_LIMIT:
            return f"{COUNT_LIMIT:,}+"
        return f"{self.count:,} of the first {self.looked_at:,}, and perhaps more"


def preview(
    queue: Queue | str,
    wanted: Filter | None = None,
    *,
    upto: Ceiling | None = None,
    using: str | None = None,
) -> Preview:
    """Count what a filter describes on a queue, and show the first 10; nothing is changed.

    Without a state: what waits, ready or scheduled, as for the verbs.
    """
    wanted = wanted or Filter()
    found = find_queue(queue, using)
    connection = connection_for(using)
    states = wanted.states or WAITING
    samples: list[Seen] = []
    count = looked_at = 0
    is_exact = True
    end = time.monotonic() + COUNT_FOR
    # A few with their payload first; the others are only counted.
    for section, page in _pages(
        connection, found, wanted, states, upto or ceiling(using), samples=SAMPLES
    ):
        samples += seen(section, page.rows)[: SAMPLES - len(samples)]
        count += len(page.rows)
        looked_at += page.looked_at
        if count > COUNT_LIMIT or (page.next and time.monotonic() > end):
            is_exact = False
            break
    return Preview(
        count=min(count, COUNT_LIMIT + 1),
        is_exact=is_exact,
        looked_at=looked_at,
        samples=tuple(samples),
    )


def purge_matching(
    queue: Queue | str,
    wanted: Filter,
    *,
    dry_run: bool = False,
    by: Operator = "",
    upto: Ceiling | None = None,
    using: str | None = None,
) -> int:
    """Delete the messages of a queue that a filter describes; return how many went.

    What waits, ready or scheduled, and dead letters where the filter asks for these. What a worker
    is handling stays, and so does what is newer than ``upto`` (default: now). ``dry_run`` deletes
    nothing and returns the count of ``preview``.
    """

    def purge_batch(connection: BaseDatabaseWrapper, section: Section, rows: Sequence[Row]) -> int:
        if section.state is State.DEAD:
            return len(deadletters.discard(connection, [row.id for row in rows]))
        return taken_away(connection, section, found.pk, rows, by, receipts.PURGED)

    found = find_queue(queue, using)
    allowed = (*WAITING, State.DEAD)
    return _apply(
        "purge",
        "Messages purged",
        purge_batch,
        found,
        wanted,
        WAITING,
        allowed,
        dry_run,
        by,
        upto,
        using,
    )


def cancel_matching(
    queue: Queue | str,
    wanted: Filter,
    *,
    dry_run: bool = False,
    by: Operator = "",
    upto: Ceiling | None = None,
    using: str | None = None,
) -> int:
    """Cancel the scheduled messages of a queue that a filter describes; return how many.

    Delays and retries alike; they are never delivered, and stay in the log for its retention.
    """

    def cancel_batch(connection: BaseDatabaseWrapper, section: Section, rows: Sequence[Row]) -> int:
        return taken_away(connection, section, found.pk, rows, by, receipts.CANCELLED)

    found = find_queue(queue, using)
    only = (State.SCHEDULED,)
    return _apply(
        "cancel",
        "Messages cancelled",
        cancel_batch,
        found,
        wanted,
        only,
        only,
        dry_run,
        by,
        upto,
        using,
    )


def move(
    queue: Queue | str,
    to: Queue | str,
    wanted: Filter | None = None,
    *,
    dry_run: bool = False,
    by: Operator = "",
    upto: Ceiling | None = None,
    using: str | None = None,
) -> int:
    """Move the messages of a queue that a filter describes to another queue; return how many.

    What waits, ready or scheduled, and dead letters where the filter asks for these. Each keeps its
    id, its priority and the time when it is due, counts its deliveries from 1 again, and comes
    behind what waits there, in the same order as before; with a key, behind others of its key.
    """
    found, target = find_queue(queue, using), find_queue(to, using)
    if found.pk == target.pk:
        raise OperationRefused(
            f"Queue {found.name!r} cannot be moved to itself. Name another queue."
        )
    if target.is_disabled:
        raise QueueDisabled(target.name)

    def move_batch(connection: BaseDatabaseWrapper, section: Section, rows: Sequence[Row]) -> int:
        if section.state is State.DEAD:
            ids = [row.id for row in rows]
            moved = redriving.redrive(connection, ids, target.pk, by=name_of(by))
            return announced(connection, moved)
        taken = selected.take(connection, section, found.pk, rows)
        if taken:
            announced(connection, selected.place(connection, target.pk, taken))
        return len(taken)

    allowed = (*WAITING, State.DEAD)
    did = f"Messages moved to {target.name}"
    return _apply(
        "move",
        did,
        move_batch,
        found,
        wanted or Filter(),
        WAITING,
        allowed,
        dry_run,
        by,
        upto,
        using,
        target,
    )


def edit_matching(
    queue: Queue | str,
    wanted: Filter,
    change: Callable[[Any], Any],
    *,
    dry_run: bool = False,
    by: Operator = "",
    upto: Ceiling | None = None,
    using: str | None = None,
) -> int:
    """Give the messages of a queue that a filter describes other bodies; return how many.

    ``change`` is called with each body and returns the new one, which is checked like one that is
    sent; where it returns an equal one nothing changes. What waits, ready or scheduled, and dead
    letters where the filter asks for these; each as with :func:`edit`, on every queue where it
    waits. What somebody holds or handles, and what cannot be decoded, stays as it is.
    """
    found = find_queue(queue, using)
    rewriting = Rewriting(change, name_of(by)[:150])
    allowed = (*WAITING, State.DEAD)
    return _apply(
        "edit",
        "Messages edited",
        rewriting.act,
        found,
        wanted,
        WAITING,
        allowed,
        dry_run,
        by,
        upto,
        using,
    )


def taken_away(
    connection: BaseDatabaseWrapper,
    section: Section,
    queue_id: int,
    rows: Sequence[Row],
    by: Operator,
    outcome: str,
) -> int:
    """Delete messages from where they wait, and note who did; return how many there were."""
    taken = selected.take(connection, section, queue_id, rows)
    ids = [each.message_id for each in taken]
    receipts.keep(connection, queue_id, ids, by=name_of(by), outcome=outcome)
    return len(taken)


def _apply(
    kind: str,
    did: str,
    act: Act,
    queue: Queue,
    wanted: Filter,
    default: Sequence[State],
    allowed: Sequence[State],
    dry_run: bool,
    by: Operator,
    upto: Ceiling | None,
    using: str | None,
    to: Queue | None = None,
) -> int:
    states = checked_states(wanted, default, allowed)
    if dry_run:
        only = of_states(wanted, states)
        return preview(queue, only, upto=upto, using=using).count
    connection = connection_for(using)
    upto = upto or ceiling(using)
    with recorded(
        did,
        queue,
        by,
        kind=kind,
        using=using,
        queue=queue,
        to=to,
        wanted=wanted,
    ) as done:
        for section, page in _pages(connection, queue, wanted, states, upto):
            _act(connection, act, section, page.rows, done)
    return done.count


def _act(
    connection: BaseDatabaseWrapper, act: Act, section: Section, rows: Sequence[Row], done: Done
) -> None:
    if rows:
        with transaction.atomic(using=connection.alias):
            count = act(connection, section, rows)
        done.count += count


def checked_states(
    wanted: Filter, default: Sequence[State], allowed: Sequence[State]
) -> Sequence[State]:
    """Return the states of the messages meant; InvalidOption for one that a verb leaves alone."""
    states = wanted.states or default
    if refused := [state for state in states if state not in allowed]:
        remedy = f"this is done to messages that are {' or '.join(allowed)}"
        if State.IN_FLIGHT in refused:
            remedy += "; release the leases of others first"
        raise InvalidOption("state", str(refused[0]), remedy)
    return states


def newest_of(section: Section, upto: Ceiling) -> int:
    """Return the id at which a verb stops in a section."""
    newest = {
        "ready": upto.ready,
        "keyed": upto.entries,
        "scheduled": upto.scheduled,
        "held": upto.dead,
        "buried": upto.dead,
    }
    return newest.get(section.name, searching.LAST_ID)


def of_states(wanted: Filter, states: Sequence[State]) -> Filter:
    """Return a filter for these states only."""
    given = {name: getattr(wanted, name) for name in wanted.__dataclass_fields__}
    return Filter(**given | {"state": tuple(states)})


def _pages(
    connection: BaseDatabaseWrapper,
    queue: Queue,
    wanted: Filter,
    states: Sequence[State],
    upto: Ceiling,
    samples: int = 0,
) -> Iterator[tuple[Section, searching.Page]]:
    """Yield what a filter describes, a thousand at a time and in the order of delivery.

    The first ``samples`` come with their payload.
    """
    join_lanes(connection)
    for section in searching.sections_of(states, of_one_queue=True):
        after = None
        while True:
            with searching.bounded(connection, SECONDS, f"A look at queue {queue.name!r}"):
                page = searching.page(
                    connection,
                    section,
                    wanted,
                    queue_id=queue.pk,
                    after=after,
                    upto=newest_of(section, upto),
                    limit=samples or BATCH,
                    payload=samples > 0,
                )
            yield section, page
            samples = max(0, samples - len(page.rows))
            after = page.next
            if after is None:
                break
