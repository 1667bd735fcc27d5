"""Prune what is older than its retention, a batch at a time."""

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run

# Walks the log from its head in the order of ids, up to where nothing can be old enough. A message
# that still waits on a queue stays, however old it is, and so does one that is held under a lease.
# The failed attempts of one that goes are forgotten too, unless a dead letter still tells of them.
# Each batch looks through all that waits, so batches are large.
LOG = """
    WITH horizon AS MATERIALIZED (
        SELECT statement_timestamp() - least(
            (SELECT min(retention) FROM messaging_queue),
            (SELECT min(retention) FROM messaging_topic)) * interval '1 second' AS at
    ),
    batch AS MATERIALIZED (
        SELECT id, queue_id, topic_id, published_at FROM messaging_message
        WHERE id > %(after)s ORDER BY id LIMIT %(limit)s
    ),
    old AS MATERIALIZED (
        SELECT batch.id FROM batch
        LEFT JOIN messaging_queue AS queue ON queue.id = batch.queue_id
        LEFT JOIN messaging_topic AS topic ON topic.id = batch.topic_id
        WHERE batch.published_at < statement_timestamp()
            - coalesce(queue.retention, topic.retention, 0) * interval '1 second'
    ),
    gone AS (
        DELETE FROM messaging_message AS message USING old
        WHERE message.id = old.id
        AND NOT EXISTS (
            SELECT FROM messaging_delivery AS waiting WHERE waiting.message_id = old.id)
        AND NOT EXISTS (
            SELECT FROM messaging_scheduled AS waiting WHERE waiting.message_id = old.id)
        AND NOT EXISTS (
            SELECT FROM messaging_laneentry AS waiting WHERE waiting.message_id = old.id)
        AND NOT EXISTS (
            SELECT FROM messaging_lease AS waiting WHERE waiting.message_id = old.id)
        AND NOT EXISTS (
            SELECT FROM messaging_arrival AS waiting WHERE waiting.message_id = old.id)
        RETURNING message.id
    ),
    forgotten AS (
        DELETE FROM messaging_attempt AS attempt USING gone
        WHERE attempt.message_id = gone.id
        AND NOT EXISTS (SELECT FROM messaging_deadletter AS dead WHERE dead.message_id = gone.id)
    ),
    unedited AS (
        DELETE FROM messaging_edit AS edit USING gone
        WHERE edit.message_id = gone.id
        AND NOT EXISTS (SELECT FROM messaging_deadletter AS dead WHERE dead.message_id = gone.id)
    )
    SELECT (SELECT count(*) FROM gone),
        (SELECT max(batch.id) FROM batch, horizon
         WHERE batch.published_at < horizon.at OR horizon.at IS NULL)
"""


# A statement of its own, before the other: that one has to see what was committed until the lock
# was granted.
TAKE_TURN = "SELECT pg_try_advisory_xact_lock(hashtext('messaging_retention'), 0)"


def prune_log(connection: BaseDatabaseWrapper, after: int, limit: int) -> tuple[int, int | None]:
    """Delete old messages behind ``after``; return how many went, and where to go on, if at all.

    Runs inside a transaction. One worker does it at a time; the others find nothing.
    """
    if not run(connection, TAKE_TURN)[0][0]:
        return 0, None
    gone, last = run(connection, LOG, {"after": after, "limit": limit})[0]
    return gone, last


KEEP = "SELECT pg_advisory_xact_lock_shared(hashtext('messaging_retention'), 0)"


def keep_log(connection: BaseDatabaseWrapper) -> None:
    """Let nothing be pruned until this transaction ends, because something is to wait again.

    Pruning could not see that yet, and would take the message from under it.
    """
    run(connection, KEEP)


EXPIRED = (
    """
    DELETE FROM messaging_deduplication WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM messaging_deduplication WHERE expires_at < statement_timestamp()
        LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
    RETURNING 1
    """,
    """
    DELETE FROM messaging_idempotency WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM messaging_idempotency WHERE expires_at < statement_timestamp()
        LIMIT %(limit)s FOR UPDATE SKIP LOCKED))
    RETURNING 1
    """,
    """
    DELETE FROM messaging_stat WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM messaging_stat
        WHERE at < statement_timestamp() - interval '1 day' LIMIT %(limit)s
        FOR UPDATE SKIP LOCKED))
    RETURNING 1
    """,
    """
    DELETE FROM messaging_worker WHERE seen_at < statement_timestamp() - interval '1 minute'
    RETURNING 1
    """,
)


def prune_expired(connection: BaseDatabaseWrapper, limit: int) -> int:
    """Delete expired deduplication ids and idempotency records, old statistics, ghosts."""
    return sum(len(run(connection, sql, {"limit": limit})) for sql in EXPIRED)
