"""Limits: how many messages a second, how many at once, and whose turn it is, over all workers."""

from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run


class Permits(NamedTuple):
    """How many messages a bucket lets through now, and the seconds until its next one."""

    granted: int
    wait: float


# A token bucket. The row is locked before it is read, so that two workers cannot spend the same
# token; the clock may have been read before another worker's, and then no time has passed.
TAKE = """
    WITH bucket AS MATERIALIZED (
        SELECT bucket.id, wanted.count, least(%(burst)s::float8, bucket.tokens + %(rate)s::float8 *
            greatest(0, extract(epoch FROM statement_timestamp() - bucket.filled_at)::float8))
            AS filled
        FROM messaging_ratelimit AS bucket
        JOIN unnest(%(keys)s::text[], %(counts)s::int[]) AS wanted (key, count)
            ON bucket.queue_id = %(queue_id)s AND bucket.key = wanted.key
        ORDER BY bucket.id
        FOR UPDATE OF bucket
    )
    UPDATE messaging_ratelimit AS known
    SET tokens = bucket.filled - least(floor(bucket.filled), bucket.count),
        filled_at = greatest(known.filled_at, statement_timestamp())
    FROM bucket WHERE known.id = bucket.id
    RETURNING known.key, least(floor(bucket.filled), bucket.count)::int,
        greatest(0, (1 - known.tokens) / %(rate)s::float8)
"""
OPEN = """
    INSERT INTO messaging_ratelimit (queue_id, key, tokens, filled_at)
    SELECT %(queue_id)s, key, %(burst)s, statement_timestamp()
    FROM unnest(%(keys)s::text[]) AS wanted (key) ORDER BY key
    ON CONFLICT DO NOTHING
"""


def take_permits(
    connection: BaseDatabaseWrapper, queue_id: int, rate: float, wanted: dict[str, int]
) -> dict[str, Permits]:
    """Take up to so many permits of each key; the key "" is the queue itself.

    ``rate`` a second; what was not taken is saved up for one second, and at least one permit is.
    """
    params = {
        "queue_id": queue_id,
        "rate": float(rate),
        "burst": max(1.0, float(rate)),
        "keys": list(wanted),
        "counts": list(wanted.values()),
    }
    rows = run(connection, TAKE, params)
    if len(rows) < len(wanted):
        known = {key for key, _, _ in rows}
        params["keys"] = [key for key in wanted if key not in known]
        params["counts"] = [count for key, count in wanted.items() if key not in known]
        run(connection, OPEN, params)
        rows += run(connection, TAKE, params)
    return {key: Permits(granted, wait) for key, granted, wait in rows}


GIVE_BACK = """
    UPDATE messaging_ratelimit
    SET tokens = least(greatest(1, %(rate)s::float8), tokens + %(unused)s)
    WHERE queue_id = %(queue_id)s AND key = ''
"""


def give_back_permits(
    connection: BaseDatabaseWrapper, queue_id: int, rate: float, unused: int
) -> None:
    """Return permits of a queue that nothing was handled with."""
    run(connection, GIVE_BACK, {"queue_id": queue_id, "rate": float(rate), "unused": unused})


# Whatever has not been used for so long is full, at the slowest rate that there may be.
PRUNE = """
    DELETE FROM messaging_ratelimit
    WHERE key <> '' AND filled_at < statement_timestamp() - interval '1 hour'
"""


def prune(connection: BaseDatabaseWrapper) -> None:
    """Forget the rates of ordering keys that have long been idle."""
    run(connection, PRUNE)


