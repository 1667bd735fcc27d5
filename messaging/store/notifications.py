"""Notify and listen on a connection of their own, outside every publisher's transaction."""

from collections.abc import Iterator, Mapping

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
    if conf.LISTEN_URL:
        raw = psycopg.connect(conf.LISTEN_URL, autocommit=True)
    else:
        params = dict(connection.get_connection_params())
        params.pop("cursor_factory", None)
        params.pop("context", None)
        params.setdefault("application_name", "messaging wake-up")
        raw = psycopg.connect(**params | {"autocommit": True})
    raw.execute(FORGETFUL)
    return raw


NOTIFY = "SELECT pg_notify(%s, %s)"


def notify(raw: psycopg.Connection[tuple[object, ...]], payload: str) -> None:
    """Send one notification to every listener."""
    raw.execute(NOTIFY, (CHANNEL, payload))


LISTEN = "LISTEN messaging"


def listen(raw: psycopg.Connection[tuple[object, ...]], timeout: float) -> Iterator[str]:
    """Yield the payloads that arrive within ``timeout`` seconds."""
    for notification in raw.notifies(timeout=timeout):
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
