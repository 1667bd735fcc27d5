"""Seek: set a queue or a subscription to a point of the log, forward or back.

What waits is purged, and what the log holds from the point on waits again. Both end at the same
snapshot, so that what commits meanwhile is neither purged nor doubled.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext_lazy as _

from ..exceptions import OperationRefused, QueueDisabled
from ..feed import Cursor
from ..models import Operation, OperationState, Queue, Subscription
from ..store import receipts, searching
from ..store.connection import connection_for
from ..store.depths import COUNT_LIMIT
from ..store.filters import Filter
from ..store.searching import KEYED, READY, SCHEDULED, Page, Position, Section
from ..store.seeking import Overtaken
from .batches import BATCH
from .history import Operator
from .kinds import existing
from .operating import Step, begin, operations_of, register
from .queues import join_lanes, queues
from .replaying import (
    COUNT_FOR,
    SECONDS,
    Since,
    beginning,
    carried_out,
    counted,
    cursor_of,
    meant_by,
    replayed,
    snapshot,
)
from .selecting import taken_away

# In the order in which messages go from one to the next: what becomes due or joins its lane
# meanwhile is found there.
SECTIONS = (SCHEDULED, KEYED, READY)
LOG = "log"


class Sought(NamedTuple):
    """How many messages a seek has purged, and how many it has had wait again."""

    purged: int
    again: int

    @classmethod
    def by(cls, operation: Operation) -> "Sought":
        """Return what an operation has done so far."""
        purged = int(operation.position.get("purged", 0))
        return cls(purged, operation.done - purged)


def begin_seek(
    source: Queue | Subscription | str,
    *,
    to: Since,
    rate: float | None = None,
    by: Operator = "",
    upto: str | None = None,
    using: str | None = None,
) -> Operation:
    """Begin to set a queue, or one subscription of it, to a point of the log.

    ``to`` is what ``since`` is for :func:`begin_replay`. What waits there, of the subscription or
    all, is purged; then what was published from ``to`` on waits again, at ``rate``. What ``upto``
    has not seen (default: now) stays as it is. ``options`` of the operation has the counts,
    ``purges`` and ``replays``. Refused with OperationRefused while another seek of the queue runs.
    """
    connection = connection_for(using)
    join_lanes(connection)
    now = Cursor.parse(snapshot(using=using))
    queue, options = meant_by(
        source,
        since=beginning(to, now, "to"),
        upto=str(now if upto is None else cursor_of("upto", upto, now)),
        using=using,
    )
    if isinstance(source, Subscription):
        options["of"] = source.pk
    if queue.is_disabled:
        raise QueueDisabled(queue.name)
    gone, gone_is_exact = _count(connection, queue, options)
    found = counted(connection, queue, options, Filter())
    options["purges"] = {"number": gone, "is_exact": gone_is_exact}
    options["replays"] = {"number": found.number, "is_exact": found.is_exact}
    with transaction.atomic(using=connection.alias):
        _check_alone(queue, using)
        return begin(
            "seek",
            queue=queue,
            to=queue,
            options=options | {"samples": found.samples},
            rate=rate,
            total=gone + found.number,
            is_exact=gone_is_exact and found.is_exact,
            by=by,
            using=using,
        )


def seek(source: Queue | Subscription | str, *, to: Since, **how: Any) -> Sought:
    """Carry out what :func:`begin_seek` begins, here and now; return what it came to."""
    return Sought.by(carried_out(begin_seek(source, to=to, **how), how.get("using")))


class Seek:
    """What waits goes, and messages of the log come."""

    name, label, permission = "seek", _("Seek"), "purge_queue"

    def step(self, connection: BaseDatabaseWrapper, operation: Operation, limit: int) -> Step:
        """Purge the next of what waits, or have the next of the log wait."""
        purged = operation.position.get("purged", 0)
        name = operation.position.get("section", SECTIONS[0].name)
        after = operation.position.get("after")
        if name == LOG:
            done, last = replayed(connection, operation, after, limit)
            position = {"section": LOG, "purged": purged, "after": last}
            return Step(done, position, finished=last is None)
        queue = existing(connection, operation.queue_id)
        section = searching.BY_NAME[name]
        page = _page(
            connection,
            queue,
            operation.options,
            section,
            after=Position(*after) if after else None,
            limit=BATCH,
        )
        by, outcome = operation.created_by, receipts.PURGED
        done = taken_away(connection, section, queue.pk, page.rows, by, outcome) if page.rows else 0
        return Step(done, {"purged": purged + done, **_behind(section, page)}, is_paced=False)


def _behind(section: Section, page: Page) -> dict[str, Any]:
    if page.next:
        return {"section": section.name, "after": list(page.next)}
    rest = SECTIONS[SECTIONS.index(section) + 1 :]
    return {"section": rest[0].name if rest else LOG}


def _check_alone(queue: Queue, using: str | None) -> None:
    # Whoever else begins one waits here, and then sees this one.
    queues(using).select_for_update(no_key=True).filter(pk=queue.pk).first()
    rows = operations_of(using).filter(kind="seek", queue=queue.pk, state=OperationState.RUNNING)
    if (other := rows.first()) is not None:
        raise OperationRefused(
            f"Operation {other.pk} is seeking on queue {queue.name!r} at present. Cancel it, or "
            f"wait for its end."
        )


def _count(
    connection: BaseDatabaseWrapper, queue: Queue, options: dict[str, Any]
) -> tuple[int, bool]:
    """Count what waits and goes, exactly up to 10,000, for as long as there is time."""
    count = 0
    end = time.monotonic() + COUNT_FOR
    for page in _pages(connection, queue, options):
        count += len(page.rows)
        if count > COUNT_LIMIT or (page.next and time.monotonic() > end):
            return min(count, COUNT_LIMIT), False
    return count, True


def _pages(
    connection: BaseDatabaseWrapper, queue: Queue, options: dict[str, Any]
) -> Iterator[Page]:
    for section in SECTIONS:
        page = _page(connection, queue, options, section, after=None, limit=COUNT_LIMIT + 1)
        yield page
        while page.next:
            page = _page(
                connection, queue, options, section, after=page.next, limit=COUNT_LIMIT + 1
            )
            yield page


def _page(
    connection: BaseDatabaseWrapper,
    queue: Queue,
    options: dict[str, Any],
    section: Section,
    *,
    after: Position | None,
    limit: int,
) -> Page:
    seen = str(Cursor.parse(options["upto"]).snapshot)
    with searching.bounded(connection, SECONDS, f"A look at queue {queue.name!r}"):
        return searching.page(
            connection,
            section,
            Overtaken(seen, options.get("of")),
            queue_id=queue.pk,
            after=after,
            limit=limit,
            payload=False,
        )


register(Seek())
