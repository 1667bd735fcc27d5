"""Take the schedules that are due, and plan their next ticks, each in one transaction."""

import datetime
from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run


class Scheduled(NamedTuple):
    """A schedule as a worker, or an operator, fires it; ``now`` is the database's clock."""

    id: int
    name: str
    queue: str | None
    topic: str | None
    body: str
    headers: str
    priority: int
    cron: str
    every: float | None
    time_zone: str
    catch_up: str
    next_at: datetime.datetime | None
    now: datetime.datetime


# Under its lock, which whoever is faster holds until the next tick is planned: the condition is
# looked at again once the lock is free. One without a plan is due, to get one.
TAKE_DUE = """
    SELECT schedule.id, schedule.name, queue.name, topic.name,
        coalesce(schedule.body::text, 'null'), schedule.headers::text, schedule.priority,
        schedule.cron, schedule.every, schedule.time_zone, schedule.catch_up, schedule.next_at,
        statement_timestamp()
    FROM messaging_schedule AS schedule
    LEFT JOIN messaging_queue AS queue ON queue.id = schedule.queue_id
    LEFT JOIN messaging_topic AS topic ON topic.id = schedule.topic_id
    WHERE schedule.paused_at IS NULL
    AND (schedule.next_at IS NULL OR schedule.next_at <= statement_timestamp())
    ORDER BY schedule.next_at NULLS FIRST, schedule.id
    LIMIT 1 FOR UPDATE OF schedule SKIP LOCKED
"""


def take_due(connection: BaseDatabaseWrapper) -> Scheduled | None:
    """Lock the next schedule that is due and that nobody else fires."""
    rows = run(connection, TAKE_DUE)
    return Scheduled._make(rows[0]) if rows else None


TAKE = """
    SELECT schedule.id, schedule.name, queue.name, topic.name,
        coalesce(schedule.body::text, 'null'), schedule.headers::text, schedule.priority,
        schedule.cron, schedule.every, schedule.time_zone, schedule.catch_up, schedule.next_at,
        statement_timestamp()
    FROM messaging_schedule AS schedule
    LEFT JOIN messaging_queue AS queue ON queue.id = schedule.queue_id
    LEFT JOIN messaging_topic AS topic ON topic.id = schedule.topic_id
    WHERE schedule.name = %s FOR UPDATE OF schedule
"""


def take(connection: BaseDatabaseWrapper, name: str) -> Scheduled | None:
    """Lock a schedule by its name; None: there is none."""
    rows = run(connection, TAKE, (name,))
    return Scheduled._make(rows[0]) if rows else None


PLAN = """
    UPDATE messaging_schedule
    SET next_at = %(next_at)s, failed = failed + %(failed)s,
        last_error = coalesce(%(error)s::text, last_error),
        last_at = coalesce(%(last_at)s, last_at),
        last_message_id = coalesce(%(message_id)s::bigint, last_message_id)
    WHERE id = %(id)s
"""


def plan(
    connection: BaseDatabaseWrapper,
    schedule_id: int,
    next_at: datetime.datetime | None,
    *,
    last_at: datetime.datetime | None = None,
    message_id: int | None = None,
    failed: int = 0,
    error: str | None = None,
) -> None:
    """Store what came of the last ticks, and when the next one is."""
    params = {
        "id": schedule_id,
        "next_at": next_at,
        "last_at": last_at,
        "message_id": message_id,
        "failed": failed,
        "error": error,
    }
    run(connection, PLAN, params)


NEXT = """
    SELECT extract(epoch FROM min(next_at) - statement_timestamp())::float8
    FROM messaging_schedule WHERE paused_at IS NULL AND next_at IS NOT NULL
"""


def seconds_until_due(connection: BaseDatabaseWrapper) -> float | None:
    """Return the time until the next tick in seconds, or None without any."""
    seconds: float | None = run(connection, NEXT)[0][0]
    return seconds


def known_names(connection: BaseDatabaseWrapper) -> list[str]:
    """Return the names of schedules, for the suggestion in an error."""
    rows = run(connection, "SELECT name FROM messaging_schedule ORDER BY name LIMIT 1000")
    return [name for (name,) in rows]
