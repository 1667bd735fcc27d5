"""Copy many messages into the log, then place their deliveries."""

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run
from .outgoing import Outgoing, Told
from .statements import COPY, DRAW, PLACE_COPIED, values_of


def publish(connection: BaseDatabaseWrapper, outgoing: Outgoing) -> Told:
    """Store the messages in three steps of one transaction: draw the ids, copy, place."""
    values = values_of(outgoing)
    draw = values | {"count": len(outgoing.bodies), "in_block": True}
    rows = run(connection, DRAW[outgoing.is_topic], draw)
    if not rows:
        return Told()
    target, obstacle, is_limited, ids = rows[0]
    if obstacle:
        return Told(target, obstacle)
    row = (
        target,
        outgoing.ordering_key,
        outgoing.fairness_key,
        outgoing.headers,
        outgoing.correlation_id,
        outgoing.causation_id,
        outgoing.reply_to,
        outgoing.source,
    )
    with (
        connection.wrap_database_errors,
        psycopg.Cursor(connection.connection) as cursor,
        cursor.copy(COPY[outgoing.is_topic]) as copy,
    ):
        for message_id, body in zip(ids, outgoing.bodies, strict=True):
            copy.write_row((message_id, *row, body))
    place = PLACE_COPIED[outgoing.is_topic, outgoing.is_later, outgoing.has_key]
    placed = run(connection, place, values | {"target": target, "ids": ids})
    return Told(target, None, is_limited, ids, placed)
