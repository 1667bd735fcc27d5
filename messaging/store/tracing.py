"""Trace: what happened to a message, what caused it, and what it has caused."""

from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run

MOST_ATTEMPTS = 1_000
MOST_ACTS = 100
# How far causes and consequences are followed, and how many messages are shown of them.
MOST_LEVELS = 50
MOST_MESSAGES = 1_000


class Failed(NamedTuple):
    """A failed delivery: "retry", or the reason why the message died of it."""

    at: Any
    queue: str
    attempt: int
    outcome: str
    worker: str
    duration: float
    error: str


FAILED = """
    SELECT attempt.failed_at, coalesce(queue.name, ''), attempt.attempt, attempt.outcome,
        attempt.worker, attempt.duration,
        concat_ws(': ', nullif(attempt.error, ''), nullif(left(attempt.description, 300), ''))
    FROM messaging_attempt AS attempt
    LEFT JOIN messaging_queue AS queue ON queue.id = attempt.queue_id
    WHERE attempt.message_id = %s ORDER BY attempt.id LIMIT %s
"""


def failed(connection: BaseDatabaseWrapper, message_id: int) -> list[Failed]:
    """Return the failed deliveries of a message, the first ones first."""
    return [Failed._make(row) for row in run(connection, FAILED, (message_id, MOST_ATTEMPTS))]


class Act(NamedTuple):
    """What an operator did to a message; before an edit it said these JSON texts."""

    at: Any
    what: str
    by: str
    headers: str
    body: str | None


ACTS = """
    SELECT edited_at, what, edited_by, headers::text, body::text FROM messaging_edit
    WHERE message_id = %s ORDER BY id LIMIT %s
"""


def acts(connection: BaseDatabaseWrapper, message_id: int) -> list[Act]:
    """Return the edits and redrives of a message, the first one first."""
    return [Act._make(row) for row in run(connection, ACTS, (message_id, MOST_ACTS))]


class Link(NamedTuple):
    """A message in the tree of causes; ``parent`` is the message whose handler sent it."""

    id: int
    parent: int | None
    queue: str
    topic: str
    published_at: Any


_NAMED = """
    SELECT found.id, found.causation_id, coalesce(queue.name, ''), coalesce(topic.name, ''),
        found.published_at
    FROM (SELECT * FROM found LIMIT %(most)s) AS found
    LEFT JOIN messaging_queue AS queue ON queue.id = found.queue_id
    LEFT JOIN messaging_topic AS topic ON topic.id = found.topic_id
    ORDER BY found.level, found.id
"""
_LINK = "message.id, message.causation_id, message.queue_id, message.topic_id, message.published_at"
# A cause has a lower id than what it causes, so neither walk can go in a circle; and LIMIT ends it.
CAUSES: Any = f"""
    WITH RECURSIVE found AS (
        SELECT {_LINK}, 1 AS level FROM messaging_message AS message WHERE id = %(message_id)s
        UNION ALL
        SELECT {_LINK}, found.level + 1
        FROM found JOIN messaging_message AS message ON message.id = found.causation_id
        WHERE found.level < %(levels)s
    )
    {_NAMED}
"""  # noqa: S608 - constants above
CONSEQUENCES: Any = f"""
    WITH RECURSIVE found AS (
        SELECT {_LINK}, 1 AS level FROM messaging_message AS message
        WHERE causation_id = %(message_id)s
        UNION ALL
        SELECT {_LINK}, found.level + 1
        FROM found JOIN messaging_message AS message ON message.causation_id = found.id
        WHERE found.level < %(levels)s
    )
    {_NAMED}
"""  # noqa: S608 - constants above


def causes(connection: BaseDatabaseWrapper, message_id: int) -> list[Link]:
    """Return a message's causes that the log still holds, the nearest one first."""
    return _linked(connection, CAUSES, message_id)


def consequences(connection: BaseDatabaseWrapper, message_id: int) -> list[Link]:
    """Return what a message has caused, level by level; one more than shown stands for more."""
    return _linked(connection, CONSEQUENCES, message_id)


def _linked(connection: BaseDatabaseWrapper, sql: Any, message_id: int) -> list[Link]:
    params = {"message_id": message_id, "levels": MOST_LEVELS, "most": MOST_MESSAGES + 1}
    return [Link._make(row) for row in run(connection, sql, params)]
