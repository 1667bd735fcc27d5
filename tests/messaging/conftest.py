"""What the tests of the app start from: rows to send to, and declarations that are undone."""

from collections.abc import Callable, Iterator
from typing import Any

import proofs
import pytest

from messaging import consuming
from messaging.models import Queue, Subscription, Topic
from messaging.sync import synchronise
from messaging.worker.configuration import Configuration, consumers_for
from messaging.worker.runner import Runner


def pytest_configure(config: pytest.Config) -> None:
    """Add up what the proofs try, in all processes."""
    proofs.watch(config)


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
def invoices(
    queue: Callable[..., Queue],
    topic: Callable[..., Topic],
    subscribe: Callable[..., Subscription],
) -> Queue:
    """Return a queue that takes what is sent to it and what is published to orders.placed."""
    topic("orders.placed")
    created = queue("invoices")
    subscribe("orders.placed", "invoices")
    return created


@pytest.fixture
def declared() -> Iterator[consuming.Declarations]:
    """Give a test declarations of its own, empty at first; what code declared comes back after."""
    known = consuming.declarations
    all_names = (
        known.consumers,
        known.queues,
        known.topics,
        known.schemas,
        known.schedules,
    )
    kept = [(names, dict(names)) for names in all_names]
    for names, _ in kept:
        names.clear()
    yield known
    for names, before in kept:
        names.clear()
        names.update(before)


@pytest.fixture
def declare(declared: consuming.Declarations, db: None) -> Callable[..., None]:
    """Return a function that declares the consumer of ``invoices`` and creates its queue."""

    def declare(function: Callable[..., Any], **options: Any) -> None:
        consuming.consumer("invoices", **options)(function)
        synchronise()

    return declare


@pytest.fixture
def runner(declared: consuming.Declarations, db: None) -> Callable[..., Runner]:
    """Return a function that makes a runner of all the consumers declared."""

    def make(**options: Any) -> Runner:
        consumers = consumers_for([])
        configuration = Configuration(consumers, None)
        configuration.refresh()
        return Runner(consumers, configuration, name="runner", **options)

    return make
