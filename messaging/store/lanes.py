"""Lanes: take what waits behind a token, and decide what becomes of the token.

Publishers lock a lane only while they commit (migration 0004). Here nobody waits for that lock: a
token too many is harmless, since whoever claims it finds nothing and comes back.
"""

from collections.abc import Collection, Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from ..messages import Delivered
from .connection import Rows, run
from .deliveries import PAYLOAD, Claimed, as_claimed

# How long a token waits that found nothing while others are at work on its lane, seconds.
PATIENCE = 0.1
FAIR = 1
# What the attempt of a token says: to take what is behind it, or to set its lane aside first.
GO, PARK = 1, 0

# SKIP LOCKED: the tokens of a fairness key take beside each other. Of an ordering key nothing is
# taken from behind an entry that somebody else has locked, and may leave where it is: it is taken
# while what could be locked is, place by place, what is there. A question for what lies before an
# entry would be a scan of the whole table: where one lane holds most of it, the planner expects to
# find something at once. OFFSET 0 has the first ids read once for each lane and not for each entry.
# A token's id and not the entry's comes first, because it is what a worker's death has to be looked
# up by.
TAKE: Any = """
    WITH next AS MATERIALIZED (
        SELECT entry.ctid AS row, first.kind, entry.id,
            first.ids[row_number() OVER (PARTITION BY lane.id ORDER BY entry.id)] AS due
        FROM unnest(%(lane_ids)s::bigint[]) AS lane (id),
            LATERAL (
                SELECT (SELECT kind FROM messaging_lane WHERE id = lane.id) AS kind, ARRAY(
                    SELECT id FROM messaging_laneentry
                    WHERE queue_id = %(queue_id)s AND lane_id = lane.id
                    ORDER BY id LIMIT %(each)s
                ) AS ids
                OFFSET 0
            ) AS first,
            LATERAL (
                SELECT ctid, id FROM messaging_laneentry
                WHERE queue_id = %(queue_id)s AND lane_id = lane.id
                ORDER BY id LIMIT %(each)s
                FOR UPDATE SKIP LOCKED
            ) AS entry
    ),
    taken AS (
        DELETE FROM messaging_laneentry
        WHERE ctid = ANY (ARRAY(
            SELECT next.row FROM next WHERE next.kind = %(fair)s OR next.id = next.due
        ))
        RETURNING id, queue_id, lane_id, priority, message_id, attempt, subscription_id, expires_at
    )
    SELECT token.id, taken.queue_id, taken.priority, taken.message_id, taken.attempt,
        taken.subscription_id, taken.expires_at, taken.lane_id, taken.id, NULL::bigint,
        {payload}
    JOIN unnest(%(token_ids)s::bigint[], %(lane_ids)s::bigint[]) AS token (id, lane_id)
        ON token.lane_id = taken.lane_id
    ORDER BY token.id, taken.id
""".replace("{payload}", PAYLOAD)


def take(
    connection: BaseDatabaseWrapper, queue_id: int, tokens: Sequence[Claimed], each: int
) -> list[Claimed]:
    """Take up to ``each`` entries of the lanes of claimed tokens, lane by lane and in order."""
    params = {
        "queue_id": queue_id,
        "token_ids": [token.id for token in tokens],
        "lane_ids": [token.lane_id for token in tokens],
        "each": each,
        "fair": FAIR,
    }
    return list(map(as_claimed, run(connection, TAKE, params)))


TAKE_ONE = """
    DELETE FROM messaging_laneentry
    WHERE queue_id = %(queue_id)s AND lane_id = %(lane_id)s AND id = %(id)s
    RETURNING priority, message_id, attempt, subscription_id, expires_at
"""


def take_one(connection: BaseDatabaseWrapper, token: Delivered, entry_id: int) -> Delivered | None:
    """Take one entry of the lane whose token was taken, or None when it is gone."""
    params = {"queue_id": token.queue_id, "lane_id": token.lane_id, "id": entry_id}
    for priority, message_id, attempt, subscription_id, expires_at in run(
        connection, TAKE_ONE, params
    ):
        return token._replace(
            priority=priority,
            message_id=message_id,
            attempt=attempt,
            subscription_id=subscription_id,
            expires_at=expires_at,
            entry_id=entry_id,
        )
    return None


