"""What the tests of messaging share: queues and topics of their own, declarations undone."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from messaging.consuming import Declarations, declarations
from messaging.models import Queue, Topic


@pytest.fixture
def queue(db: None) -> Callable[..., Queue]:
    """Return a function that creates a queue with the policies given."""

    def create(name: str, **policies: Any) -> Queue:
        return Queue.objects.create(name=name, **policies)

    return create


@pytest.fixture
def topic(db: None) -> Callable[..., Topic]:
    """Return a function that creates a topic."""

    def create(name: str, **policies: Any) -> Topic:
        return Topic.objects.create(name=name, **policies)

    return create


@pytest.fixture
def declared() -> Iterator[Declarations]:
    """Let a test declare what it likes, starting from nothing, and undo it afterwards."""
    parts = (declarations.consumers, declarations.queues, declarations.topics)
    kept = [dict(part) for part in parts]
    for part in parts:
        part.clear()
    yield declarations
    for part, before in zip(parts, kept, strict=True):
        part.clear()
        part.update(before)
