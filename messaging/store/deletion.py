"""Delete all that a queue has left, while nobody can send to it."""

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run
from .locking import lock

# A worker process that has been silent for longer is taken for dead.
LIVE_FOR = "15 seconds"
LIVE_WORKERS = """
    SELECT name FROM messaging_worker
    WHERE queues ? %(queue)s AND seen_at > statement_timestamp() - interval '15 seconds'
    ORDER BY name
"""


def live_workers(connection: BaseDatabaseWrapper, queue: str) -> list[str]:
    """Return the names of the worker processes that serve a queue at present."""
    return [name for (name,) in run(connection, LIVE_WORKERS, {"queue": queue})]


# A sender holds its lock on these tables from before it looks the queue up. So whoever comes first
# is seen: the message by the deletion, or the deletion by the sender.
LOCK = """
    LOCK TABLE messaging_arrival, messaging_delivery, messaging_scheduled, messaging_laneentry,
        messaging_lease, messaging_lane IN SHARE ROW EXCLUSIVE MODE
"""


def keep_senders_out(connection: BaseDatabaseWrapper, seconds: float) -> None:
    """Lock what waits until this transaction ends; raise TimeoutError after the time given."""
    lock(connection, [LOCK], seconds)


# Under the lock above nobody has a row of these in hand.
CLEAR = """
    WITH entry AS (
        DELETE FROM messaging_laneentry WHERE queue_id = %(queue_id)s RETURNING 1
    ),
    lease AS (
        DELETE FROM messaging_lease WHERE queue_id = %(queue_id)s RETURNING 1
    ),
    lane AS (
        DELETE FROM messaging_lane WHERE queue_id = %(queue_id)s
    ),
    ready AS (
        DELETE FROM messaging_delivery WHERE queue_id = %(queue_id)s RETURNING lane_id
    ),
    later AS (
        DELETE FROM messaging_scheduled WHERE queue_id = %(queue_id)s RETURNING lane_id
    )
    SELECT (SELECT count(*) FROM entry) + (SELECT count(*) FROM lease)
        + (SELECT count(*) FROM ready WHERE lane_id IS NULL)
        + (SELECT count(*) FROM later WHERE lane_id IS NULL)
"""


def clear(connection: BaseDatabaseWrapper, queue_id: int) -> int:
    """Delete what waits on a queue or is leased from it, and its lanes; return how many messages.

    Whoever holds one of the leases finds it lost.
    """
    return int(run(connection, CLEAR, {"queue_id": queue_id})[0][0])
