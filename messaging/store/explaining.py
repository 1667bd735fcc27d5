"""Explain: read the facts that keep a message from being delivered."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run
from .deletion import LIVE_FOR

# Messages before another one are counted up to here.
COUNTED = 10_000


class Origin(NamedTuple):
    """What a message is and where it was sent; of what no longer exists the name is empty."""

    id: int
    queue: str
    topic: str
    topic_id: int | None
    key: str
    published_at: Any
    causation_id: int | None
    correlation_id: str | None
    source: str | None


# A dead letter outlives the log.
ORIGIN = """
    SELECT message.id, coalesce(queue.name, ''), coalesce(topic.name, ''), message.topic_id,
        coalesce(message.ordering_key, message.fairness_key, ''), message.published_at,
        message.causation_id, message.correlation_id, message.source
    FROM (
        (SELECT id, queue_id, topic_id, ordering_key, fairness_key, published_at, causation_id,
            correlation_id, source
         FROM messaging_message WHERE id = %(message_id)s)
        UNION ALL
        (SELECT message_id, CASE WHEN topic_id IS NULL THEN origin_id END, topic_id, ordering_key,
            fairness_key, published_at, causation_id, correlation_id, NULL
         FROM messaging_deadletter WHERE message_id = %(message_id)s LIMIT 1)
    ) AS message
    LEFT JOIN messaging_queue AS queue ON queue.id = message.queue_id
    LEFT JOIN messaging_topic AS topic ON topic.id = message.topic_id
    LIMIT 1
"""


def origin(connection: BaseDatabaseWrapper, message_id: int) -> Origin | None:
    """Return what is known of a message, None when it is unknown."""
    rows = run(connection, ORIGIN, {"message_id": message_id})
    return Origin._make(rows[0]) if rows else None


class QueueFacts(NamedTuple):
    """What there is about a queue that keeps its messages waiting.

    ``permits`` are left of its rate limit, ``key_permits`` of the key's, None where nothing was
    taken yet; ``active`` is the worker that alone consumes it at present.
    """

    id: int
    name: str
    paused_at: Any
    paused_by: str
    pause_reason: str
    rate_limit: float | None
    permits: float | None
    key_rate_limit: float | None
    key_permits: float | None
    concurrency_limit: int | None
    in_flight: int
    single_active_consumer: bool
    active: str | None
    workers: int
    paused_workers: int


# In flight: under leases, and the places that transactions hold by their locks (limits.py).
QUEUES: Any = """
    SELECT queue.id, queue.name, queue.paused_at, queue.paused_by, queue.pause_reason,
        queue.rate_limit,
        (SELECT tokens + queue.rate_limit * extract(epoch FROM statement_timestamp() - filled_at)
         FROM messaging_ratelimit WHERE queue_id = queue.id AND key = '')::float8,
        queue.key_rate_limit,
        (SELECT tokens
            + queue.key_rate_limit * extract(epoch FROM statement_timestamp() - filled_at)
         FROM messaging_ratelimit WHERE queue_id = queue.id AND key = %(key)s::text)::float8,
        queue.concurrency_limit,
        CASE WHEN queue.concurrency_limit IS NULL THEN 0 ELSE
            (SELECT count(*) FROM messaging_lease WHERE queue_id = queue.id)
            + (SELECT count(*) FROM pg_locks
               WHERE locktype = 'advisory' AND granted AND objid::bigint > 0 AND objsubid = 2
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND classid::bigint = hashtext('messaging_queue ' || queue.id) & 4294967295) END,
        queue.single_active_consumer,
        (SELECT worker FROM messaging_activeconsumer
         WHERE queue_id = queue.id AND until > statement_timestamp()),
        (SELECT count(*) FROM messaging_worker WHERE queues ? queue.name AND {is_live}),
        (SELECT count(*) FROM messaging_worker
         WHERE queues ? queue.name AND {is_live} AND state = 'paused')
    FROM messaging_queue AS queue WHERE queue.id = ANY (%(ids)s::bigint[])
