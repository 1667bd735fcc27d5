"""Release what is held under leases, before their time."""

from collections.abc import Iterable, Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from ..engines import engine
from ..models import Lease
from ..store import operations
from ..store.configuration import policies
from .batches import announced, in_batches
from .history import Operator, name_of, recorded


def release_leases(ids: Iterable[int], *, by: Operator = "", using: str | None = None) -> int:
    """Give back what is held under leases, uncounted; return how many there were.

    Whoever holds one finds its lease lost, and its effects roll back.
    """

    def release_batch(connection: BaseDatabaseWrapper, batch: Sequence[int]) -> int:
        ended = operations.end_leases(connection, batch)
        known = policies(connection, ids=[delivered.queue_id for delivered in ended])
        sources = {policy.id: engine().source(policy, connection.alias) for policy in known}
        for delivered in ended:
            # One by one: each held a token of its lane, and a settlement gives back one.
            if delivered.queue_id in sources:
                sources[delivered.queue_id].settle([], [delivered], name_of(by))
        announced(connection, [(d.queue_id, d.priority, d.id, 1) for d in ended])
        return len(ended)

    with recorded("Leases released", Lease, by, kind="release_leases", using=using) as done:
        in_batches(ids, release_batch, done, using)
    return done.count
