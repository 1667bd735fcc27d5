"""Notify and listen on a connection of their own, outside every publisher's transaction."""

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import conf

CHANNEL = "messaging"
# PostgreSQL refuses 8,000 bytes.
MAX_PAYLOAD = 7900


# A notification is a commit like any other: it would wait for the disk, and have the publishers'
# commits wait behind it, for something that may be lost anyway.
FORGETFUL = "SET synchronous_commit = off"


def connect(connection: BaseDatabaseWrapper) -> psycopg.Connection[tuple[object, ...]]:
    """Open a plain autocommit connection to the same database."""
    url, params = _address(connection)
    raw = psycopg.connect(url, autocommit=True, **params)
    raw.execute(FORGETFUL)
    return raw


async def listen_async(
    connection: BaseDatabaseWrapper,
) -> psycopg.AsyncConnection[tuple[object, ...]]:
    """Open such a connection for an event loop, subscribed to the notifications."""
    url, params = _address(connection)
    raw = await psycopg.AsyncConnection.connect(url, autocommit=True, **params)
    await raw.execute(LISTEN)
    return raw


def _address(connection: BaseDatabaseWrapper) -> tuple[str, dict[str, Any]]:
    if conf.LISTEN_URL:
        return conf.LISTEN_URL, {}
    params = dict(connection.get_connection_params())
    for name in ("cursor_factory", "context", "autocommit"):
        params.pop(name, None)
    params.setdefault("application_name", "messaging wake-up")
    return "", params


NOTIFY = "SELECT pg_notify(%s, %s)"


def notify(raw: psycopg.Connection[tuple[object, ...]], payload: str) -> None:
    """Send one notification to every listener."""
    raw.execute(NOTIFY, (CHANNEL, payload))


LISTEN = "LISTEN messaging"


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


def start_listening(raw: psycopg.Connection[tuple[object, ...]]) -> None:
    """Subscribe this connection to the notifications."""
    raw.execute(LISTEN)


RECORD_PUBLISHED = """
    INSERT INTO messaging_stat (process, queue_id, published)
    SELECT %s, * FROM unnest(%s::bigint[], %s::integer[])
"""


def record_published(
    raw: psycopg.Connection[tuple[object, ...]], process: str, published: Mapping[int, int]
) -> None:
    """Store how many deliveries this process has published to each queue."""
    raw.execute(RECORD_PUBLISHED, (process, list(published), list(published.values())))
