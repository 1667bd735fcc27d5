"""Groups: see dead letters by what failed."""

import datetime
from dataclasses import dataclass

from ..models import Queue
from ..store import groups as store
from ..store.connection import connection_for
from ..store.depths import COUNT_LIMIT
from .queues import find_queue

MOST = 1_000


@dataclass(frozen=True, slots=True)
class Group:
    """Dead letters with one fingerprint: error, place of it in the project, consumer and queue.

    ``count`` is exact up to 10,000. Error, description and queue are those of the last one, whose
    id is ``sample``.
    """

    fingerprint: str
    count: int
    first_at: datetime.datetime
    last_at: datetime.datetime
    error: str
    reason: str
    description: str
    queue: str
    sample: int


def groups(queue: Queue | str | None = None, *, using: str | None = None) -> list[Group]:
    """Return the groups of dead letters that a queue holds or that come from it, or of all.

    That which died last comes first; 1,000 at most.
    """
    found = find_queue(queue, using) if queue is not None else None
    rows = store.groups(
        connection_for(using), found.pk if found else None, most=MOST, counted=COUNT_LIMIT + 1
    )
    return [Group(*row) for row in rows]