""".replace("{is_live}", f"seen_at > statement_timestamp() - interval '{LIVE_FOR}'")


def queues(connection: BaseDatabaseWrapper, ids: Sequence[int], key: str) -> dict[int, QueueFacts]:
    """Return the facts of queues, and of the rate of a key on them, if there is one."""
    rows = run(connection, QUEUES, {"ids": list(ids), "key": key or None})
    return {row[0]: QueueFacts._make(row) for row in rows}


class Turn(NamedTuple):
    """How many messages come before one that is ready, at most ``COUNTED + 1``.

    ``taken_since``: since when a transaction has it in hand, if one has.
    """

    before: int
    is_taken: bool
    taken_since: Any


# A row that somebody has in hand carries the transaction that has it, which holds its own lock for
# as long as it runs: a look, where a lock of the row would keep workers from it.
_TAKEN = """
    LEFT JOIN LATERAL (
        SELECT true AS yes, activity.xact_start AS since
        FROM pg_locks AS held LEFT JOIN pg_stat_activity AS activity ON activity.pid = held.pid
        WHERE held.locktype = 'transactionid' AND held.granted AND held.mode = 'ExclusiveLock'
        AND held.transactionid = {row}.xmax AND held.pid <> pg_backend_pid()
        LIMIT 1
    ) AS taken ON true
"""
TURN: Any = """
    SELECT
        (SELECT count(*) FROM (
            (SELECT FROM messaging_delivery
             WHERE queue_id = ready.queue_id AND priority > ready.priority LIMIT %(bound)s)
            UNION ALL
            (SELECT FROM messaging_delivery
             WHERE queue_id = ready.queue_id AND priority = ready.priority AND id < ready.id
             LIMIT %(bound)s)
        ) AS before),
        coalesce(taken.yes, false), taken.since
    FROM messaging_delivery AS ready {taken}
    WHERE ready.queue_id = %(queue_id)s AND ready.priority = %(priority)s AND ready.id = %(id)s
""".replace("{taken}", _TAKEN.replace("{row}", "ready"))


def turn(connection: BaseDatabaseWrapper, queue_id: int, priority: int, ready_id: int) -> Turn:
    """Return how far a ready message is from its delivery."""
    params = {"queue_id": queue_id, "priority": priority, "id": ready_id, "bound": COUNTED + 1}
    rows = run(connection, TURN, params)
    return Turn._make(rows[0]) if rows else Turn(0, False, None)


class LaneFacts(NamedTuple):
    """What there is about a key that keeps one of its messages waiting.

    ``before`` counts messages of the key in front of it, ``head`` is the first of these, whose
    delivery number ``head_attempt`` is next. ``retry_at``: when the key is tried again.
    ``held_by`` and ``held_until``: of the lease of the message ``held``. ``is_taken``: a worker has
    the key in hand at this moment.
    """

    kind: int
    key: str
    parked_at: Any
    before: int
    head: int | None
    head_attempt: int | None
    retry_at: Any
    held: int | None
    held_by: str | None
    held_until: Any
    is_taken: bool
    taken_since: Any


LANE: Any = """
    SELECT lane.kind, lane.key, lane.parked_at,
        (SELECT count(*) FROM (SELECT FROM messaging_laneentry
            WHERE queue_id = lane.queue_id AND lane_id = lane.id AND id < %(id)s
            ORDER BY id LIMIT %(bound)s) AS before),
        head.message_id, head.attempt,
        (SELECT min(due_at) FROM messaging_scheduled
         WHERE message_id = 0 AND lane_id = lane.id AND due_at > statement_timestamp()),
        lease.message_id, lease.worker, lease.leased_until,
        coalesce(taken.yes, false), taken.since
    FROM messaging_lane AS lane
    LEFT JOIN LATERAL (
        SELECT message_id, attempt FROM messaging_laneentry
        WHERE queue_id = lane.queue_id AND lane_id = lane.id ORDER BY id LIMIT 1
    ) AS head ON true
    LEFT JOIN LATERAL (
        SELECT message_id, worker, leased_until FROM messaging_lease
        WHERE lane_id = lane.id ORDER BY id LIMIT 1
    ) AS lease ON true
    LEFT JOIN LATERAL (
        SELECT xmax FROM messaging_delivery
        WHERE queue_id = lane.queue_id AND lane_id = lane.id LIMIT 1
    ) AS token ON true
    {taken}
    WHERE lane.id = %(lane_id)s
