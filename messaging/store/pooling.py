"""Tell whether a pooler stands between a connection and the server."""

from typing import Any

import psycopg

BACKEND = "SELECT pg_backend_pid()"


def is_pooled(raw: psycopg.BaseConnection[Any], backend: object) -> bool:
    """Tell whether another program stands between this connection and the backend that answered.

    A pooler gives its clients keys of its own to cancel queries with (PgBouncer: random ones).
    """
    return raw.info.backend_pid != backend
