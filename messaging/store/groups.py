"""Choose dead letters in the order of their ids, a bounded number at a time; list their groups."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import Rows, run
from .filters import Filter

LOOKED_AT = 10_000


class Chosen(NamedTuple):
    """The ids of dead letters that are meant, and behind which id to go on; None at the end."""

    ids: list[int]
    next: int | None


# Each in the order of an index, so that a page costs the same wherever it begins.
_LOOKED: dict[str, Any] = {
    "all": """
        SELECT id, message_id FROM messaging_deadletter
        WHERE id > %(after)s AND id <= %(upto)s ORDER BY id LIMIT %(look)s
    """,
    "dead_ids": """
        SELECT id, message_id FROM messaging_deadletter
        WHERE id = ANY (%(dead_ids)s::bigint[]) AND id > %(after)s AND id <= %(upto)s
        ORDER BY id LIMIT %(look)s
    """,
    "fingerprint": """
        SELECT id, message_id FROM messaging_deadletter
        WHERE (fingerprint, id) > (%(fingerprint)s, %(after)s)
        AND (fingerprint, id) <= (%(fingerprint)s, %(upto)s)
        ORDER BY fingerprint, id LIMIT %(look)s
    """,
    "queue": """
        (SELECT id, message_id FROM messaging_deadletter
         WHERE (queue_id, id) > (%(queue)s, %(after)s)
         AND (queue_id, id) <= (%(queue)s, %(upto)s)
         ORDER BY queue_id, id LIMIT %(look)s)
        UNION
        (SELECT id, message_id FROM messaging_deadletter
         WHERE (origin_id, id) > (%(queue)s, %(after)s)
         AND (origin_id, id) <= (%(queue)s, %(upto)s)
         ORDER BY origin_id, id LIMIT %(look)s)
        ORDER BY id LIMIT %(look)s
    """,
}
_PAGE: Any = """
    WITH looked AS MATERIALIZED ({looked}),
    matching AS (
        SELECT looked.id FROM looked JOIN messaging_deadletter AS message ON message.id = looked.id
        WHERE {where}
        AND (%(queue)s::bigint IS NULL OR %(queue)s IN (message.queue_id, message.origin_id))
        AND (%(held)s::bigint IS NULL OR message.queue_id = %(held)s)
        AND (%(origin)s::bigint IS NULL OR message.origin_id = %(origin)s)
        AND (%(fingerprint)s::text IS NULL OR message.fingerprint = %(fingerprint)s)
        AND (%(dead_reason)s::text IS NULL OR message.reason = %(dead_reason)s)
        ORDER BY looked.id LIMIT %(limit)s
    )
    SELECT (SELECT count(*) FROM looked), (SELECT max(id) FROM looked), matching.id
    FROM (SELECT) AS one LEFT JOIN matching ON true ORDER BY matching.id
"""
_ERROR = "concat_ws(': ', nullif(message.error, ''), nullif(message.description, ''))"
CONDITIONS = ("queue", "held", "origin", "fingerprint", "dead_reason", "dead_ids")


def choose(
    connection: BaseDatabaseWrapper,
    wanted: Filter,
    conditions: dict[str, Any],
    *,
    after: int,
    upto: int,
    limit: int,
) -> Chosen:
    """Return the next dead letters that fulfil a filter and the conditions, a page of them."""
    by = next(
        (each for each in ("dead_ids", "fingerprint", "queue") if conditions.get(each)), "all"
    )
    sql = _PAGE.format(looked=_LOOKED[by], where=wanted.where.replace("{error}", _ERROR))
    params = dict.fromkeys(CONDITIONS) | conditions | wanted.params
    params |= {"after": after, "upto": upto, "limit": limit, "look": LOOKED_AT}
    rows = run(connection, sql, params)
    looked, last, _ = rows[0]
    ids = [row[2] for row in rows if row[2] is not None]
    if len(ids) == limit:
        return Chosen(ids, ids[-1])
    return Chosen(ids, last if looked == LOOKED_AT else None)


# One look-up by index for each group, and a bounded count of it, however many dead letters lie.
GROUPS: Any = """
    WITH RECURSIVE found AS (
        (SELECT fingerprint FROM messaging_deadletter ORDER BY fingerprint LIMIT 1)
        UNION ALL
        SELECT (SELECT dead.fingerprint FROM messaging_deadletter AS dead
                WHERE dead.fingerprint > found.fingerprint ORDER BY dead.fingerprint LIMIT 1)
        FROM found WHERE found.fingerprint IS NOT NULL
    )
    SELECT found.fingerprint, counted.count, first.died_at, last.died_at, last.error, last.reason,
        last.description, coalesce(origin.name, ''), last.id
    FROM (SELECT fingerprint FROM found WHERE fingerprint IS NOT NULL LIMIT %(most)s) AS found
    CROSS JOIN LATERAL (
        SELECT * FROM messaging_deadletter AS dead WHERE dead.fingerprint = found.fingerprint
        AND (%(queue)s::bigint IS NULL OR %(queue)s IN (dead.queue_id, dead.origin_id))
        ORDER BY dead.fingerprint, dead.id LIMIT 1) AS first
    CROSS JOIN LATERAL (
        SELECT * FROM messaging_deadletter AS dead WHERE dead.fingerprint = found.fingerprint
        AND (%(queue)s::bigint IS NULL OR %(queue)s IN (dead.queue_id, dead.origin_id))
        ORDER BY dead.fingerprint DESC, dead.id DESC LIMIT 1) AS last
    CROSS JOIN LATERAL (
        SELECT count(*) FROM (SELECT FROM messaging_deadletter AS dead
            WHERE dead.fingerprint = found.fingerprint
            AND (%(queue)s::bigint IS NULL OR %(queue)s IN (dead.queue_id, dead.origin_id))
            LIMIT %(counted)s) AS limited) AS counted
    LEFT JOIN messaging_queue AS origin ON origin.id = last.origin_id
    ORDER BY last.id DESC
