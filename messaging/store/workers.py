"""Keep the heartbeats and statistics that worker processes write."""

import datetime
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run

# A worker gives a sign of life every 3 seconds; one that has missed three is not counted on.
SILENCE = 9.0

BEAT = """
    INSERT INTO messaging_worker
        (name, host, pid, version, queues, threads, running, handled, failed, state,
         started_at, seen_at)
    VALUES (%(name)s, %(host)s, %(pid)s, %(version)s, %(queues)s::jsonb, %(threads)s,
        %(running)s::jsonb, %(handled)s, %(failed)s, %(state)s,
        statement_timestamp(), statement_timestamp())
    ON CONFLICT (name) DO UPDATE
    SET queues = excluded.queues, running = excluded.running, handled = excluded.handled,
        failed = excluded.failed, state = excluded.state, seen_at = excluded.seen_at
"""


def beat(connection: BaseDatabaseWrapper, heartbeat: dict[str, Any]) -> None:
    """Store that a worker process is alive and what it is doing."""
    run(connection, BEAT, heartbeat)


def sign_off(connection: BaseDatabaseWrapper, name: str) -> None:
    """Remove the row of a worker process that ends."""
    run(connection, "DELETE FROM messaging_worker WHERE name = %s", (name,))


TAKE_TURN = "SELECT pg_advisory_xact_lock(hashtext('messaging_worker'), hashtext(%s))"

# A worker that starts is a row of its bare name, until its processes give signs of life.
BEARER = """
    SELECT name, host, pid, seen_at, extract(epoch FROM statement_timestamp() - seen_at)::float8
    FROM messaging_worker
    WHERE (name = %(name)s OR starts_with(name, %(name)s || '/'))
        AND seen_at > statement_timestamp() - %(silence)s * interval '1 second'
    ORDER BY seen_at DESC LIMIT 1
"""
TAKE_NAME = """
    INSERT INTO messaging_worker
        (name, host, pid, version, queues, threads, running, handled, failed, state,
         started_at, seen_at)
    VALUES (%(name)s, %(host)s, %(pid)s, '', '[]', 0, '{}', 0, 0, 'starting',
        statement_timestamp(), statement_timestamp())
    ON CONFLICT (name) DO UPDATE
    SET host = excluded.host, pid = excluded.pid, seen_at = excluded.seen_at
"""


class Bearer(NamedTuple):
    """The process that last gave a sign of life under a name; ``age`` of that in seconds."""

    name: str
    host: str
    pid: int
    seen_at: datetime.datetime
    age: float


def take_name(
    connection: BaseDatabaseWrapper, name: str, *, host: str, pid: int, silence: float
) -> Bearer | None:
    """Take a name that no worker bears; return who bears it, if somebody does.

    One that has given no sign of life for ``silence`` seconds is dead. Runs in a transaction.
    """
    # First, so that the next statement sees what the one before has committed.
    run(connection, TAKE_TURN, (name,))
    if rows := run(connection, BEARER, {"name": name, "silence": silence}):
        return Bearer._make(rows[0])
    run(connection, TAKE_NAME, {"name": name, "host": host, "pid": pid})
    return None


RECORD = """
    INSERT INTO messaging_stat (process, queue_id, acknowledged, failed, dead, expired, busy)
    SELECT %s, * FROM unnest(%s::bigint[], %s::integer[], %s::integer[], %s::integer[],
        %s::integer[], %s::float8[])
"""


def record(
    connection: BaseDatabaseWrapper,
    process: str,
    rows: Sequence[tuple[int, int, int, int, int, float]],
) -> None:
    """Store what a process did to each queue since its last record."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    run(connection, RECORD, (process, *columns))
