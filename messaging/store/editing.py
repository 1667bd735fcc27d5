"""Edit a message that waits: keep workers from it, and keep what it said before."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run
from .places import Place

# Whoever claims skips what is locked here, and what a worker has in hand cannot be locked. For a
# message with an ordering key the token is locked and not the message alone: a worker with the
# token would skip the message and take the one behind it.
LOCK: dict[str, Any] = {
    "ready": """
        SELECT priority, id FROM messaging_delivery
        WHERE queue_id = %(queue_id)s AND priority = %(priority)s AND id = %(id)s
        FOR UPDATE SKIP LOCKED
    """,
    "keyed": """
        SELECT NULL, NULL FROM messaging_laneentry
        WHERE queue_id = %(queue_id)s AND lane_id = %(lane_id)s AND id = %(id)s
        FOR UPDATE SKIP LOCKED
    """,
    "scheduled": """
        SELECT NULL, NULL FROM messaging_scheduled WHERE id = %(id)s FOR UPDATE SKIP LOCKED
    """,
    "dead": """
        SELECT NULL, NULL FROM messaging_deadletter WHERE id = %(id)s FOR UPDATE SKIP LOCKED
    """,
}
# Where the one token of a lane may be; of a parked lane, which has none, the lane itself.
TOKEN: Sequence[Any] = (
    """
    SELECT priority, id FROM messaging_delivery
    WHERE queue_id = %(queue_id)s AND lane_id = %(lane_id)s AND message_id = 0
    FOR UPDATE SKIP LOCKED
    """,
    """
    SELECT NULL, NULL FROM messaging_scheduled WHERE message_id = 0 AND lane_id = %(lane_id)s
    FOR UPDATE SKIP LOCKED
    """,
    "SELECT NULL, NULL FROM messaging_lease WHERE lane_id = %(lane_id)s FOR UPDATE SKIP LOCKED",
    """
    SELECT NULL, NULL FROM messaging_lane WHERE id = %(lane_id)s AND parked_at IS NOT NULL
    FOR UPDATE SKIP LOCKED
    """,
)


class Held(NamedTuple):
    """The delivery that claims skip until this transaction ends; None where there is none."""

    priority: int | None
    id: int | None


def lock(connection: BaseDatabaseWrapper, place: Place) -> Held | None:
    """Keep everybody from a message until this transaction ends; None says that somebody has it."""
    params = place._asdict()
    token = _lock_token(connection, params) if place.ordered else Held(None, None)
    if token is None:
        return None
    rows = run(connection, LOCK[place.state], params)
    if not rows:
        return None
    return token if place.ordered else Held._make(rows[0])


def _lock_token(connection: BaseDatabaseWrapper, params: dict[str, Any]) -> Held | None:
    for sql in TOKEN:
        if rows := run(connection, sql, params):
            return Held._make(rows[0])
    return None


# What the log no longer holds is told by the dead letter.
KEEP = """
    INSERT INTO messaging_edit (message_id, headers, body, edited_by)
    SELECT %(message_id)s, headers, body, %(by)s FROM (
        (SELECT headers, body FROM messaging_message WHERE id = %(message_id)s)
        UNION ALL
        (SELECT headers, body FROM messaging_deadletter WHERE message_id = %(message_id)s
         ORDER BY id DESC LIMIT 1)
    ) AS before
    LIMIT 1
"""
CHANGE: Sequence[Any] = (
    """
    UPDATE messaging_message
    SET headers = coalesce(%(headers)s::jsonb, headers), body = coalesce(%(body)s::jsonb, body)
    WHERE id = %(message_id)s
    """,
    """
    UPDATE messaging_deadletter
    SET headers = coalesce(%(headers)s::jsonb, headers), body = coalesce(%(body)s::jsonb, body)
    WHERE message_id = %(message_id)s
    """,
)


def change(
    connection: BaseDatabaseWrapper,
    message_id: int,
    *,
    headers: str | None,
    body: str | None,
    by: str,
) -> None:
    """Give a message other headers or another body, None for as before, and keep what it said."""
    params = {"message_id": message_id, "headers": headers, "body": body, "by": by}
    run(connection, KEEP, params)
    for sql in CHANGE:
        run(connection, sql, params)


# What the log no longer holds is told by the dead letter.
BODIES = """
    SELECT id, body::text FROM messaging_message WHERE id = ANY (%(ids)s::bigint[])
    UNION ALL
    (SELECT DISTINCT ON (message_id) message_id, body::text FROM messaging_deadletter AS dead
     WHERE message_id = ANY (%(ids)s::bigint[]) AND NOT EXISTS (
        SELECT FROM messaging_message AS message WHERE message.id = dead.message_id)
     ORDER BY message_id, id DESC)
"""


def bodies(connection: BaseDatabaseWrapper, message_ids: Sequence[int]) -> dict[int, str | None]:
    """Return the bodies of messages as JSON texts; None: the payload is lost."""
    return dict(run(connection, BODIES, {"ids": list(message_ids)}))


EXISTS = "SELECT 1 FROM messaging_message WHERE id = %s"


def exists(connection: BaseDatabaseWrapper, message_id: int) -> bool:
    """Tell whether the log holds a message."""
    return bool(run(connection, EXISTS, (message_id,)))
