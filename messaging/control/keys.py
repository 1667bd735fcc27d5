"""Release ordering keys that are set aside, or wait for a retry."""

from collections.abc import Iterable, Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from ..models import Lane, Queue
from ..store import parking
from ..store.connection import connection_for
from ..store.parking import Parked
from .batches import announced, in_batches
from .history import Operator, recorded
from .queues import find_queue, join_lanes


def parked(queue: Queue | str, *, limit: int = 1_000, using: str | None = None) -> list[Parked]:
    """Return the keys of a queue that a dead letter has set aside, at most ``limit`` of them."""
    connection = connection_for(using)
    return parking.parked(connection, find_queue(queue, using).pk, limit)


def release_key(
    queue: Queue | str, key: str, *, by: Operator = "", using: str | None = None
) -> bool:
    """Deliver what waits behind a key again; return whether it had to be told.

    A parked key goes on without the dead letter that parked it: redrive that instead to have it
    delivered first. A key that waits for a retry is tried at once.
    """
    found = find_queue(queue, using)
    connection = connection_for(using)
    join_lanes(connection)
    ids = parking.lanes_of(connection, found.pk, key.replace("\0", ""))
    return release_keys(ids, by=by, using=using) > 0


def release_keys(ids: Iterable[int], *, by: Operator = "", using: str | None = None) -> int:
    """Deliver what waits behind lanes, by their ids; return how many had to be told."""

    def release_batch(connection: BaseDatabaseWrapper, batch: Sequence[int]) -> int:
        released, tokens = parking.release(connection, batch)
        announced(connection, tokens)
        return released

    with recorded("Ordering keys released", Lane, by, kind="release_keys", using=using) as done:
        in_batches(ids, release_batch, done, using)
    return done.count