# The same ids as before: an entry keeps its place.
PUT_BACK = """
    INSERT INTO messaging_laneentry (id, queue_id, lane_id, priority, message_id, attempt,
        subscription_id, expires_at)
    SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::smallint[], %s::bigint[],
        %s::smallint[], %s::bigint[], %s::timestamptz[])
    ON CONFLICT DO NOTHING
"""


def put_back(
    connection: BaseDatabaseWrapper, delivered: Sequence[Delivered], attempts: Sequence[int]
) -> None:
    """Insert entries again at their places, each as the attempt given."""
    params = (
        [d.entry_id for d in delivered],
        [d.queue_id for d in delivered],
        [d.lane_id for d in delivered],
        [d.priority for d in delivered],
        [d.message_id for d in delivered],
        list(attempts),
        [d.subscription_id for d in delivered],
        [d.expires_at for d in delivered],
    )
    run(connection, PUT_BACK, params)


KINDS = "SELECT id, kind FROM messaging_lane WHERE id = ANY (%s::bigint[])"


def fair_ones(connection: BaseDatabaseWrapper, lane_ids: Collection[int]) -> set[int]:
    """Return which of the lanes are those of fairness keys, whose order means nothing."""
    return {lane for lane, kind in run(connection, KINDS, (list(lane_ids),)) if kind == FAIR}


# Before the locks below: the trigger waits for the locks of publishers, in order, and whoever
# holds one of those below must not wait any more.
JOIN_NOW = "SET CONSTRAINTS messaging_join_lanes IMMEDIATE"
JOIN_AT_COMMIT = "SET CONSTRAINTS messaging_join_lanes DEFERRED"


def join_now(connection: BaseDatabaseWrapper) -> None:
    """Give what this transaction has sent with a key its place already."""
    run(connection, JOIN_NOW)
    run(connection, JOIN_AT_COMMIT)


LOCK = """
    SELECT id FROM messaging_lane WHERE id = ANY (%s::bigint[]) ORDER BY id
    FOR UPDATE SKIP LOCKED
"""
# A statement of its own after the lock: it has to see what was committed until the lock was
# granted. A lane that a publisher holds gets its token back though nothing is visible: what comes
# would be without one.
GO_ON = """
    WITH lane AS MATERIALIZED (
        SELECT given.id, given.id = ANY (%(locked)s::bigint[]) AS is_locked, given.idle,
            (SELECT entry.priority FROM messaging_laneentry AS entry
             WHERE entry.queue_id = %(queue_id)s AND entry.lane_id = given.id
             ORDER BY entry.id LIMIT 1) AS head
        FROM unnest(%(lane_ids)s::bigint[], %(idle)s::bool[]) AS given (id, idle)
    ),
    ended AS (
        DELETE FROM messaging_lane AS known USING lane
        WHERE known.id = lane.id AND lane.is_locked AND lane.head IS NULL AND known.tokens <= 1
    ),
    fewer AS (
        UPDATE messaging_lane AS known SET tokens = known.tokens - 1 FROM lane
        WHERE known.id = lane.id AND lane.is_locked AND lane.head IS NULL AND known.tokens > 1
    ),
    later AS (
        INSERT INTO messaging_scheduled
            (queue_id, priority, message_id, attempt, lane_id, due_at, joins_lane)
        SELECT %(queue_id)s, coalesce(lane.head, 0), 0, 1, lane.id,
            statement_timestamp() + %(patience)s * interval '1 second', false
        FROM lane WHERE CASE WHEN lane.head IS NULL THEN NOT lane.is_locked ELSE lane.idle END
    ),
    ready AS (
        INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt, lane_id)
        SELECT %(queue_id)s, lane.head, 0, 1, lane.id FROM lane
        WHERE lane.head IS NOT NULL AND NOT lane.idle
        RETURNING priority, id
    )
    SELECT priority, min(id) FROM ready GROUP BY priority
"""


