"""What the tests of the app start from: rows to send to, declarations to undo, other sessions."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections

from messaging import consuming
from messaging.models import Queue, Subscription, Topic

WAITERS = """
    SELECT count(DISTINCT pid) FROM pg_locks
    WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))
"""


@pytest.fixture
def bare(db: None) -> None:
    """Start without the queues, topics and subscriptions that other apps declare."""
    Subscription.objects.all().delete()
    Topic.objects.all().delete()
    Queue.objects.update(dead_letter_queue=None)
    Queue.objects.all().delete()


@pytest.fixture
def queue(db: None) -> Callable[..., Queue]:
    """Return a function that creates a queue with the policies given."""

    def create(name: str = "invoices", **policies: Any) -> Queue:
        return Queue.objects.create(name=name, **policies)

    return create


@pytest.fixture
def topic(db: None) -> Callable[..., Topic]:
    """Return a function that creates a topic."""

    def create(name: str = "orders.placed", **policies: Any) -> Topic:
        return Topic.objects.create(name=name, **policies)

    return create


@pytest.fixture
def subscribe(db: None) -> Callable[..., Subscription]:
    """Return a function that subscribes a queue, by name, to a topic or pattern."""

    def create(pattern: str, name: str, **fields: Any) -> Subscription:
        subscriber, _ = Queue.objects.get_or_create(name=name)
        return Subscription.objects.create(pattern=pattern, queue=subscriber, **fields)

    return create


@pytest.fixture
def declared() -> Iterator[consuming.Declarations]:
    """Give a test declarations of its own, empty at first; what code declared comes back after."""
    known = consuming.declarations
    kept = [(names, dict(names)) for names in (known.consumers, known.queues, known.topics)]
    for names, _ in kept:
        names.clear()
    yield known
    for names, before in kept:
        names.clear()
        names.update(before)


@pytest.fixture
def elsewhere(transactional_db: None) -> Iterator[Callable[..., Future[Any]]]:
    """Return a function that calls another in a thread with a connection of its own."""

    def closing(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        finally:
            connections.close_all()

    with ThreadPoolExecutor() as threads:
        yield lambda function, *args, **kwargs: threads.submit(closing, function, *args, **kwargs)


@pytest.fixture
def until() -> Callable[..., None]:
    """Return a function that waits for a condition, and fails when it does not come true."""

    def wait(condition: Callable[[], object], seconds: float = 15) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} seconds"
            time.sleep(0.005)

    return wait


@pytest.fixture
def waiters(transactional_db: None) -> Callable[[], int]:
    """Return a function that counts the sessions that wait for this one's transaction."""

    def count() -> int:
        with connection.cursor() as cursor:
            cursor.execute(WAITERS)
            return int(cursor.fetchone()[0])

    return count
