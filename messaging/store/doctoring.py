"""Read what tells whether the database and the workers are well, each in bounded time."""

import secrets
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import Rows, run
from .notifications import connect, listen
from .workers import SILENCE

CHANNEL = "messaging_doctor"
# How many of the newest dead letters and the oldest messages of the log are looked at.
LOOKED_AT = 1_000


class Server(NamedTuple):
    """What the server says of itself; times in seconds, None or 0: no limit or none."""

    version: str
    idle_timeout: float
    transaction_timeout: float
    autovacuum: bool
    sessions: int
    most_sessions: int
    clock: float


# transaction_timeout is new in PostgreSQL 17.
SERVER = """
    SELECT current_setting('server_version'),
        (SELECT setting::float8 / 1000 FROM pg_settings
         WHERE name = 'idle_in_transaction_session_timeout'),
        coalesce((SELECT setting::float8 / 1000 FROM pg_settings
         WHERE name = 'transaction_timeout'), 0),
        current_setting('autovacuum')::boolean,
        (SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend'),
        current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int,
        extract(epoch FROM clock_timestamp())::float8
"""


def server(connection: BaseDatabaseWrapper) -> Server:
    """Return what the server says of itself."""
    return Server._make(run(connection, SERVER)[0])


TRIGGERS = """
    SELECT wanted.name FROM unnest(%(names)s::text[]) AS wanted (name)
    WHERE NOT EXISTS (
        SELECT FROM pg_trigger JOIN pg_class ON pg_class.oid = pg_trigger.tgrelid
        WHERE pg_trigger.tgname = wanted.name AND pg_trigger.tgenabled IN ('O', 'A')
        AND pg_class.relname LIKE 'messaging\\_%%' AND pg_table_is_visible(pg_class.oid))
"""


def missing_triggers(connection: BaseDatabaseWrapper, names: list[str]) -> list[str]:
    """Return which of these triggers are missing or disabled."""
    return [row[0] for row in run(connection, TRIGGERS, {"names": names})]


UNLOGGED = """
    SELECT relname FROM pg_class
    WHERE relkind = 'r' AND relpersistence = 'u' AND relname LIKE 'messaging\\_%'
    AND relname <> 'messaging_worker' AND pg_table_is_visible(oid)
"""


def unlogged_tables(connection: BaseDatabaseWrapper) -> list[str]:
    """Return our tables, besides that of heartbeats, that a crash of the server would empty."""
    return [row[0] for row in run(connection, UNLOGGED)]


DEAD_ROWS = """
    SELECT relname, n_dead_tup FROM pg_stat_user_tables
    WHERE relname LIKE 'messaging\\_%%' AND n_dead_tup > %(most)s
    AND pg_table_is_visible(relid) ORDER BY n_dead_tup DESC
"""


def dead_rows(connection: BaseDatabaseWrapper, most: int) -> Rows:
    """Return our tables with more dead rows than that, and how many."""
    return run(connection, DEAD_ROWS, {"most": most})


OLDEST = """
    SELECT pid, application_name, coalesce(state, ''),
        extract(epoch FROM clock_timestamp() - xact_start)::float8
    FROM pg_stat_activity
    WHERE xact_start IS NOT NULL AND backend_type = 'client backend'
    AND pid <> pg_backend_pid() AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)
    ORDER BY xact_start LIMIT 1
"""


def oldest_transaction(connection: BaseDatabaseWrapper) -> tuple[Any, ...] | None:
    """Return pid, application, state and age in seconds of what has kept a snapshot longest."""
    return next(iter(run(connection, OLDEST)), None)


class QueueRow(NamedTuple):
    """What there is about a queue; ``oldest`` is the age in seconds of what is next."""

    name: str
    has_ready: bool
    oldest: float
    workers: int
    paused_for: float | None
    holds_dead_letters: bool


