"""Read the topic messages of the log that became visible between two snapshots."""

import json
from collections.abc import Collection
from typing import Any, NamedTuple, Protocol

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run

# What a preview of a body may show, characters; a stored body of more bytes is not unpacked for it.
PREVIEW = 200
LARGE = 8_192
COUNTED = 10_000


class Snapshot(Protocol):
    """Which transactions a reader has seen: those below ``xmax`` but for the ``running`` ones."""

    @property
    def xmax(self) -> int: ...

    @property
    def running(self) -> Collection[int]: ...


class Seen(NamedTuple):
    """What one statement saw: its snapshot, the database's clock, and the newest messages.

    ``rows`` are [id, transaction, topic, published at, body] in the order of (transaction, id);
    ``retention`` is the shortest of the topics read, seconds, or None.
    """

    snapshot: str
    at: int
    retention: int | None
    rows: list[list[Any]]


# Every reference to pg_current_snapshot() is the statement's own snapshot, so that what the rows
# show and what the snapshot says agree. A few look-ups a topic find the newest rows by the index;
# bodies are read only of those that are returned, and by LIMIT one at a time, where the planner
# might else join the whole log.
_NEWEST = """
    SELECT pg_current_snapshot()::text, extract(epoch FROM statement_timestamp())::bigint,
        (SELECT min(retention) FROM messaging_topic
         WHERE %(topics)s::text[] IS NULL OR name = ANY(%(topics)s)),
        coalesce((
            SELECT json_agg(json_build_array(
                message.id, message.transaction::text, newest.name,
                extract(epoch FROM message.published_at),
                CASE WHEN pg_column_size(message.body) <= %(large)s
                    THEN left(message.body::text, %(preview)s) END
            ) ORDER BY message.transaction, message.id)
            FROM (
                SELECT topic.name, found.id
                FROM messaging_topic AS topic CROSS JOIN LATERAL ({found}) AS found
                WHERE %(topics)s::text[] IS NULL OR topic.name = ANY(%(topics)s)
                ORDER BY found.transaction DESC, found.id DESC LIMIT %(limit)s
            ) AS newest
            CROSS JOIN LATERAL (
                SELECT * FROM messaging_message AS log WHERE log.id = newest.id LIMIT 1
            ) AS message
        ), '[]')::text
"""
# The upper bound leaves out rows that were restored from another server, whose transactions lie
# in this one's future.
_LATEST = """
    SELECT log.id, log.transaction FROM messaging_message AS log
    WHERE log.topic_id = topic.id AND log.transaction < pg_snapshot_xmax(pg_current_snapshot())
    ORDER BY log.transaction DESC, log.id DESC LIMIT %(limit)s
"""
# What a snapshot has not seen: transactions from its xmax on, and those that ran and have ended.
# Asking for all from its xmin on would read, each time, whatever was published since the oldest
# transaction of the whole server began. One look-up for each that ended, because PostgreSQL before
# 17 reads a whole topic for a list of them in order.
_SINCE = """
    (SELECT log.id, log.transaction FROM messaging_message AS log
     WHERE log.topic_id = topic.id AND log.transaction >= %(xmax)s::text::xid8
        AND log.transaction < pg_snapshot_xmax({now})
        AND pg_visible_in_snapshot(log.transaction, {now})
     ORDER BY log.transaction DESC, log.id DESC LIMIT %(limit)s)
    UNION ALL
    (SELECT late.id, late.transaction
     FROM unnest(%(running)s::text[]::xid8[]) AS ended CROSS JOIN LATERAL (
        SELECT log.id, log.transaction FROM messaging_message AS log
        WHERE log.topic_id = topic.id AND log.transaction = ended
            AND pg_visible_in_snapshot(ended, {now})
        ORDER BY log.transaction DESC, log.id DESC LIMIT %(limit)s
     ) AS late
     ORDER BY late.transaction DESC, late.id DESC LIMIT %(limit)s)
"""


LATEST: Any = _NEWEST.format(found=_LATEST)
SINCE: Any = _NEWEST.format(found=_SINCE.format(now="pg_current_snapshot()"))


def latest(connection: BaseDatabaseWrapper, *, topics: Collection[str] | None, limit: int) -> Seen:
    """Return the newest messages of some topics, or of all."""
    return _seen(connection, LATEST, {"topics": _listed(topics), "limit": limit})


def since(
    connection: BaseDatabaseWrapper,
    seen: Snapshot,
    *,
    topics: Collection[str] | None,
    limit: int,
) -> Seen:
    """Return the newest of the messages that a snapshot has not seen."""
    params = {"topics": _listed(topics), "limit": limit, **snapshot_params(seen)}
    return _seen(connection, SINCE, params)


def _seen(connection: BaseDatabaseWrapper, sql: Any, params: dict[str, Any]) -> Seen:
    # One character more than is shown tells that there is more.
    params |= {"preview": PREVIEW + 1, "large": LARGE}
    snapshot, at, retention, rows = run(connection, sql, params)[0]
    return Seen(snapshot, at, retention, json.loads(rows))


_COUNT = """
    SELECT count(*) FROM (
        SELECT FROM messaging_topic AS topic CROSS JOIN LATERAL ({found}) AS found
        WHERE %(topics)s::text[] IS NULL OR topic.name = ANY(%(topics)s) LIMIT %(limit)s
    ) AS bounded
"""
COUNT: Any = _COUNT.format(found=_SINCE.format(now="%(upto)s::pg_snapshot"))


def count(
    connection: BaseDatabaseWrapper,
    seen: Snapshot,
    upto: str,
    *,
    topics: Collection[str] | None,
) -> int:
    """Count the messages between two snapshots; one more than COUNTED stands for more."""
    bounds = {"topics": _listed(topics), "upto": upto, "limit": COUNTED + 1}
    return int(run(connection, COUNT, bounds | snapshot_params(seen))[0][0])


def topic_exists(connection: BaseDatabaseWrapper, name: str) -> bool:
    """Tell whether there is a topic of this name."""
    return bool(run(connection, "SELECT 1 FROM messaging_topic WHERE name = %s", (name,)))


def _listed(topics: Collection[str] | None) -> list[str] | None:
    return None if topics is None else sorted(topics)


def snapshot_params(seen: Snapshot) -> dict[str, Any]:
    """Return the parameters that describe a snapshot."""
    return {"xmax": str(seen.xmax), "running": [str(number) for number in seen.running]}
