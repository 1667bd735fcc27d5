"""Read the figures of queues and workers, each bounded whatever waits."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import Rows, run

# Deliveries are counted up to here; beyond, a queue has "more than".
COUNTED = 10_000


# The planner takes it that the rows of any queue are found everywhere in a table, and reads all of
# it for a queue that has none; there is an index for each look-up below. Without sequential scans
# costs mean little to the compiler, which would spend more time than it saves.
BEGIN = """
    SELECT set_config('statement_timeout', %(limit)s, true),
        set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true),
        statement_timestamp(),
        (SELECT extract(epoch FROM due_at - statement_timestamp())::float8
         FROM messaging_scheduled ORDER BY due_at, id LIMIT 1)
"""


def begin(connection: BaseDatabaseWrapper, milliseconds: int) -> tuple[Any, float | None]:
    """Have the server give up on each statement of this transaction that takes longer.

    Returns the server's time, and the seconds until the next scheduled delivery is due.
    """
    *_, now, due_in = run(connection, BEGIN, {"limit": str(milliseconds)})[0]
    return now, due_in


class QueueRow(NamedTuple):
    """A queue's configuration as its figures show it; ``number`` is how many queues there are."""

    id: int
    name: str
    description: str
    paused_at: Any
    paused_by: str
    pause_reason: str
    disabled_at: Any
    holds_dead_letters: bool
    number: int


# What happens now comes first, then what waits, then names: of ten thousand queues the first two
# hundred are those that somebody may want to see.
QUEUES = """
    WITH active AS (
        SELECT queue_id, sum(published + acknowledged + failed) AS moved FROM messaging_stat
        WHERE at > statement_timestamp() - %(seconds)s * interval '1 second'
        GROUP BY queue_id
    )
    SELECT queue.id, queue.name, queue.description, queue.paused_at, queue.paused_by,
        queue.pause_reason, queue.disabled_at,
        EXISTS (SELECT FROM messaging_queue AS origin WHERE origin.dead_letter_queue_id = queue.id),
        count(*) OVER ()
    FROM messaging_queue AS queue LEFT JOIN active ON active.queue_id = queue.id
    ORDER BY active.moved DESC NULLS LAST,
        EXISTS (SELECT FROM messaging_delivery AS ready WHERE ready.queue_id = queue.id) DESC,
        queue.paused_at NULLS LAST, queue.name
    LIMIT %(limit)s
"""


def queues(connection: BaseDatabaseWrapper, *, seconds: float, limit: int) -> list[QueueRow]:
    """Return the queues in which most happened within the last seconds."""
    rows = run(connection, QUEUES, {"seconds": seconds, "limit": limit})
    return [QueueRow(*row) for row in rows]


class StatRow(NamedTuple):
    """What happened to a queue in one bucket of time; ``recent_*`` is the part within ten seconds.

    ``queue_id`` None stands for every queue that was not asked for, ``bucket`` counts back from
    the present one, 0.
    """

    queue_id: int | None
    bucket: int
    published: int
    acknowledged: int
    failed: int
    dead: int
    expired: int
    dropped: int
    recent_published: int
    recent_acknowledged: int
    recent_failed: int
    recent_dead: int
    recent_busy: float


STATS = """
    SELECT CASE WHEN queue_id = ANY (%(ids)s::bigint[]) THEN queue_id END AS shown,
        (floor(extract(epoch FROM statement_timestamp()) / %(width)s)
            - floor(extract(epoch FROM at) / %(width)s))::int AS bucket,
        sum(published), sum(acknowledged), sum(failed), sum(dead), sum(expired), sum(dropped),
        coalesce(sum(published) FILTER (WHERE recent), 0),
        coalesce(sum(acknowledged) FILTER (WHERE recent), 0),
        coalesce(sum(failed) FILTER (WHERE recent), 0),
        coalesce(sum(dead) FILTER (WHERE recent), 0),
        coalesce(sum(busy) FILTER (WHERE recent), 0)
    FROM messaging_stat CROSS JOIN LATERAL (
        SELECT at > statement_timestamp() - %(window)s * interval '1 second' AS recent
    ) AS age
    WHERE at > statement_timestamp() - %(seconds)s * interval '1 second'
    GROUP BY shown, bucket
"""


def stats(
    connection: BaseDatabaseWrapper,
    ids: Sequence[int],
    *,
    seconds: float,
    width: float,
    window: float,
) -> list[StatRow]:
    """Return what happened to the queues given, and to all others together, by bucket."""
    params = {"ids": list(ids), "seconds": seconds, "width": width, "window": window}
    return [StatRow(*row) for row in run(connection, STATS, params)]


class DepthRow(NamedTuple):
    """What waits in a queue; a count of COUNTED + 1 stands for more."""

    queue_id: int
    ready: int
    scheduled: int
    leased: int
    dead: int
    held: int
    oldest_age: float | None