""".replace("{taken}", _TAKEN.replace("{row}", "token"))


def lane(connection: BaseDatabaseWrapper, lane_id: int, entry_id: int) -> LaneFacts | None:
    """Return the facts of a key, as they concern one of its messages."""
    params = {"lane_id": lane_id, "id": entry_id, "bound": COUNTED + 1}
    rows = run(connection, LANE, params)
    return LaneFacts._make(rows[0]) if rows else None


NOW = "SELECT statement_timestamp()"


def now(connection: BaseDatabaseWrapper) -> Any:
    """Return the time by the database's clock."""
    return run(connection, NOW)[0][0]


class Receiver(NamedTuple):
    """A subscription, and whether it takes a topic's messages to its queue now."""

    pattern: str
    queue: str
    matches: bool
    is_active: bool
    queue_disabled: bool
    since: Any
    filter: Any
    filter_scope: str
    takes: bool


# Without a message every filter takes it.
RECEIVERS = """
    SELECT subscription.pattern, queue.name,
        '.' || %(topic)s ~ messaging_pattern_regex(subscription.pattern) AS matches,
        subscription.is_active, queue.disabled_at IS NOT NULL, subscription.created_at,
        subscription.filter, subscription.filter_scope,
        CASE WHEN subscription.filter IS NULL OR %(body)s::jsonb IS NULL
                OR NOT '.' || %(topic)s ~ messaging_pattern_regex(subscription.pattern) THEN true
            ELSE messaging_matches(
                CASE subscription.filter_scope WHEN 'body' THEN %(body)s::jsonb
                    ELSE %(headers)s::jsonb END,
                messaging_compile_filter(subscription.filter, subscription.filter_scope),
                messaging_filter_networks(subscription.filter)) END
    FROM messaging_subscription AS subscription
    JOIN messaging_queue AS queue ON queue.id = subscription.queue_id
    ORDER BY matches DESC, subscription.pattern, queue.name LIMIT %(limit)s
"""


def receivers(
    connection: BaseDatabaseWrapper,
    topic: str,
    limit: int,
    *,
    headers: str | None = None,
    body: str | None = None,
) -> list[Receiver]:
    """Return the subscriptions, those that match a topic first, and whether they take a message."""
    params = {"topic": topic, "limit": limit, "headers": headers, "body": body}
    rows = run(connection, RECEIVERS, params)
    return [Receiver._make(row) for row in rows]


CONTENT = "SELECT headers::text, body::text FROM messaging_message WHERE id = %(message_id)s"


def content(connection: BaseDatabaseWrapper, message_id: int) -> dict[str, str]:
    """Return the headers and the body of a message as JSON text, nothing where the log has none."""
    rows = run(connection, CONTENT, {"message_id": message_id})
    return {"headers": rows[0][0], "body": rows[0][1]} if rows else {}


# One filter a key, each compiled and tested by itself.
FAILING = """
    SELECT part.number::integer - 1
    FROM jsonb_array_elements(%(parts)s::jsonb) WITH ORDINALITY AS part (filter, number)
    WHERE NOT messaging_matches(%(document)s::jsonb,
        messaging_compile_filter(part.filter, 'body'), messaging_filter_networks(part.filter))
    ORDER BY part.number
"""


def failing(connection: BaseDatabaseWrapper, parts: Sequence[Any], document: str) -> list[int]:
    """Return which of several filters do not take a document."""
    params = {"parts": json.dumps(list(parts)), "document": document}
    return [number for (number,) in run(connection, FAILING, params)]
