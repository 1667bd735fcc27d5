"""Purge what waits on a queue, a bounded batch at a time."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run
from .lanes import pass_on


class Ceiling(NamedTuple):
    """The newest ids at one moment: what a bulk operation stops at."""

    ready: int
    scheduled: int
    dead: int
    entries: int


# The sequences know without a look at the tables. What is drawn and not yet committed counts too.
CEILING = """
    SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('messaging_delivery', 'id')), 0),
        coalesce(pg_sequence_last_value(pg_get_serial_sequence('messaging_scheduled', 'id')), 0),
        coalesce(pg_sequence_last_value(pg_get_serial_sequence('messaging_deadletter', 'id')), 0),
        coalesce(pg_sequence_last_value(pg_get_serial_sequence('messaging_laneentry', 'id')), 0)
"""


def ceiling(connection: BaseDatabaseWrapper) -> Ceiling:
    """Return the ids that freeze a bulk operation."""
    return Ceiling(*run(connection, CEILING)[0])


class Batch(NamedTuple):
    """The messages that a batch deleted, of how many rows, and where the next one begins."""

    messages: Sequence[int]
    rows: int
    next: Any


# What a worker has taken is locked and skipped. The tokens of lanes stay, so that order and turns
# of the keys do: whoever claims one finds what is left, or nothing and ends the lane.
PURGE_ENTRIES = """
    DELETE FROM messaging_laneentry
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM messaging_laneentry
        WHERE queue_id = %(queue_id)s AND (lane_id, id) > (%(lane_id)s, %(id)s) AND id <= %(upto)s
        ORDER BY lane_id, id LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING lane_id, id, message_id
"""
NO_ENTRY = (0, 0)


def purge_entries(
    connection: BaseDatabaseWrapper,
    queue_id: int,
    *,
    after: tuple[int, int],
    upto: int,
    limit: int,
) -> Batch:
    """Delete the next messages with a key behind (lane, id)."""
    params = {
        "queue_id": queue_id,
        "lane_id": after[0],
        "id": after[1],
        "upto": upto,
        "limit": limit,
    }
    rows = run(connection, PURGE_ENTRIES, params)
    last = max(((lane_id, each) for lane_id, each, _ in rows), default=after)
    return Batch([message_id for *_, message_id in rows], len(rows), last)


# Goes on behind the last batch instead of walking again over the entries that it has deleted. What
# a worker has locked is skipped: it is being handled. Of the tokens only those whose lane looks
# empty; whether it is, is seen under its lock.
PURGE_READY = """
    DELETE FROM messaging_delivery
    WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM messaging_delivery AS ready
        WHERE queue_id = %(queue_id)s AND (priority, id) > (%(priority)s, %(id)s)
        AND id <= %(upto)s
        AND (lane_id IS NULL OR NOT EXISTS (
            SELECT FROM messaging_laneentry AS entry
            WHERE entry.queue_id = %(queue_id)s AND entry.lane_id = ready.lane_id))
        ORDER BY priority, id LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING priority, id, lane_id, message_id
"""
FIRST = (-32_768, 0)


def purge_ready(
    connection: BaseDatabaseWrapper,
    queue_id: int,
    *,
    after: tuple[int, int],
    upto: int,
    limit: int,
) -> Batch:
    """Delete the next ready deliveries behind (priority, id), and end lanes that are empty."""
    params = {
        "queue_id": queue_id,
        "priority": after[0],
        "id": after[1],
        "upto": upto,
        "limit": limit,
    }
    rows = run(connection, PURGE_READY, params)
    lanes = [lane_id for *_, lane_id, _ in rows if lane_id is not None]
    _end(connection, queue_id, lanes)
    last = max(((priority, each) for priority, each, *_ in rows), default=after)
    gone = [message_id for *_, lane_id, message_id in rows if lane_id is None]
    return Batch(gone, len(rows), last)


# Equal times of a batch's end are read again, since the index ends with the time.
PURGE_SCHEDULED = """
    WITH gone AS (
        DELETE FROM messaging_scheduled
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messaging_scheduled AS later
            WHERE (queue_id, due_at) >= (%(queue_id)s, %(since)s::timestamptz)
            AND queue_id <= %(queue_id)s AND id <= %(upto)s
            AND (lane_id IS NULL OR NOT EXISTS (
                SELECT FROM messaging_laneentry AS entry
                WHERE entry.queue_id = %(queue_id)s AND entry.lane_id = later.lane_id))
            ORDER BY queue_id, due_at LIMIT %(limit)s
            FOR UPDATE SKIP LOCKED
        ))
        RETURNING due_at, lane_id, message_id
    )
    SELECT count(*), max(due_at)::text, array_agg(lane_id) FILTER (WHERE lane_id IS NOT NULL),
        array_agg(message_id) FILTER (WHERE lane_id IS NULL)
    FROM gone
"""
EARLIEST = "-infinity"


def purge_scheduled(
    connection: BaseDatabaseWrapper, queue_id: int, *, after: str, upto: int, limit: int
) -> Batch:
    """Delete the next scheduled deliveries due from ``after`` on, and end lanes that are empty."""
    params = {"queue_id": queue_id, "since": after, "upto": upto, "limit": limit}
    rows, last, lanes, gone = run(connection, PURGE_SCHEDULED, params)[0]
    _end(connection, queue_id, lanes or ())
    return Batch(gone or (), rows, last or after)


def _end(connection: BaseDatabaseWrapper, queue_id: int, lanes: Sequence[int]) -> None:
    """Give tokens up, one of each lane at a time; a lane that is in use gets its token back."""
    tokens = Counter(lanes)
    while tokens:
        pass_on(connection, queue_id, [(lane_id, False) for lane_id in sorted(tokens)])
        tokens -= Counter(tokens.keys())
