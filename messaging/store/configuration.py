"""Read what workers need to know about queues."""

import json
from collections.abc import Sequence

from django.db.backends.base.base import BaseDatabaseWrapper

from ..policies import QueuePolicy
from .connection import run

POLICIES = """
    SELECT id, name, paused_at IS NOT NULL, max_deliveries, backoff, backoff_base, backoff_cap,
        backoff_delays, jitter, retention, dead_letter_expired, visibility_timeout, rate_limit,
        key_rate_limit, concurrency_limit, single_active_consumer, weight, on_failure
    FROM messaging_queue
    WHERE name = ANY (%(names)s::text[]) OR id = ANY (%(ids)s::bigint[])
"""


def policies(
    connection: BaseDatabaseWrapper, *, names: Sequence[str] = (), ids: Sequence[int] = ()
) -> list[QueuePolicy]:
    """Return the policies of the queues named or numbered."""
    rows = run(connection, POLICIES, {"names": list(names), "ids": list(ids)})
    return [
        QueuePolicy(
            id=row[0],
            name=row[1],
            paused=row[2],
            max_deliveries=row[3],
            backoff=row[4],
            backoff_base=row[5],
            backoff_cap=row[6],
            backoff_delays=tuple(row[7] if isinstance(row[7], list) else json.loads(row[7])),
            jitter=row[8],
            retention=row[9],
            dead_letter_expired=row[10],
            visibility_timeout=row[11],
            rate_limit=row[12],
            key_rate_limit=row[13],
            concurrency_limit=row[14],
            single_active_consumer=row[15],
            weight=row[16],
            on_failure=row[17],
        )
        for row in rows
    ]
