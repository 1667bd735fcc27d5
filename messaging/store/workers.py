"""Keep the heartbeats and statistics that worker processes write."""

from collections.abc import Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run

BEAT = """
    INSERT INTO messaging_worker
        (name, host, pid, version, queues, threads, running, handled, failed, state,
         started_at, seen_at)
    VALUES (%(name)s, %(host)s, %(pid)s, %(version)s, %(queues)s::jsonb, %(threads)s,
        %(running)s::jsonb, %(handled)s, %(failed)s, %(state)s,
        statement_timestamp(), statement_timestamp())
    ON CONFLICT (name) DO UPDATE
    SET running = excluded.running, handled = excluded.handled, failed = excluded.failed,
        state = excluded.state, seen_at = excluded.seen_at
"""


def beat(connection: BaseDatabaseWrapper, heartbeat: dict[str, Any]) -> None:
    """Store that a worker process is alive and what it is doing."""
    run(connection, BEAT, heartbeat)


def sign_off(connection: BaseDatabaseWrapper, name: str) -> None:
    """Remove the row of a worker process that ends."""
    run(connection, "DELETE FROM messaging_worker WHERE name = %s", (name,))


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
