"""Read the topic messages between two snapshots in their order, a page at a time."""

import json
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run
from .feed import Snapshot, snapshot_params

# A body of more bytes, stored or written, is not sent along; one stored so is not even unpacked.
LARGE = 8_192


class Page(NamedTuple):
    """One page: the reading statement's snapshot and clock, and the oldest rows that are new.

    ``rows`` are [id, transaction, topic, published at, body] in the order of (transaction, id);
    ``retention`` is the shortest of the topics read, seconds, or None.
    """

    snapshot: str
    at: int
    retention: int | None
    rows: list[list[Any]]


# As in the feed: the transactions from the snapshot's xmax on, and one look-up for each that ran
# at it and has ended. Upwards, so that a reader that is far behind walks through the index and
# leaves out nothing; the row comparison starts at the place where the page before ended.
_FOUND = """
    (SELECT log.id, log.transaction FROM messaging_message AS log
     WHERE log.topic_id = topic.id AND log.transaction >= %(xmax)s::text::xid8
        AND log.transaction < pg_snapshot_xmax({upto})
        AND pg_visible_in_snapshot(log.transaction, {upto})
        AND (log.transaction, log.id) > (%(transaction)s::text::xid8, %(id)s::bigint)
     ORDER BY log.transaction, log.id LIMIT %(limit)s)
    UNION ALL
    (SELECT late.id, late.transaction
     FROM unnest(%(running)s::text[]::xid8[]) AS ended CROSS JOIN LATERAL (
        SELECT log.id, log.transaction FROM messaging_message AS log
        WHERE log.topic_id = topic.id AND log.transaction = ended
            AND pg_visible_in_snapshot(ended, {upto})
            AND (log.transaction, log.id) > (%(transaction)s::text::xid8, %(id)s::bigint)
        ORDER BY log.id LIMIT %(limit)s
     ) AS late
     ORDER BY late.transaction, late.id LIMIT %(limit)s)
"""
_MATCHES = "'.' || topic.name ~ messaging_pattern_regex(%(pattern)s)"
_PAGE = """
    SELECT pg_current_snapshot()::text, extract(epoch FROM statement_timestamp())::bigint,
        (SELECT min(retention) FROM messaging_topic AS topic WHERE {matches}),
        coalesce((
            SELECT json_agg(json_build_array(
                message.id, message.transaction::text, oldest.name,
                extract(epoch FROM message.published_at),
                CASE WHEN pg_column_size(message.body) <= %(large)s
                    AND octet_length(message.body::text) <= %(large)s
                    THEN message.body::text END
            ) ORDER BY message.transaction, message.id)
            FROM (
                SELECT topic.name, found.id
                FROM messaging_topic AS topic CROSS JOIN LATERAL ({found}) AS found
                WHERE {matches}
                ORDER BY found.transaction, found.id LIMIT %(limit)s
            ) AS oldest
            CROSS JOIN LATERAL (
                SELECT * FROM messaging_message AS log WHERE log.id = oldest.id LIMIT 1
            ) AS message
        ), '[]')::text
"""
_UPTO = "coalesce(%(upto)s::text::pg_snapshot, pg_current_snapshot())"
PAGE: Any = _PAGE.format(found=_FOUND.format(upto=_UPTO), matches=_MATCHES)
NOW: Any = """
    SELECT pg_current_snapshot()::text, extract(epoch FROM statement_timestamp())::bigint
"""


def page(
    connection: BaseDatabaseWrapper,
    seen: Snapshot,
    *,
    upto: str | None,
    after: tuple[int, int],
    pattern: str,
    limit: int,
) -> Page:
    """Return the oldest messages that a snapshot has not seen, behind a (transaction, id)."""
    transaction, message_id = after
    params = {
        **snapshot_params(seen),
        "upto": upto,
        "transaction": str(transaction),
        "id": message_id,
        "pattern": pattern,
        "limit": limit,
        "large": LARGE,
    }
    snapshot, at, retention, rows = run(connection, PAGE, params)[0]
    return Page(snapshot, at, retention, json.loads(rows))


def now(connection: BaseDatabaseWrapper) -> tuple[str, int]:
    """Return the snapshot and the clock of this moment."""
    snapshot, at = run(connection, NOW)[0]
    return snapshot, at
