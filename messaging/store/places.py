"""Places: find everywhere that a message waits, is held, or lies dead."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run


class Place(NamedTuple):
    """Where a message waits: "ready", "keyed", "scheduled", "leased" or "dead".

    ``at``: when it is due, until when it is held, or when it died; ``by``: who holds it, or why it
    died. ``ordered``: in the lane of an ordering key.
    """

    state: str
    queue_id: int
    priority: int
    id: int
    attempt: int
    expires_at: Any
    lane_id: int | None
    ordered: bool
    at: Any
    by: str


# There is no index by message where most wait, and all of that is looked at: the caller limits the
# time. The tables are narrow, and one operator's question is worth no entry for every message.
FIND = """
    SELECT 'ready', queue_id, priority, id, attempt, expires_at, NULL::bigint, false,
        NULL::timestamptz, ''
    FROM messaging_delivery WHERE message_id = %(message_id)s AND lane_id IS NULL
    UNION ALL
    SELECT 'keyed', entry.queue_id, entry.priority, entry.id, entry.attempt, entry.expires_at,
        entry.lane_id, coalesce(lane.kind = 0, true), NULL, ''
    FROM messaging_laneentry AS entry LEFT JOIN messaging_lane AS lane ON lane.id = entry.lane_id
    WHERE entry.message_id = %(message_id)s
    UNION ALL
    SELECT 'scheduled', queue_id, priority, id, attempt, expires_at, NULL, false, due_at, ''
    FROM messaging_scheduled WHERE message_id = %(message_id)s AND lane_id IS NULL
    UNION ALL
    SELECT 'leased', queue_id, priority, id, attempt, expires_at, lane_id, false, leased_until,
        worker
    FROM messaging_lease WHERE message_id = %(message_id)s
    UNION ALL
    SELECT 'dead', origin_id, priority, id, attempts, NULL, NULL, false, died_at, reason
    FROM messaging_deadletter WHERE message_id = %(message_id)s
"""

# The same for many messages, with which of them it is first.
FIND_MANY: Any = FIND.replace("SELECT '", "SELECT message_id, '").replace(
    "= %(message_id)s", "= ANY (%(message_ids)s::bigint[])"
)


def find(connection: BaseDatabaseWrapper, message_id: int) -> list[Place]:
    """Return every place where a message waits or is held, and its dead letters."""
    rows = run(connection, FIND, {"message_id": message_id})
    return [Place._make(row) for row in rows]


def find_many(
    connection: BaseDatabaseWrapper, message_ids: Sequence[int]
) -> Mapping[int, list[Place]]:
    """Return the places of each message that has any."""
    found: defaultdict[int, list[Place]] = defaultdict(list)
    for message_id, *place in run(connection, FIND_MANY, {"message_ids": list(message_ids)}):
        found[message_id].append(Place._make(place))
    return found
