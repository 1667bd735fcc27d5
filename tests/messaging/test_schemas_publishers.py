"""Several publishers, and a schema that changes under them."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from messaging import InvalidMessage, apublish, control, publish, publish_many
from messaging.models import Message, Topic

DOCUMENTS = ({"type": "object"}, {"type": "string"})
BODIES: tuple[Any, ...] = ({"n": 1}, "text", 5)
# What each version takes, by its number; none takes all.
TAKEN: dict[int | None, tuple[Any, ...]] = {None: BODIES, 1: ({"n": 1},), 2: ("text",)}
CHANGES = (1, 2, 1, None, 2, None, 1, 2)


class Try(NamedTuple):
    """What a publisher saw: the change before and after it, and whether it was taken."""

    before: int
    after: int
    body: Any
    was_taken: bool


def one(name: str, body: Any) -> None:
    publish(name, body)


def many(name: str, body: Any) -> None:
    publish_many(name, [body] * 2)


def copied(name: str, body: Any) -> None:
    publish_many(name, [body] * 600)


def deduplicated(name: str, body: Any) -> None:
    publish(name, body, deduplication_id=str(next(numbers)))


def asynchronous(name: str, body: Any) -> None:
    async def work() -> None:
        try:
            await apublish(name, body)
        finally:
            await sync_to_async(connections.close_all)()

    asyncio.run(work())


numbers = itertools.count()


@pytest.mark.parametrize(
    "ways", [(one, one, many), (one, deduplicated, copied), (asynchronous, one)]
)
def test_every_publisher_keeps_to_the_version_that_counts_from_its_change_on(
    bare: None,
    topic: Callable[..., Topic],
    subscribe: Callable[..., Any],
    queue: Callable[..., Any],
    elsewhere: Callable[..., Any],
    until: Callable[..., None],
    ways: tuple[Callable[[str, Any], None], ...],
) -> None:
    name = topic(compatibility="none").name
    queue("invoices")
    subscribe(name, "invoices")
    for document in DOCUMENTS:
        control.add_schema(name, document)
    # Even: this many changes were made, half; odd: one is being made.
    clock = [0]
    tries: list[list[Try]] = [[] for _ in ways]
    is_over = [False]

    def work(number: int) -> None:
        while not is_over[0]:
            for body in BODIES:
                before = clock[0]
                try:
                    ways[number](name, body)
                    was_taken = True
                except InvalidMessage:
                    was_taken = False
                tries[number].append(Try(before, clock[0], body, was_taken))

    workers = [elsewhere(work, number) for number in range(len(ways))]
    try:
        for version in (None, *CHANGES):
            clock[0] += 1
            control.use_schema(name, version)
            clock[0] += 1
            now = clock[0]
            until(
                lambda now=now: (
                    any(each.done() for each in workers)
                    or all(done and done[-1].before == now for done in tries)
                )
            )
    finally:
        is_over[0] = True
    for worker in workers:
        worker.result(30)
    steady = [each for done in tries for each in done if each.before == each.after]
    for each in steady:
        if each.before and each.before % 2 == 0:
            version = (None, *CHANGES)[each.before // 2 - 1]
            assert each.was_taken is (each.body in TAKEN[version]), each
    assert {each.before for each in steady} >= {2 * n for n in range(1, len(CHANGES) + 2)}
    assert Message.objects.exists()
