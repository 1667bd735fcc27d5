"""Clients of the event socket that come by the network, are cut off, or do not read."""

import asyncio
import json
import random
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from browser_end import alter
from django.test import Client
from serving import PATIENCE, Site
from wire_end import Closed, Wire
from writing import write

from messaging import publish, publish_many
from messaging.models import Topic

pytestmark = pytest.mark.django_db(transaction=True)

CUTS = 50
WRITERS = 6
# So many events of so many bytes flood a client that does not read: half as much again as the
# server's memory may grow.
BATCHES = 12
BATCH = 500
BODY = "x" * 8_000
MOST_GROWTH = 32 * 1024 * 1024
CREDIT = 10


class Follower:
    """A client that is cut off again and again, and goes on where it was."""

    def __init__(self, site: Site, client: Client) -> None:
        self._site = site
        self._client = client
        self.position: str | None = None
        self.heard: list[str] = []

    def follow(self, events: int, credit: int) -> None:
        """Take so many events, and be cut off in the middle of whatever comes."""
        wire = Wire(self._site, self._client)
        self.position = wire.subscribe("parcels.#", self.position, credit)
        wanted = len(self.heard) + events
        while len(self.heard) < wanted:
            frame = wire.hear()
            assert isinstance(frame, dict), frame
            assert frame["type"] == "events", frame
            for event in frame["events"][: wanted - len(self.heard)]:
                self.heard.append(json.loads(event["body"]))
                self.position = event["position"]
            wire.say("ack", position=self.position)
        wire.cut()


async def test_a_client_that_is_cut_off_fifty_times_misses_and_repeats_nothing(
    site: Site, operator: Client, elsewhere: Callable[..., Future[Any]]
) -> None:
    await site.start()
    follower = Follower(site, operator)
    await asyncio.to_thread(follower.follow, 0, 1)
    writing = [elsewhere(write, writer) for writer in range(WRITERS)]
    chance = random.Random(1)
    for _ in range(CUTS):
        events, credit = chance.randint(1, 15), chance.randint(1, 50)
        await asyncio.to_thread(follower.follow, events, credit)
    committed = [
        name for writer in writing for name in await asyncio.to_thread(writer.result, 4 * PATIENCE)
    ]
    await asyncio.to_thread(follower.follow, len(committed) - len(follower.heard), 50)
    assert sorted(follower.heard) == sorted(committed)
    await asyncio.to_thread(site.stop)


def heard_by(wire: Wire, body: str) -> None:
    """Hear one event and acknowledge it."""
    frame = wire.hear()
    assert isinstance(frame, dict), frame
    (event,) = frame["events"]
    assert json.loads(event["body"]) == body
    wire.say("ack", position=event["position"])


async def test_a_client_that_never_reads_is_closed_with_its_position_and_costs_little(
    site: Site, operator: Client, topic: Callable[..., Topic]
) -> None:
    await alter(lambda: topic("parcels.lost"))
    await site.start()
    idle = await asyncio.to_thread(Wire, site, operator)
    busy = await asyncio.to_thread(Wire, site, operator)
    await asyncio.to_thread(idle.subscribe, "parcels.sent", None, CREDIT)
    await asyncio.to_thread(busy.subscribe, "parcels.lost", None, CREDIT)

    async def flood(number: int) -> None:
        """Publish a batch, and wait until the server has read it."""
        first = number * BATCH
        bodies = [f"{each} {BODY}" for each in range(first, first + BATCH)]
        await alter(lambda: publish_many("parcels.sent", bodies))
        await alter(lambda: publish("parcels.lost", str(number)))
        await asyncio.to_thread(heard_by, busy, str(number))

    # What reading costs at all is part of the beginning.
    await flood(0)
    before = site.resident
    for number in range(1, BATCHES):
        await flood(number)
    assert site.resident - before < MOST_GROWTH

    heard: list[str] = []
    position = None
    while isinstance(frame := await asyncio.to_thread(idle.hear), dict) and (
        frame["type"] == "events"
    ):
        heard += [json.loads(event["body"]).split()[0] for event in frame["events"]]
        position = frame["events"][-1]["position"]
    assert heard == [str(number) for number in range(CREDIT)]
    assert isinstance(frame, dict)
    assert (frame["type"], frame["code"], frame["resume"]) == ("end", "too_slow", position)
    assert await asyncio.to_thread(idle.hear) == Closed(4008)

    again = await asyncio.to_thread(Wire, site, operator)
    await asyncio.to_thread(again.subscribe, "parcels.sent", position, 1)
    frame = await asyncio.to_thread(again.hear)
    assert isinstance(frame, dict)
    (event,) = frame["events"]
    assert json.loads(event["body"]).split()[0] == str(CREDIT)
    await alter(lambda: publish("parcels.lost", "unhurt"))
    await asyncio.to_thread(heard_by, busy, "unhurt")
    for wire in (idle, busy, again):
        wire.cut()
    await asyncio.to_thread(site.stop)