# The first row of each priority is found by the index; a token has the message 0, and no age.
QUEUES: Any = f"""
    SELECT queue.name, first.id IS NOT NULL,
        coalesce(extract(epoch FROM statement_timestamp() - message.published_at), 0)::float8,
        (SELECT count(*) FROM messaging_worker AS worker WHERE worker.queues ? queue.name
         AND worker.seen_at > statement_timestamp() - interval '{SILENCE} seconds'),
        extract(epoch FROM statement_timestamp() - queue.paused_at)::float8,
        EXISTS (SELECT FROM messaging_queue AS origin WHERE origin.dead_letter_queue_id = queue.id)
    FROM messaging_queue AS queue
    LEFT JOIN LATERAL (
        SELECT ready.id, ready.message_id FROM messaging_delivery AS ready
        WHERE ready.queue_id BETWEEN queue.id AND queue.id
        ORDER BY ready.queue_id, ready.priority DESC, ready.id LIMIT 1
    ) AS first ON true
    LEFT JOIN LATERAL (
        SELECT log.published_at FROM messaging_message AS log
        WHERE log.id = first.message_id LIMIT 1
    ) AS message ON true
    WHERE NOT EXISTS (
        SELECT FROM messaging_subscription AS ephemeral
        WHERE ephemeral.queue_id = queue.id AND ephemeral.idle_timeout IS NOT NULL)
    ORDER BY queue.name
"""  # noqa: S608 - a constant above


def queues(connection: BaseDatabaseWrapper) -> list[QueueRow]:
    """Return all queues but ephemeral ones, which no worker ever serves."""
    return [QueueRow._make(row) for row in run(connection, QUEUES)]


DIED = """
    SELECT count(*) FROM (
        SELECT died_at FROM messaging_deadletter ORDER BY id DESC LIMIT %(limit)s
    ) AS newest WHERE died_at > statement_timestamp() - %(seconds)s * interval '1 second'
"""


def died(connection: BaseDatabaseWrapper, seconds: float) -> int:
    """Count what died lately; ``LOOKED_AT`` stands for that many or more."""
    return int(run(connection, DIED, {"limit": LOOKED_AT, "seconds": seconds})[0][0])


# What waits is looked through once, as pruning does.
OVERDUE = """
    WITH old AS MATERIALIZED (
        SELECT head.id FROM (
            SELECT id, queue_id, topic_id, published_at FROM messaging_message
            ORDER BY id LIMIT %(limit)s
        ) AS head
        LEFT JOIN messaging_queue AS queue ON queue.id = head.queue_id
        LEFT JOIN messaging_topic AS topic ON topic.id = head.topic_id
        WHERE head.published_at < statement_timestamp() - interval '1 hour'
            - coalesce(queue.retention, topic.retention, 0) * interval '1 second'
    )
    SELECT count(*) FROM old
    WHERE NOT EXISTS (SELECT FROM messaging_delivery AS w WHERE w.message_id = old.id)
    AND NOT EXISTS (SELECT FROM messaging_scheduled AS w WHERE w.message_id = old.id)
    AND NOT EXISTS (SELECT FROM messaging_laneentry AS w WHERE w.message_id = old.id)
    AND NOT EXISTS (SELECT FROM messaging_lease AS w WHERE w.message_id = old.id)
    AND NOT EXISTS (SELECT FROM messaging_arrival AS w WHERE w.message_id = old.id)
"""


def overdue(connection: BaseDatabaseWrapper) -> int:
    """Count messages at the head of the log that should have been pruned an hour ago."""
    return int(run(connection, OVERDUE, {"limit": LOOKED_AT})[0][0])


def hears(connection: BaseDatabaseWrapper, seconds: float) -> bool:
    """Tell whether a notification comes from Django's database to where workers listen.

    On a copy of the connection, because a transaction would send it when it commits.
    """
    token = secrets.token_hex(8)
    with connect(connection) as ear:
        ear.execute(f"LISTEN {CHANNEL}")
        speaker = connection.copy()
        try:
            run(speaker, "SELECT pg_notify(%s, %s)", (CHANNEL, token))
        finally:
            speaker.close()
        # The first to come is enough: waiting for more would take all of the time.
        return next((True for payload in listen(ear, seconds) if payload == token), False)
