"""Notify and listen on a connection of their own, outside every publisher's transaction."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import conf
from .pooling import BACKEND, is_pooled

CHANNEL = "messaging"
# Of the replies to requests, which are none of the workers' business.
REPLIES = "messaging_replies"
# PostgreSQL refuses 8,000 bytes.
MAX_PAYLOAD = 7900
# What the server calls these sessions, unless the project names them.
APPLICATION = "messaging wake-up"


def connect(connection: BaseDatabaseWrapper) -> psycopg.Connection[tuple[object, ...]]:
    """Open a plain autocommit connection to the same database."""
    url, params = _address(connection)
    return psycopg.connect(url, autocommit=True, **params)


async def listen_async(
    connection: BaseDatabaseWrapper,
) -> psycopg.AsyncConnection[tuple[object, ...]]:
    """Open such a connection for an event loop, subscribed to the notifications."""
    url, params = _address(connection)
    raw = await psycopg.AsyncConnection.connect(url, autocommit=True, **params)
    try:
        cursor = await raw.execute(BACKEND)
        _refuse_pooler(raw, await cursor.fetchone())
        await raw.execute(LISTEN)
    except psycopg.Error:
        await raw.close()
        raise
    return raw


def _address(connection: BaseDatabaseWrapper) -> tuple[str, dict[str, Any]]:
    if conf.LISTEN_URL:
        return conf.LISTEN_URL, {"fallback_application_name": APPLICATION}
    params = dict(connection.get_connection_params())
    for name in ("cursor_factory", "context", "autocommit"):
        params.pop(name, None)
    params.setdefault("application_name", APPLICATION)
    return "", params


# A notification is a commit like any other: it would wait for the disk, and have the publishers'
# commits wait behind it, for something that may be lost anyway. Only this transaction forgets to
# wait: the session may be a pooler's, and somebody else's in a moment.
NOTIFY = "SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, %s)"


def notify(
    raw: psycopg.Connection[tuple[object, ...]], payload: str, channel: str = CHANNEL
) -> None:
    """Send one notification to every listener."""
    raw.execute(NOTIFY, (channel, payload))


LISTEN = "LISTEN messaging"
LISTEN_TO_REPLIES = "LISTEN messaging_replies"


def listen(raw: psycopg.Connection[tuple[object, ...]], timeout: float) -> Iterator[str]:
    """Yield the payloads that arrive within ``timeout`` seconds."""
    for notification in raw.notifies(timeout=timeout):
        yield notification.payload


async def heard(
    raw: psycopg.AsyncConnection[tuple[object, ...]], timeout: float
) -> AsyncIterator[str]:
    """Yield the payloads that arrive at an event loop within ``timeout`` seconds."""
    async for notification in raw.notifies(timeout=timeout):
        yield notification.payload


def start_listening(raw: psycopg.Connection[tuple[object, ...]], channel: str = CHANNEL) -> None:
    """Subscribe this connection to the notifications.

    Raises psycopg's NotSupportedError behind a pooler, unless LISTEN_URL says that it will do.
    """
    _refuse_pooler(raw, raw.execute(BACKEND).fetchone())
    raw.execute(LISTEN if channel == CHANNEL else LISTEN_TO_REPLIES)


def _refuse_pooler(raw: psycopg.BaseConnection[Any], row: tuple[object, ...] | None) -> None:
    """Leave no LISTEN behind on a session that the pooler gives to others."""
    if not conf.LISTEN_URL and row is not None and is_pooled(raw, row[0]):
        raise psycopg.NotSupportedError(
            "This connection goes through a pooler, where LISTEN hears nothing. Set "
            "MESSAGING['LISTEN_URL'] to a direct connection."
        )


PRESENT = "SELECT id FROM messaging_queue WHERE id = ANY (%s::bigint[])"
RECORD_PUBLISHED = """
    WITH forgetful AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
    INSERT INTO messaging_stat (process, queue_id, published)
    SELECT %s, published.* FROM forgetful, unnest(%s::bigint[], %s::integer[]) AS published
"""


def record_published(
    raw: psycopg.Connection[tuple[object, ...]], process: str, published: Mapping[int, int]
) -> None:
    """Store how many deliveries this process has published to each queue that is still there."""
    # Two statements: one that locks both tables could be in a deadlock with who empties them.
    present = {row[0] for row in raw.execute(PRESENT, (list(published),))}
    numbers = {queue: number for queue, number in published.items() if queue in present}
    if numbers:
        raw.execute(RECORD_PUBLISHED, (process, list(numbers), list(numbers.values())))
