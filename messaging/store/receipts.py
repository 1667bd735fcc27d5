"""Receipts: keep what a transaction has acknowledged, in a row however many messages it was."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import Statement, run, run_statement

# The messages of one row have ids that agree in all but these bits, so that the row of a message
# is found among few by an index that has one entry a row. Messages that were sent one after another
# are one row, and one in so many transactions makes two.
BUCKET_BITS = 15
MOST_RECEIPTS = 100

ACKNOWLEDGED = "acknowledged"
EXPIRED = "expired"
CANCELLED = "cancelled"
PURGED = "purged"
# Not an end: an operation has had them wait again.
REPLAYED = "replayed"

# The types are left to the server. It returns something, as every hot statement does.
KEEP = Statement(
    """
    INSERT INTO messaging_receipt
        (queue_id, bucket, message_ids, count, worker, duration, outcome)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    RETURNING 1
    """,
    parameters=7,
)


def keep(
    connection: BaseDatabaseWrapper,
    queue_id: int,
    message_ids: Iterable[int],
    *,
    by: str,
    seconds: float = 0.0,
    outcome: str = ACKNOWLEDGED,
) -> None:
    """Note, in this transaction, that messages of a queue are done with, by whom and how.

    ``seconds`` is how long the handlers took, all together. ``outcome``: "acknowledged", "expired",
    "cancelled", "purged" or "replayed".
    """
    for bucket, ranges, count in _buckets(sorted(set(message_ids))):
        params: list[str | None] = [
            str(queue_id),
            str(bucket),
            ranges,
            str(count),
            by[:150],
            repr(seconds),
            outcome,
        ]
        run_statement(connection, KEEP, params)


def keep_of(
    connection: BaseDatabaseWrapper, gone: Iterable[tuple[int, int]], *, by: str, outcome: str
) -> None:
    """Note that messages are done with, given as (queue, message); as :func:`keep` does."""
    by_queue: defaultdict[int, list[int]] = defaultdict(list)
    for queue_id, message_id in gone:
        by_queue[queue_id].append(message_id)
    for queue_id, message_ids in sorted(by_queue.items()):
        keep(connection, queue_id, message_ids, by=by, outcome=outcome)


def _buckets(ids: list[int]) -> Iterator[tuple[int, str, int]]:
    """Yield each bucket with its ids as a multirange, and how many they are."""
    start = 0
    while start < len(ids):
        bucket = ids[start] >> BUCKET_BITS
        end = start + 1
        while end < len(ids) and ids[end] >> BUCKET_BITS == bucket:
            end += 1
        yield bucket, _multirange(ids[start:end]), end - start
        start = end


def _multirange(ids: list[int]) -> str:
    first, last = ids[0], ids[-1]
    if last - first == len(ids) - 1:  # one after another, as most are
        return f"{{[{first},{last}]}}"
    ranges = []
    begin = previous = first
    for each in ids[1:]:
        if each > previous + 1:
            ranges.append(f"[{begin},{previous}]")
            begin = each
        previous = each
    ranges.append(f"[{begin},{previous}]")
    return f"{{{','.join(ranges)}}}"


class Kept(NamedTuple):
    """A receipt: when and where messages were done with, by whom, and how many in how long."""

    at: Any
    queue: str
    outcome: str
    by: str
    messages: int
    seconds: float


OF_MESSAGE: Any = f"""
    SELECT receipt.acknowledged_at, coalesce(queue.name, ''), receipt.outcome, receipt.worker,
        receipt.count, receipt.duration
    FROM messaging_receipt AS receipt
    LEFT JOIN messaging_queue AS queue ON queue.id = receipt.queue_id
    WHERE receipt.bucket = %(id)s::bigint >> {BUCKET_BITS}
    AND receipt.message_ids @> %(id)s::bigint
    ORDER BY receipt.id LIMIT {MOST_RECEIPTS}
"""  # noqa: S608 - constants above


def of_message(connection: BaseDatabaseWrapper, message_id: int) -> list[Kept]:
    """Return the receipts of a message, the first one first: one for each queue, as a rule."""
    return [Kept._make(row) for row in run(connection, OF_MESSAGE, {"id": message_id})]


# As long as the log may tell of the messages. BRIN finds the oldest without reading the others.
PRUNE = """
    DELETE FROM messaging_receipt WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM messaging_receipt
        WHERE acknowledged_at < statement_timestamp() - greatest(
            (SELECT max(retention) FROM messaging_queue),
            (SELECT max(retention) FROM messaging_topic)) * interval '1 second'
        LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
    RETURNING 1
"""


def prune(connection: BaseDatabaseWrapper, limit: int) -> int:
    """Delete receipts of messages that no log holds any more; return how many went."""
    return len(run(connection, PRUNE, {"limit": limit}))
