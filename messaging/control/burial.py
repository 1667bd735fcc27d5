"""Make dead letters of messages that wait, because an operator says so."""

import hashlib
from collections.abc import Iterable, Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from ..messages import Failure, Outcome, Settlement
from ..models import Queue, Reason
from ..store import deadletters
from ..store.connection import connection_for
from ..store.taking import take
from .batches import in_batches
from .history import Operator, name_of, recorded
from .queues import find_queue, join_lanes


def dead_letter(
    queue: Queue | str,
    message_ids: Iterable[int],
    *,
    reason: str = "",
    by: Operator = "",
    using: str | None = None,
) -> int:
    """Make dead letters of messages that are ready or scheduled on a queue; return how many.

    ``reason`` is told with each. What a worker is handling, or somebody holds, stays.
    """
    found = find_queue(queue, using)
    join_lanes(connection_for(using))
    text = reason[:2_000].replace("\0", "\\0")
    failure = Failure(
        error="",
        description=text,
        traceback="",
        fingerprint=hashlib.sha256(f"manual\0{found.name}\0{text}".encode()).hexdigest()[:16],
    )

    def bury_batch(connection: BaseDatabaseWrapper, batch: Sequence[int]) -> int:
        # A dead letter says how often it was delivered, and not which delivery would be next.
        taken = [
            each._replace(attempt=each.attempt - 1) for each in take(connection, found.pk, batch)
        ]
        outcomes = [
            Outcome(delivered, Settlement.DEAD, reason=Reason.MANUAL.value, failure=failure)
            for delivered in taken
        ]
        if outcomes:
            deadletters.bury(connection, outcomes)
            deadletters.record_attempts(connection, outcomes, name_of(by)[:150])
        return len(outcomes)

    with recorded(
        "Messages dead-lettered",
        found,
        by,
        kind="dead_letter",
        using=using,
        queue=found,
        reason=text,
    ) as done:
        in_batches(message_ids, bury_batch, done, using)
    return done.count
