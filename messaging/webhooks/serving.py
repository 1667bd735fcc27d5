"""Serve: the webhooks of a worker as consumers of their queues, found again while it works."""

from collections.abc import Sequence
from importlib.util import find_spec

from django.db import DatabaseError

from .. import conf
from ..consuming import Consumer, declarations
from ..models import Webhook
from ..store import webhooks
from ..store.connection import connection_for
from ..store.webhooks import WebhookRow
from .delivering import Endpoint

# What `pip install messaging-postgres[webhooks]` brings.
EXTRA = ("httpx2", "standardwebhooks")
# Requests in flight to one webhook in one process.
CONCURRENCY = 20


class Endpoints:
    """Finds what to serve of the queues named, or of all; a queue's declared consumer comes first.

    An endpoint is kept for as long as its row stays the same.
    """

    def __init__(self, queues: Sequence[str] | None = None) -> None:
        self._queues = queues
        self._known: dict[WebhookRow, Consumer] = {}

    def __call__(self, using: str | None) -> Sequence[Consumer]:
        rows = webhooks.served(connection_for(using), self._queues)
        self._known = {
            row: self._known.get(row) or _consumer(row, using)
            for row in rows
            if row.queue not in declarations.consumers
        }
        return list(self._known.values())


def _consumer(row: WebhookRow, using: str | None) -> Consumer:
    return Consumer(
        queue=row.queue,
        function=Endpoint(row, using),
        is_async=True,
        concurrency=CONCURRENCY if row.rests_until is None else 1,
    )


def are_installed() -> bool:
    """Tell whether the packages are there that sending needs."""
    return all(find_spec(name) is not None for name in EXTRA)


def queues_with_webhooks() -> set[str]:
    """Return the queues that have a webhook; none where nothing can be read yet."""
    rows = Webhook.objects.using(conf.DATABASE)
    try:
        return set(rows.values_list("queue__name", flat=True))
    except DatabaseError:  # which says so itself, or is not migrated
        return set()
