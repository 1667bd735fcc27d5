"""Hold deliveries under a lease, and end a lease by its token.

Whoever has its token ends it as long as its time is not over, and anybody does afterwards:
never by both, because whoever deletes the row decides what becomes of the delivery.
"""

from collections.abc import Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from ..messages import Delivered
from .connection import run

COLUMNS = """
    lease.id, lease.queue_id, lease.priority, lease.message_id, lease.attempt,
    lease.subscription_id, lease.expires_at, lease.lane_id, lease.entry_id, lease.token
"""

# The sequence gives a greater token to each later lease of a message. The rows come back in order.
HOLD = """
    WITH lease AS (
        INSERT INTO messaging_lease (id, queue_id, priority, message_id, attempt, subscription_id,
            expires_at, lane_id, entry_id, token, worker, leased_until)
        SELECT taken.*, nextval('messaging_lease_token_seq'), %s,
            statement_timestamp() + %s * interval '1 second'
        FROM unnest(%s::bigint[], %s::bigint[], %s::smallint[], %s::bigint[], %s::smallint[],
            %s::bigint[], %s::timestamptz[], %s::bigint[], %s::bigint[]) AS taken
        RETURNING id, token
    )
    SELECT id, token FROM lease
"""


def hold(
    connection: BaseDatabaseWrapper, delivered: Sequence[Delivered], seconds: float, worker: str
) -> list[Delivered]:
    """Hold what this transaction has claimed; return the same deliveries with their tokens."""
    columns = [list(column) for column in zip(*(d[:9] for d in delivered), strict=True)]
    rows = run(connection, HOLD, (worker, float(seconds), *columns))
    tokens: dict[int, int] = dict(rows)
    return [d._replace(token=tokens[d.id]) for d in delivered]


# In the order of ids, so that two sessions which end or extend several leases cannot block each
# other. The condition stands in the DELETE too: it is checked again on a row that was waited for.
END: Any = """
    WITH held AS MATERIALIZED (
        SELECT lease.id, lease.token FROM messaging_lease AS lease
        JOIN unnest(%s::bigint[], %s::bigint[]) AS given (id, token) USING (id, token)
        ORDER BY lease.id FOR UPDATE OF lease
    )
    DELETE FROM messaging_lease AS lease USING held
    WHERE lease.id = held.id AND lease.token = held.token
    AND lease.leased_until > statement_timestamp()
    RETURNING {columns}
""".replace("{columns}", COLUMNS)


def end(connection: BaseDatabaseWrapper, held: Sequence[Delivered]) -> list[Delivered]:
    """End leases in this transaction; return those that were still held."""
    rows = run(connection, END, ([d.id for d in held], [d.token for d in held]))
    return [Delivered._make(row) for row in rows]


EXTEND = """
    WITH held AS MATERIALIZED (
        SELECT lease.id, lease.token, given.seconds FROM messaging_lease AS lease
        JOIN unnest(%s::bigint[], %s::bigint[], %s::float8[]) AS given (id, token, seconds)
            USING (id, token)
        ORDER BY lease.id FOR UPDATE OF lease
    )
    UPDATE messaging_lease AS lease
    SET leased_until = statement_timestamp() + held.seconds * interval '1 second' FROM held
    WHERE lease.id = held.id AND lease.token = held.token
    AND lease.leased_until > statement_timestamp()
    RETURNING lease.token
"""
# A heartbeat never waits: a lease that is locked is just being settled. Nor does it shorten what
# the handler itself has asked for.
BEAT = """
    WITH held AS MATERIALIZED (
        SELECT lease.id, lease.token, given.seconds FROM messaging_lease AS lease
        JOIN unnest(%s::bigint[], %s::bigint[], %s::float8[]) AS given (id, token, seconds)
            USING (id, token)
        FOR UPDATE OF lease SKIP LOCKED
    )
    UPDATE messaging_lease AS lease
    SET leased_until = greatest(
        lease.leased_until, statement_timestamp() + held.seconds * interval '1 second')
    FROM held
    WHERE lease.id = held.id AND lease.token = held.token
    AND lease.leased_until > statement_timestamp()
    RETURNING lease.token
"""


