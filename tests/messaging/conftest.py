"""What the tests of the app start from: rows to send to, and declarations that are undone."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from messaging import consuming
from messaging.models import Queue, Subscription, Topic


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
