"""Store messages with their deliveries, in one statement of the caller's transaction."""

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import QueueDisabled
from . import copying, identities, room, validating
from .conditions import condition
from .connection import Statement, run, run_statement
from .outgoing import COPY_FROM, NEEDS_BLOCK, Outgoing, Published, Stored, Told
from .statements import PUBLISH, Obstacle, values_of

__all__ = [
    "NEEDS_BLOCK",
    "Outgoing",
    "Published",
    "Stored",
    "known_names",
    "publish",
    "publish_in_block",
]


# One message, ready at once, for a queue without limits: what most calls are. The same as the
# general statement for a single body, without the arrays that cost as much again as the inserts.
SEND_ONE = Statement(
    """
    WITH stored AS (
        INSERT INTO messaging_message (queue_id, headers, body, correlation_id, causation_id,
            source)
        SELECT id, $2::jsonb, $3::jsonb, $5, $6, $7
        FROM messaging_queue
        WHERE name = $1 AND disabled_at IS NULL AND max_length IS NULL AND message_ttl IS NULL
        AND NOT content_based_deduplication
        RETURNING id, queue_id
    )
    INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt)
    SELECT queue_id, $4, id, 1 FROM stored
    RETURNING message_id, queue_id, id
    """,
    parameters=7,
)
_PUBLISH_ONE: Any = """
    WITH stored AS (
        INSERT INTO messaging_message (topic_id, headers, body, correlation_id, causation_id,
            source)
        SELECT id, $2::jsonb, $3::jsonb, $5, $6, $7
        FROM messaging_topic AS topic
        WHERE name = $1 AND schema_id IS NULL AND NOT content_based_deduplication
        AND NOT EXISTS (
            SELECT FROM messaging_binding AS binding
            JOIN messaging_queue AS queue ON queue.id = binding.queue_id
            WHERE binding.topic_id = topic.id AND queue.max_length IS NOT NULL)
        RETURNING id, topic_id
    ),
    placed AS (
        INSERT INTO messaging_delivery
            (queue_id, priority, message_id, attempt, subscription_id, expires_at)
        SELECT binding.queue_id, $4, stored.id, 1, binding.subscription_id,
            statement_timestamp() + queue.message_ttl * interval '1 second'
        FROM stored JOIN messaging_binding AS binding ON binding.topic_id = stored.topic_id
        JOIN messaging_queue AS queue ON queue.id = binding.queue_id
        WHERE queue.disabled_at IS NULL AND {taken}
        ORDER BY binding.subscription_id
        RETURNING queue_id, id
    )
    SELECT stored.id, placed.queue_id, placed.id FROM stored LEFT JOIN placed ON true
"""
PUBLISH_ONE = Statement(
    _PUBLISH_ONE.format(taken=condition("$2::jsonb", "$3::jsonb")), parameters=7
)


def publish(connection: BaseDatabaseWrapper, outgoing: Outgoing) -> Published:
    """Store the messages and their deliveries; return None when the name is unknown.

    Nothing is stored when the answer is that a block is needed.
    """
    if outgoing.is_topic:
        outgoing = validating.recalled(connection, outgoing)
    is_plain = outgoing.is_plain and outgoing.schema_id is None
    if is_plain and (stored := _publish_one(connection, outgoing)):
        return stored
    if _takes_steps(outgoing):
        return NEEDS_BLOCK
    told = _run(connection, outgoing, in_block=False)
    match told.obstacle:
        case Obstacle.LIMITED:
            return NEEDS_BLOCK
        case Obstacle.UNIDENTIFIED:
            return publish(connection, identities.by_content(outgoing))
        case Obstacle.UNVALIDATED:
            return publish(connection, validating.validated(connection, outgoing))
    return _stored(connection, outgoing, told, publish)


def publish_in_block(connection: BaseDatabaseWrapper, outgoing: Outgoing) -> Published:
    """Store the messages inside an ``atomic()`` block, which has to be rolled back on an error."""
    if outgoing.is_topic:
        outgoing = validating.recalled(connection, outgoing)
    if identities.are_two(outgoing):
        return identities.publish_once(connection, outgoing, publish_in_block)
    if _is_copied(outgoing):
        told = copying.publish(connection, outgoing)
    else:
        told = _run(connection, outgoing, in_block=True)
    if told.obstacle == Obstacle.UNIDENTIFIED:
        return publish_in_block(connection, identities.by_content(outgoing))
    if told.obstacle == Obstacle.UNVALIDATED:
        return publish_in_block(connection, validating.validated(connection, outgoing))
    if told.is_limited and told.placed:
        room.take(connection, told.placed)
    return _stored(connection, outgoing, told, publish_in_block)


def _publish_one(connection: BaseDatabaseWrapper, outgoing: Outgoing) -> Stored | None:
    """Store one plain message; None says that only the general statement can tell."""
    causation_id = outgoing.causation_id
    params = [
        outgoing.name,
        outgoing.headers,
        outgoing.bodies[0],
        str(outgoing.priority),
        outgoing.correlation_id,
        None if causation_id is None else str(causation_id),
        outgoing.source,
    ]
    rows = run_statement(connection, PUBLISH_ONE if outgoing.is_topic else SEND_ONE, params)
    if not rows:
        return None
    placed = [(queue_id, delivery_id, 1) for _, queue_id, delivery_id in rows if delivery_id]
    return Stored([rows[0][0]], placed)


def _takes_steps(outgoing: Outgoing) -> bool:
    identified = outgoing.deduplication_ids is not None
    several = len(outgoing.bodies) > 1
    return _is_copied(outgoing) or (identified and (several or outgoing.message_id is not None))


def _is_copied(outgoing: Outgoing) -> bool:
    return len(outgoing.bodies) >= COPY_FROM and outgoing.deduplication_ids is None


def _run(connection: BaseDatabaseWrapper, outgoing: Outgoing, *, in_block: bool) -> Told:
    identity = identities.identity_of(outgoing)
    params = values_of(outgoing) | {"bodies": outgoing.bodies, "in_block": in_block}
    if identity:
        params["keys"], params["digests"] = identities.keys_of(outgoing)
    sql = PUBLISH[outgoing.is_topic, outgoing.is_later, outgoing.has_key, identity]
    return Told._make(run(connection, sql, params)[0])


def _stored(
    connection: BaseDatabaseWrapper, outgoing: Outgoing, told: Told, again: identities.Publish
) -> Published:
    if told.target is None:
        return None
    if told.obstacle == Obstacle.DISABLED:
        raise QueueDisabled(outgoing.name)
    placed = [(queue_id, first, count) for queue_id, first, count in told.placed or ()]
    if identities.identity_of(outgoing):
        return identities.complete(connection, outgoing, told, placed, again)
    return Stored(told.ids, placed)


KNOWN: dict[bool, Any] = {
    False: "SELECT name FROM messaging_queue ORDER BY name LIMIT 1000",
    True: "SELECT name FROM messaging_topic ORDER BY name LIMIT 1000",
}


def known_names(connection: BaseDatabaseWrapper, is_topic: bool) -> list[str]:
    """Return the names of queues or topics, for the suggestion in an error."""
    return [name for (name,) in run(connection, KNOWN[is_topic])]