# Tokens of lanes are no messages, but what waits in their lanes is; see the counts of an operator
# in depths.py.
# The oldest is the first delivery of one of the priorities, which a loose index scan finds by one
# look-up each, or the first entry of one of the twenty oldest lanes: a lane with an old entry is an
# old lane. Its age is that of its message.
DEPTHS = """
    SELECT queue.id,
        least(%(bound)s,
            (SELECT count(*) FILTER (WHERE lane_id IS NULL) FROM (
                SELECT lane_id FROM messaging_delivery AS ready
                WHERE ready.queue_id = queue.id LIMIT 2 * %(bound)s) AS bounded)
            + (SELECT count(*) FROM (SELECT FROM messaging_laneentry AS entry
                WHERE entry.queue_id = queue.id LIMIT %(bound)s) AS bounded)),
        least(%(bound)s, (SELECT count(*) FILTER (WHERE lane_id IS NULL) FROM (
            SELECT lane_id FROM messaging_scheduled AS later
            WHERE later.queue_id = queue.id LIMIT 2 * %(bound)s) AS bounded)),
        (SELECT count(*) FROM (SELECT FROM messaging_lease AS lease
            WHERE lease.queue_id = queue.id LIMIT %(bound)s) AS bounded),
        (SELECT count(*) FROM (SELECT FROM messaging_deadletter AS dead
            WHERE dead.origin_id = queue.id LIMIT %(bound)s) AS bounded),
        (SELECT count(*) FROM (SELECT FROM messaging_deadletter AS dead
            WHERE dead.queue_id = queue.id LIMIT %(bound)s) AS bounded),
        extract(epoch FROM statement_timestamp() - oldest.published_at)::float8
    FROM unnest(%(ids)s::bigint[]) AS queue (id) CROSS JOIN LATERAL (
        WITH RECURSIVE level AS (
            (SELECT ready.priority FROM messaging_delivery AS ready
             WHERE ready.queue_id = queue.id ORDER BY ready.priority DESC LIMIT 1)
            UNION ALL
            SELECT (SELECT ready.priority FROM messaging_delivery AS ready
                    WHERE ready.queue_id = queue.id AND ready.priority < level.priority
                    ORDER BY ready.priority DESC LIMIT 1)
            FROM level WHERE level.priority IS NOT NULL
        ),
        lane AS (
            (SELECT entry.lane_id, entry.message_id, 1 AS number FROM messaging_laneentry AS entry
             WHERE entry.queue_id = queue.id ORDER BY entry.lane_id, entry.id LIMIT 1)
            UNION ALL
            SELECT following.lane_id, following.message_id, lane.number + 1
            FROM lane CROSS JOIN LATERAL (
                SELECT entry.lane_id, entry.message_id FROM messaging_laneentry AS entry
                WHERE entry.queue_id = queue.id AND entry.lane_id > lane.lane_id
                ORDER BY entry.lane_id, entry.id LIMIT 1
            ) AS following
            WHERE lane.number < 20
        )
        SELECT min(message.published_at) AS published_at
        FROM (
            SELECT first.message_id FROM level CROSS JOIN LATERAL (
                SELECT ready.message_id FROM messaging_delivery AS ready
                WHERE ready.queue_id = queue.id AND ready.priority = level.priority
                ORDER BY ready.id LIMIT 1
            ) AS first
            UNION ALL
            SELECT lane.message_id FROM lane
        ) AS head
        JOIN messaging_message AS message ON message.id = head.message_id
    ) AS oldest
"""


def depths(connection: BaseDatabaseWrapper, ids: Sequence[int]) -> list[DepthRow]:
    """Return what waits in the queues given."""
    params = {"ids": list(ids), "bound": COUNTED + 1}
    return [DepthRow(*row) for row in run(connection, DEPTHS, params)]


class WorkerRow(NamedTuple):
    """A worker process as its last heartbeat described it, ``silent`` seconds ago."""

    name: str
    host: str
    pid: int
    version: str
    queues: list[str]
    threads: int
    running: dict[str, int]
    handled: int
    failed: int
    state: str
    started_at: Any
    seen_at: Any
    silent: float


WORKERS = """
    SELECT name, host, pid, version, queues::text, threads, running::text, handled, failed, state,
        started_at, seen_at, extract(epoch FROM statement_timestamp() - seen_at)::float8
    FROM messaging_worker ORDER BY name LIMIT %(limit)s
"""


def workers(connection: BaseDatabaseWrapper, limit: int) -> list[WorkerRow]:
    """Return the worker processes that have not signed off."""
    found = [WorkerRow(*row) for row in run(connection, WORKERS, {"limit": limit})]
    return [
        row._replace(queues=json.loads(str(row.queues)), running=json.loads(str(row.running)))
        for row in found
    ]


DEAD_LETTERS = """
    SELECT dead.id, dead.message_id, origin.name, held.name, dead.reason, dead.error,
        left(dead.description, 300), dead.attempts, dead.died_at
    FROM (SELECT * FROM messaging_deadletter ORDER BY id DESC LIMIT %(limit)s) AS dead
    LEFT JOIN messaging_queue AS origin ON origin.id = dead.origin_id
    LEFT JOIN messaging_queue AS held ON held.id = dead.queue_id
    ORDER BY dead.id DESC
"""


def dead_letters(connection: BaseDatabaseWrapper, limit: int) -> Rows:
    """Return the newest dead letters."""
    return run(connection, DEAD_LETTERS, {"limit": limit})
