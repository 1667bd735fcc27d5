"""Act on many rows, a thousand a transaction."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..engines import wakeup
from ..store.connection import Rows, connection_for
from .history import Done

BATCH = 1_000


def following(next_ids: Callable[[int], list[int]]) -> Iterator[int]:
    after = 0
    while ids := next_ids(after):
        yield from ids
        after = ids[-1]


def in_batches(
    ids: Iterable[int],
    act: Callable[[BaseDatabaseWrapper, Sequence[int]], int],
    done: Done,
    using: str | None,
) -> None:
    """Act on ids, a thousand a transaction, and count what it came to."""
    connection = connection_for(using)
    # Ids that send() returned are of a type of their own, and psycopg mixes no types.
    remaining = map(int, ids)
    while batch := list(islice(remaining, BATCH)):
        with transaction.atomic(using=connection.alias):
            count = act(connection, batch)
        done.count += count


def announced(connection: BaseDatabaseWrapper, groups: Rows) -> int:
    """Wake the workers for deliveries that were placed; return how many there are."""
    arrivals = [
        wakeup.Arrival(queue, priority, wakeup.LATEST if first is None else first)
        for queue, priority, first, _ in groups
    ]
    if arrivals:
        transaction.on_commit(
            lambda: wakeup.announce(connection, arrivals), using=connection.alias, robust=True
        )
    return sum(count for *_, count in groups)