"""


def groups(
    connection: BaseDatabaseWrapper, queue_id: int | None, *, most: int, counted: int
) -> Rows:
    """Return the groups of dead letters, that which died last first."""
    return run(connection, GROUPS, {"queue": queue_id, "most": most, "counted": counted})


# Of a message that was redriven: whether it has failed since, waits or is held, or was handled.
BECAME: Any = """
    SELECT CASE
        WHEN EXISTS (SELECT FROM messaging_attempt WHERE message_id = %(message_id)s
                AND queue_id = %(queue_id)s AND id > %(attempt)s)
            OR EXISTS (SELECT FROM messaging_deadletter
                WHERE message_id = %(message_id)s AND origin_id = %(queue_id)s AND id > %(dead)s)
            THEN 'failed'
        WHEN EXISTS (SELECT FROM messaging_scheduled WHERE message_id = %(message_id)s
                AND queue_id = %(queue_id)s)
            OR EXISTS (SELECT FROM messaging_lease WHERE queue_id = %(queue_id)s
                AND message_id = %(message_id)s)
            OR EXISTS (SELECT FROM messaging_delivery WHERE queue_id = %(queue_id)s
                AND message_id = %(message_id)s)
            OR EXISTS (SELECT FROM messaging_laneentry WHERE queue_id = %(queue_id)s
                AND message_id = %(message_id)s)
            OR EXISTS (SELECT FROM messaging_arrival WHERE queue_id = %(queue_id)s
                AND message_id = %(message_id)s)
            THEN 'waits'
        ELSE 'handled' END
"""


def became(connection: BaseDatabaseWrapper, canary: dict[str, Any]) -> str:
    """Tell what became of a message that was redriven alone: failed, waits or handled."""
    return str(run(connection, BECAME, canary)[0][0])


# What is compared later: the failures that there are before it is delivered again.
CANARY: Any = """
    SELECT dead.message_id, coalesce(%(to)s::bigint, dead.origin_id), dead.id,
        coalesce((SELECT max(id) FROM messaging_attempt AS attempt
                  WHERE attempt.message_id = dead.message_id), 0)
    FROM messaging_deadletter AS dead WHERE dead.id = %(id)s
"""


def canary_of(connection: BaseDatabaseWrapper, dead_id: int, to: int | None) -> dict[str, Any]:
    """Return what :func:`became` needs of a dead letter that is about to be redriven."""
    rows = run(connection, CANARY, {"id": dead_id, "to": to})
    return dict(zip(("message_id", "queue_id", "dead", "attempt"), rows[0], strict=True))


MESSAGES = "SELECT id, message_id FROM messaging_deadletter WHERE id = ANY (%(ids)s::bigint[])"


def messages_of(connection: BaseDatabaseWrapper, dead_ids: Sequence[int]) -> dict[int, int]:
    """Return dead letters with their messages."""
    return dict(run(connection, MESSAGES, {"ids": list(dead_ids)}))