def pass_on(
    connection: BaseDatabaseWrapper, queue_id: int, lanes: Sequence[tuple[int, bool]]
) -> Rows:
    """Put the tokens of (lane, idle) at the tail of their queue, or end lanes that are empty.

    ``idle`` lanes had nothing to take; their tokens wait a little. Returns (priority, first id) of
    what is ready again.
    """
    lane_ids = [lane_id for lane_id, _ in lanes]
    locked = [lane_id for (lane_id,) in run(connection, LOCK, (lane_ids,))]
    params = {
        "queue_id": queue_id,
        "lane_ids": lane_ids,
        "idle": [idle for _, idle in lanes],
        "locked": locked,
        "patience": PATIENCE,
    }
    return run(connection, GO_ON, params)


GIVE_BACK = """
    INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt, lane_id)
    SELECT %(queue_id)s, coalesce(
        (SELECT entry.priority FROM messaging_laneentry AS entry
         WHERE entry.queue_id = %(queue_id)s AND entry.lane_id = lane.id
         ORDER BY entry.id LIMIT 1), 0), 0, %(mark)s, lane.id
    FROM unnest(%(lane_ids)s::bigint[]) AS lane (id)
    RETURNING priority, id
"""


def give_back(
    connection: BaseDatabaseWrapper, queue_id: int, given: Sequence[tuple[int, bool]]
) -> Rows:
    """Put tokens at the tail of their queue without a look at what is behind them.

    Takes no lock: for a transaction that goes on, and may have to wait for others. Whoever claims
    a token with nothing behind it ends the lane.
    """
    params = {"queue_id": queue_id, "lane_ids": [lane_id for lane_id, _ in given], "mark": GO}
    return run(connection, GIVE_BACK, params)


def give_back_to_park(
    connection: BaseDatabaseWrapper, queue_id: int, lane_ids: Sequence[int]
) -> Rows:
    """Put tokens at the tail of their queue, marked: whoever claims one parks its lane."""
    params = {"queue_id": queue_id, "lane_ids": list(lane_ids), "mark": PARK}
    return run(connection, GIVE_BACK, params)


HOLD = """
    INSERT INTO messaging_scheduled
        (queue_id, priority, message_id, attempt, lane_id, due_at, joins_lane)
    SELECT %(queue_id)s, priority, 0, %(mark)s, lane_id,
        statement_timestamp() + after * interval '1 second', false
    FROM unnest(%(lane_ids)s::bigint[], %(priorities)s::smallint[], %(after)s::float8[])
        AS held (lane_id, priority, after)
"""


def hold(
    connection: BaseDatabaseWrapper,
    queue_id: int,
    lanes: Sequence[tuple[int, int, float]],
    mark: int = GO,
) -> None:
    """Have the tokens of (lane, priority, seconds) wait, and all that is behind them."""
    params = {
        "queue_id": queue_id,
        "mark": mark,
        "lane_ids": [lane_id for lane_id, _, _ in lanes],
        "priorities": [priority for _, priority, _ in lanes],
        "after": [float(after) for _, _, after in lanes],
    }
    run(connection, HOLD, params)


SET_ASIDE = """
    UPDATE messaging_lane SET parked_at = statement_timestamp(), tokens = 0
    WHERE id = ANY (%s::bigint[])
"""


def park(connection: BaseDatabaseWrapper, queue_id: int, lanes: Sequence[tuple[int, int]]) -> None:
    """Set (lane, priority of its token) aside, without a token, until somebody releases them.

    A lane that a publisher holds is not waited for: the publisher may be waiting for what this
    transaction holds. Its token is marked and waits a little, and whoever claims it tries again.
    """
    locked = {lane_id for (lane_id,) in run(connection, LOCK, ([lane for lane, _ in lanes],))}
    if locked:
        run(connection, SET_ASIDE, (list(locked),))
    if left := [(*each, PATIENCE) for each in lanes if each[0] not in locked]:
        hold(connection, queue_id, left, PARK)