# A lock for each place, which the end of the transaction gives back, however it ends. LIMIT stops
# the scan at the last one wanted. The locks of others are counted when these are taken: of two who
# take the last place at once, at least one sees the other.
ENTER = """
    SELECT taken.count, (
        SELECT count(*) FROM pg_locks
        WHERE taken.count > 0 AND locktype = 'advisory' AND granted
        AND pid IS DISTINCT FROM pg_backend_pid()
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid::bigint = hashtext('messaging_queue ' || %(queue_id)s::bigint) & 4294967295
        AND objid > 0 AND objsubid = 2
    )
    FROM (
        SELECT count(*) FROM (
            SELECT FROM generate_series(1, %(places)s) AS place
            WHERE pg_try_advisory_xact_lock(
                hashtext('messaging_queue ' || %(queue_id)s::bigint), place::int)
            LIMIT %(wanted)s
        ) AS place
    ) AS taken
"""
# What is held under a lease takes a place without a lock. In a statement of its own after the
# locks: whoever gave back a lock by then has left a lease that this one sees.
COUNT_LEASES = "SELECT count(*) FROM messaging_lease WHERE queue_id = %(queue_id)s"


def enter(connection: BaseDatabaseWrapper, queue_id: int, places: int, wanted: int) -> int:
    """Take up to ``wanted`` of a queue's places, until the transaction ends; return how many."""
    params = {"queue_id": queue_id, "places": places, "wanted": wanted}
    ((taken, others),) = run(connection, ENTER, params)
    if not taken:
        return 0
    ((leased,),) = run(connection, COUNT_LEASES, params)
    return max(0, min(int(taken), places - int(others) - int(leased)))


# Those who claim leases of one queue do it one after another, so that none takes the places of what
# it does not find. The lock ends with the claim, long before the leases.
QUEUE_UP = """
    SELECT pg_advisory_xact_lock(hashtext('messaging_leases ' || %(queue_id)s::bigint), 0)
"""


def queue_up(connection: BaseDatabaseWrapper, queue_id: int) -> None:
    """Let nobody else claim leases of a queue, until the transaction ends."""
    run(connection, QUEUE_UP, {"queue_id": queue_id})


TURN = """
    SELECT pg_try_advisory_xact_lock(hashtext('messaging_queue ' || %(queue_id)s::bigint), 0)
"""


def take_turn(connection: BaseDatabaseWrapper, queue_id: int) -> bool:
    """Be the only transaction that handles messages of a queue, until it ends."""
    ((taken,),) = run(connection, TURN, {"queue_id": queue_id})
    return bool(taken)


ACTIVATE = """
    WITH before AS MATERIALIZED (
        SELECT worker FROM messaging_activeconsumer WHERE queue_id = %(queue_id)s
    ),
    taken AS (
        INSERT INTO messaging_activeconsumer AS active (queue_id, worker, until)
        VALUES (%(queue_id)s, %(worker)s, statement_timestamp() + %(ttl)s * interval '1 second')
        ON CONFLICT (queue_id) DO UPDATE SET worker = excluded.worker, until = excluded.until
        WHERE active.worker = excluded.worker OR active.until <= statement_timestamp()
        RETURNING worker
    )
    SELECT (SELECT before.worker FROM before) FROM taken
"""
# The worker that had the turn is dead, stopped, or cut off; its transaction would hold the queue
# until the server finds out, which may take hours.
EVICT = """
    SELECT pg_terminate_backend(pid) FROM pg_locks
    WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND classid::bigint = hashtext('messaging_queue ' || %(queue_id)s::bigint) & 4294967295
    AND objid = 0 AND objsubid = 2
"""


def activate(connection: BaseDatabaseWrapper, queue_id: int, worker: str, ttl: float) -> bool:
    """Be the active consumer of a queue for ``ttl`` more seconds; say whether that is so.

    Ends the transaction of a predecessor whose time is over.
    """
    params = {"queue_id": queue_id, "worker": worker, "ttl": ttl}
    rows = run(connection, ACTIVATE, params)
    if rows and rows[0][0] not in (None, worker):
        run(connection, EVICT, {"queue_id": queue_id})
    return bool(rows)


RESIGN = "DELETE FROM messaging_activeconsumer WHERE worker = %s"


def resign(connection: BaseDatabaseWrapper, worker: str) -> None:
    """Leave the queues of which this worker is the active consumer to the others."""
    run(connection, RESIGN, (worker,))
