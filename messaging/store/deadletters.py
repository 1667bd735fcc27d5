"""Bury and discard dead letters, and remember failed attempts."""

from collections.abc import Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from ..messages import Outcome
from .connection import run

# The payload is copied by the database as it stands: an undecodable one is buried like any other.
# A message that retention took from the log is buried without its payload rather than lost.
BURY = """
    INSERT INTO messaging_deadletter
        (message_id, queue_id, origin_id, topic_id, subscription_id, priority, ordering_key,
         fairness_key, entry_id, correlation_id, causation_id, reply_to, headers, body,
         published_at, attempts, reason, description, error, traceback, fingerprint)
    SELECT dead.message_id, coalesce(queue.dead_letter_queue_id, dead.queue_id), dead.queue_id,
        message.topic_id, dead.subscription_id, dead.priority, message.ordering_key,
        message.fairness_key, dead.entry_id, message.correlation_id, message.causation_id,
        message.reply_to, coalesce(message.headers, '{}'), message.body,
        coalesce(message.published_at, statement_timestamp()), dead.attempt, dead.reason,
        dead.description, dead.error, dead.traceback, dead.fingerprint
    FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::smallint[], %s::smallint[],
        %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
        AS dead (message_id, queue_id, subscription_id, priority, attempt, entry_id, reason,
                 description, error, traceback, fingerprint)
    LEFT JOIN messaging_message AS message ON message.id = dead.message_id
    LEFT JOIN messaging_queue AS queue ON queue.id = dead.queue_id
"""


def bury(connection: BaseDatabaseWrapper, outcomes: Sequence[Outcome]) -> None:
    """Store one dead letter for each outcome."""
    failures = [outcome.failure for outcome in outcomes]
    params = (
        [o.delivered.message_id for o in outcomes],
        [o.delivered.queue_id for o in outcomes],
        [o.delivered.subscription_id for o in outcomes],
        [o.delivered.priority for o in outcomes],
        [o.delivered.attempt for o in outcomes],
        [o.delivered.entry_id for o in outcomes],
        [o.reason for o in outcomes],
        [f.description if f else "" for f in failures],
        [f.error if f else "" for f in failures],
        [f.traceback if f else "" for f in failures],
        [f.fingerprint if f else "" for f in failures],
    )
    run(connection, BURY, params)


RECORD_ATTEMPTS = """
    INSERT INTO messaging_attempt
        (message_id, queue_id, attempt, outcome, error, description, traceback, worker, duration)
    SELECT message_id, queue_id, attempt, outcome, error, description, traceback, %s, duration
    FROM unnest(%s::bigint[], %s::bigint[], %s::smallint[], %s::text[], %s::text[], %s::text[],
        %s::text[], %s::float8[])
        AS failed (message_id, queue_id, attempt, outcome, error, description, traceback, duration)
"""


def record_attempts(
    connection: BaseDatabaseWrapper, outcomes: Sequence[Outcome], worker: str
) -> None:
    """Store one row for each failed delivery."""
    failures = [outcome.failure for outcome in outcomes]
    params = (
        worker,
        [o.delivered.message_id for o in outcomes],
        [o.delivered.queue_id for o in outcomes],
        [o.delivered.attempt for o in outcomes],
        [o.reason or o.settlement.value for o in outcomes],
        [f.error if f else "" for f in failures],
        [f.description if f else "" for f in failures],
        [f.traceback if f else "" for f in failures],
        [o.duration for o in outcomes],
    )
    run(connection, RECORD_ATTEMPTS, params)


LAST_ERROR = """
    SELECT error FROM messaging_attempt
    WHERE message_id = %s AND queue_id = %s ORDER BY id DESC LIMIT 1
"""


def last_error(connection: BaseDatabaseWrapper, message_id: int, queue_id: int) -> str | None:
    """Return the error of a message's last failed delivery to a queue, or None."""
    rows = run(connection, LAST_ERROR, (message_id, queue_id))
    return rows[0][0] if rows else None


# With the last that tells of a message, its failed attempts and old versions go.
DISCARD = """
    WITH discarded AS (
        DELETE FROM messaging_deadletter
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messaging_deadletter WHERE id = ANY (%(ids)s::bigint[])
            ORDER BY id FOR UPDATE SKIP LOCKED
        ))
        RETURNING id, message_id
    ),
    forgotten AS (
        DELETE FROM messaging_attempt AS attempt USING discarded
        WHERE attempt.message_id = discarded.message_id
        AND NOT EXISTS (
            SELECT FROM messaging_message AS message WHERE message.id = discarded.message_id)
        AND NOT EXISTS (
            SELECT FROM messaging_deadletter AS dead
            WHERE dead.message_id = discarded.message_id
            AND dead.id NOT IN (SELECT id FROM discarded))
    ),
    unedited AS (
        DELETE FROM messaging_edit AS edit USING discarded
        WHERE edit.message_id = discarded.message_id
        AND NOT EXISTS (
            SELECT FROM messaging_message AS message WHERE message.id = discarded.message_id)
        AND NOT EXISTS (
            SELECT FROM messaging_deadletter AS dead
            WHERE dead.message_id = discarded.message_id
            AND dead.id NOT IN (SELECT id FROM discarded))
    )
    SELECT id FROM discarded
"""


def discard(connection: BaseDatabaseWrapper, ids: Sequence[int]) -> list[int]:
    """Delete dead letters for good; return the ids that existed."""
    return [dead_id for (dead_id,) in run(connection, DISCARD, {"ids": list(ids)})]


# Pairs, so that only the index of the queue has the order asked for.
BATCH: dict[bool, Any] = {
    True: """
        SELECT id FROM messaging_deadletter
        WHERE (queue_id, id) > (%(queue_id)s, %(after)s)
        AND (queue_id, id) <= (%(queue_id)s, %(upto)s)
        ORDER BY queue_id, id LIMIT %(limit)s
    """,
    False: """
        SELECT id FROM messaging_deadletter WHERE id > %(after)s AND id <= %(upto)s
        AND %(queue_id)s::bigint IS NULL ORDER BY id LIMIT %(limit)s
    """,
}


def dead_batch(
    connection: BaseDatabaseWrapper, queue_id: int | None, after: int, upto: int, limit: int
) -> list[int]:
    """Return the next ids of dead letters held in a queue (None: in all), after a known id."""
    params = {"queue_id": queue_id, "after": after, "upto": upto, "limit": limit}
    return [dead_id for (dead_id,) in run(connection, BATCH[queue_id is not None], params)]
