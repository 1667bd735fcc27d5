"""Count what a queue has, up to a bound, whatever waits."""

from collections.abc import Sequence
from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run

# Counts are exact up to here; one more means "more than".
COUNT_LIMIT = 10_000
KINDS = ("ready", "scheduled", "in flight", "dead letters held here", "dead letters from here")


class Depth(NamedTuple):
    """How many messages a queue has, each number at most ``COUNT_LIMIT + 1``.

    ``ready`` are also those with a key, be it blocked or parked. ``in_flight`` are held under a
    lease; what a worker handles in its transaction is still counted as ready. ``held`` are the
    dead letters in the queue, ``dead`` those that come from it, wherever held.
    """

    ready: int = 0
    scheduled: int = 0
    in_flight: int = 0
    held: int = 0
    dead: int = 0

    def __str__(self) -> str:
        parts = [f"{counted(n)} {kind}" for n, kind in zip(self, KINDS, strict=True) if n]
        return ", ".join(parts) or "none"


def counted(number: int) -> str:
    """Say a bounded count: "10,000+" above the limit up to which counts are exact."""
    return f"{number:,}" if number <= COUNT_LIMIT else f"{COUNT_LIMIT:,}+"


# Each count reads at most a few times the limit from the index of its queue, however much waits.
# BETWEEN and the order make it so: they ask for an order that only this index has. With "=" a scan
# of another index or of the whole table looks as cheap, and for an empty queue next to a full one
# never ends. Tokens of lanes are no messages, but what waits in their lanes is: where more tokens
# come before the plain messages than are looked at, there are as many in the lanes.
DEPTHS = """
    SELECT queue.id,
        least(%(limit)s,
            (SELECT count(*) FILTER (WHERE lane_id IS NULL) FROM (
                SELECT lane_id FROM messaging_delivery
                WHERE queue_id BETWEEN queue.id AND queue.id
                ORDER BY queue_id, priority, id LIMIT 2 * %(limit)s) AS bounded)
            + (SELECT count(*) FROM (SELECT FROM messaging_laneentry
                WHERE queue_id BETWEEN queue.id AND queue.id
                ORDER BY queue_id, lane_id, id LIMIT %(limit)s) AS bounded)),
        least(%(limit)s, (SELECT count(*) FILTER (WHERE lane_id IS NULL) FROM (
            SELECT lane_id FROM messaging_scheduled
            WHERE queue_id BETWEEN queue.id AND queue.id
            ORDER BY queue_id, due_at LIMIT 2 * %(limit)s) AS bounded)),
        (SELECT count(*) FROM (SELECT FROM messaging_lease
            WHERE queue_id BETWEEN queue.id AND queue.id
            ORDER BY queue_id, id LIMIT %(limit)s) AS bounded),
        (SELECT count(*) FROM (SELECT FROM messaging_deadletter
            WHERE queue_id BETWEEN queue.id AND queue.id
            ORDER BY queue_id, id LIMIT %(limit)s) AS bounded),
        (SELECT count(*) FROM (SELECT FROM messaging_deadletter
            WHERE origin_id BETWEEN queue.id AND queue.id
            ORDER BY origin_id, id LIMIT %(limit)s) AS bounded)
    FROM unnest(%(ids)s::bigint[]) AS queue (id)
"""


def depths(connection: BaseDatabaseWrapper, queue_ids: Sequence[int]) -> dict[int, Depth]:
    """Return the depth of each queue."""
    rows = run(connection, DEPTHS, {"ids": list(queue_ids), "limit": COUNT_LIMIT + 1})
    return {queue_id: Depth(*numbers) for queue_id, *numbers in rows}