def extend(connection: BaseDatabaseWrapper, held: Sequence[tuple[Delivered, float]]) -> set[int]:
    """Let each lease last so many seconds from now; return the tokens of those still held."""
    return {token for (token,) in run(connection, EXTEND, _times(held))}


def beat(connection: BaseDatabaseWrapper, held: Sequence[tuple[Delivered, float]]) -> set[int]:
    """Keep leases whose handlers are at work; return the tokens of those that were kept."""
    return {token for (token,) in run(connection, BEAT, _times(held))}


def _times(held: Sequence[tuple[Delivered, float]]) -> tuple[list[Any], ...]:
    return (
        [delivered.id for delivered, _ in held],
        [delivered.token for delivered, _ in held],
        [float(seconds) for _, seconds in held],
    )


# By id and not by ctid: a row that was extended in between has another ctid, and is not due.
TAKE_EXPIRED: Any = """
    DELETE FROM messaging_lease AS lease
    WHERE id = ANY (ARRAY(
        SELECT id FROM messaging_lease
        WHERE leased_until <= statement_timestamp()
        ORDER BY leased_until LIMIT %s
        FOR UPDATE SKIP LOCKED
    ))
    AND lease.leased_until <= statement_timestamp()
    RETURNING {columns}, lease.worker
""".replace("{columns}", COLUMNS)


def take_expired(connection: BaseDatabaseWrapper, limit: int) -> list[tuple[Delivered, str]]:
    """End leases whose time is over; return the deliveries, and who held them."""
    return [(Delivered._make(row[:10]), row[10]) for row in run(connection, TAKE_EXPIRED, (limit,))]


HAND_OVER = """
    UPDATE messaging_lease SET worker = %s WHERE id = %s AND token = %s
"""


def pass_to(connection: BaseDatabaseWrapper, delivered: Delivered, worker: str) -> None:
    """Write a lease to the account of another worker, or of another state of one."""
    run(connection, HAND_OVER, (worker, delivered.id, delivered.token))


# At a death or an orderly end only: it looks at every lease there is.
TAKE_FROM: Any = """
    DELETE FROM messaging_lease AS lease
    WHERE id = ANY (ARRAY(
        SELECT id FROM messaging_lease WHERE worker = ANY (%s::text[]) ORDER BY id
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING {columns}, lease.worker
""".replace("{columns}", COLUMNS)


def take_from(
    connection: BaseDatabaseWrapper, workers: Sequence[str]
) -> list[tuple[Delivered, str]]:
    """End the leases of workers that will not; return the deliveries, and who held them."""
    rows = run(connection, TAKE_FROM, (list(workers),))
    return [(Delivered._make(row[:10]), row[10]) for row in rows]


TAKE_LOST: Any = """
    DELETE FROM messaging_lease AS lease
    WHERE id = ANY (ARRAY(
        SELECT id FROM messaging_lease WHERE id = %(id)s AND token = %(token)s
        FOR UPDATE SKIP LOCKED
    ))
    RETURNING {columns}
""".replace("{columns}", COLUMNS)
EXISTS = "SELECT 1 FROM messaging_lease WHERE id = %(id)s AND token = %(token)s"


def take_lost(
    connection: BaseDatabaseWrapper, delivered: Delivered
) -> tuple[Delivered | None, bool]:
    """End one lease by its token, whatever its time; also say whether it exists but is locked."""
    params = {"id": delivered.id, "token": delivered.token}
    if rows := run(connection, TAKE_LOST, params):
        return Delivered._make(rows[0]), False
    return None, bool(run(connection, EXISTS, params))


HELD = """
    SELECT 1 FROM messaging_lease
    WHERE id = %s AND token = %s AND leased_until > statement_timestamp()
"""


def is_held(connection: BaseDatabaseWrapper, delivered: Delivered) -> bool:
    """Tell whether a lease lasts, as far as this session can see."""
    return bool(run(connection, HELD, (delivered.id, delivered.token)))


HELD_BY_OTHERS = """
    SELECT EXISTS (SELECT FROM messaging_lease WHERE queue_id = %s AND worker <> %s)
"""


def held_by_others(connection: BaseDatabaseWrapper, queue_id: int, worker: str) -> bool:
    """Tell whether another worker holds messages of a queue."""
    return bool(run(connection, HELD_BY_OTHERS, (queue_id, worker))[0][0])
