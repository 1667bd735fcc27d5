"""Rows of messages with a key, and of messages that somebody holds."""

from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from messaging import send, send_many
from messaging.engines import engine
from messaging.messages import Delivered
from messaging.models import Queue, Worker
from messaging.store import lanes, leases
from messaging.store.configuration import policies


def keyed(name: str, *bodies: Any, key: str = "a", kind: int = 0, join: bool = True) -> list[int]:
    """Send with an ordering key, or with a fairness key (kind 1); return the messages' ids."""
    keys = {"fairness_key" if kind else "ordering_key": key}
    ids = [int(send(name, body, **keys)) for body in bodies]
    if join and connection.in_atomic_block:
        lanes.join_now(connection)
    return ids


def hold(queue: Queue, count: int = 1, *, worker: str = "web", seconds: float = 60) -> list[int]:
    """Hold messages of a queue under leases, as `receive()` does; return the leases' ids."""
    ids = [int(message_id) for message_id in send_many(queue.name, range(count))]
    (policy,) = policies(connection, ids=[queue.pk])
    source = engine().source(policy, None)
    with transaction.atomic():
        claimed = [Delivered._make(row[:10]) for row in source.claim(1_000, thorough=True)]
        chosen = [each for each in claimed if each.message_id in ids]
        source.settle([], [each for each in claimed if each not in chosen], "test")
        return [each.id for each in leases.hold(connection, chosen, seconds, worker)]


def sign_of_life(*queues: str, seconds_ago: float = 0, state: str = "running") -> Worker:
    """Leave the heartbeat of a worker that serves these queues."""
    now = timezone.now()
    return Worker.objects.create(
        name=f"worker {Worker.objects.count()}", host="h", pid=1, version="1", queues=queues,
        threads=1, running={}, handled=0, failed=0, state=state, started_at=now,
        seen_at=now - timedelta(seconds=seconds_ago),
    )  # fmt: skip
