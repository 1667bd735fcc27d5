"""Redrive dead letters, or discard them."""

from collections.abc import Iterable, Iterator, Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import OperationRefused
from ..models import DeadLetter, Queue
from ..signals import logger
from ..store import deadletters, operations, redriving
from ..store.connection import connection_for
from ..store.purging import Ceiling
from .batches import BATCH, announced, following, in_batches
from .history import Operator, name_of, recorded
from .purging import ceiling
from .queues import find_queue


def purge_dead(
    queue: Queue | str,
    *,
    by: Operator = "",
    upto: Ceiling | None = None,
    using: str | None = None,
) -> int:
    """Delete the dead letters that a queue holds and return how many went.

    Nothing newer than ``upto`` (default: now).
    """
    found = find_queue(queue, using)
    ids = held_ids(connection_for(using), found.pk, upto)
    return _discard(ids, found, by=by, using=using)


def discard(ids: Iterable[int], *, by: Operator = "", using: str | None = None) -> int:
    """Delete dead letters for good and return how many there were."""
    return _discard(ids, None, by=by, using=using)


def _discard(ids: Iterable[int], queue: Queue | None, *, by: Operator, using: str | None) -> int:
    with recorded(
        "Dead letters discarded", DeadLetter, by, kind="discard", using=using, queue=queue
    ) as done:
        in_batches(ids, discard_batch, done, using)
    return done.count


def redrive(
    ids: Iterable[int],
    *,
    to: Queue | str | None = None,
    by: Operator = "",
    using: str | None = None,
) -> int:
    """Move dead letters back to the queues that they come from, or ``to`` another one.

    Returns how many moved. Each keeps its message id and its history, and counts its deliveries
    from 1 again; with an ordering key it comes before what has waited since, and a parked key goes
    on. Doing it twice moves once. Dead letters stay whose queue no longer exists, or that ``to``
    itself holds for another queue: OperationRefused when there are only such, a warning in the log
    otherwise.
    """
    return _redrive(ids, None, to=to, by=by, using=using)


def _redrive(
    ids: Iterable[int],
    queue: Queue | None,
    *,
    to: Queue | str | None,
    by: Operator,
    using: str | None,
) -> int:
    target = find_queue(to, using) if to is not None else None
    homeless = circling = 0

    def redrive_batch(connection: BaseDatabaseWrapper, batch: Sequence[int]) -> int:
        nonlocal homeless, circling
        target_id = target.pk if target else None
        rows = redriving.redrive(connection, batch, target_id, by=name_of(by))
        moved = announced(connection, rows)
        if moved < len(batch):
            lost, held = redriving.stuck(connection, batch, target_id)
            homeless, circling = homeless + lost, circling + held
        return moved

    with recorded(
        "Dead letters redriven", DeadLetter, by, kind="redrive", using=using, queue=queue, to=target
    ) as done:
        in_batches(ids, redrive_batch, done, using)
    if homeless and not done.count:
        raise OperationRefused(
            f"{homeless:,} dead letters stay: the queue that they come from no longer exists. "
            f"Redrive them to another queue, or discard them."
        )
    if target and circling and not done.count:
        raise OperationRefused(
            f"{circling:,} dead letters stay: queue {target.name!r} is the one that holds them. "
            f"Redrive them to the queue that they come from, or to one that handles them."
        )
    if homeless:
        logger.warning("Dead letters stay, their queue no longer exists count=%s", homeless)
    if circling:
        logger.warning("Dead letters stay, they are held there already count=%s", circling)
    return done.count


def redrive_queue(
    queue: Queue | str,
    *,
    to: Queue | str | None = None,
    by: Operator = "",
    using: str | None = None,
) -> int:
    """Redrive the dead letters that are held in a queue or come from it; return how many moved."""
    found = find_queue(queue, using)
    connection = connection_for(using)
    upto = ceiling(connection.alias).dead
    ids = following(
        lambda after: operations.dead_of_queue(
            connection, found.pk, after=after, upto=upto, limit=BATCH
        )
    )
    return _redrive(ids, found, to=to, by=by, using=using)


def redrive_all(
    *, to: Queue | str | None = None, by: Operator = "", using: str | None = None
) -> int:
    """Redrive every dead letter and return how many moved."""
    return redrive(held_ids(connection_for(using), None), to=to, by=by, using=using)


def held_ids(
    connection: BaseDatabaseWrapper, queue_id: int | None, upto: Ceiling | None = None
) -> Iterator[int]:
    """Yield the ids of the dead letters that a queue holds now; None: of all dead letters."""
    last = (upto or ceiling(connection.alias)).dead
    return following(lambda after: deadletters.dead_batch(connection, queue_id, after, last, BATCH))


def discard_batch(connection: BaseDatabaseWrapper, batch: Sequence[int]) -> int:
    """Delete some dead letters; return how many there were."""
    return len(deadletters.discard(connection, batch))
