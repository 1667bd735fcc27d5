"""Read what operators want to know about topics, each bounded however much was published."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run
from .depths import COUNT_LIMIT

# How far back the rate looks, seconds.
RECENT = 60


class TopicRow(NamedTuple):
    """A topic; ``recent`` counts what was published in the last minute, ``COUNT_LIMIT`` + 1: more.

    ``schema_version`` None: any body. ``last_id`` and ``last_at`` None: the log holds nothing.
    """

    name: str
    description: str
    subscriptions: int
    retention: int
    schema_version: int | None
    recent: int
    last_id: int | None
    last_at: Any


# The newest of a topic are found by its index in the log, and one of them by its primary key: by
# LIMIT, where the planner might else join the whole log. Of a topic that was quiet in the last
# minute only one is read.
TOPICS: Any = f"""
    SELECT topic.name, topic.description,
        (SELECT count(*) FROM messaging_binding AS binding WHERE binding.topic_id = topic.id),
        topic.retention, schema.version,
        CASE WHEN last.published_at >= horizon.at THEN (
            SELECT count(*) FROM (
                SELECT published_at FROM messaging_message AS log
                WHERE log.topic_id = topic.id
                ORDER BY log.transaction DESC, log.id DESC LIMIT %(limit)s
            ) AS newest WHERE newest.published_at >= horizon.at
        ) ELSE 0 END,
        last.id, last.published_at
    FROM (SELECT statement_timestamp() - interval '{RECENT} seconds' AS at) AS horizon,
        messaging_topic AS topic
    LEFT JOIN messaging_schema AS schema ON schema.id = topic.schema_id
    LEFT JOIN LATERAL (
        SELECT log.id, log.published_at FROM messaging_message AS log
        WHERE log.topic_id = topic.id
        ORDER BY log.transaction DESC, log.id DESC LIMIT 1
    ) AS last ON true
    WHERE %(names)s::text[] IS NULL OR topic.name = ANY (%(names)s::text[])
    ORDER BY topic.name
"""  # noqa: S608 - constants above


def topics(connection: BaseDatabaseWrapper, names: Sequence[str] | None) -> list[TopicRow]:
    """Return topics by their names, or all."""
    params = {"names": None if names is None else list(names), "limit": COUNT_LIMIT + 1}
    return [TopicRow._make(row) for row in run(connection, TOPICS, params)]
