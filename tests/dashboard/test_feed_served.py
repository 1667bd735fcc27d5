"""Clients that come by the network have each event once, however often they are cut off."""

import asyncio
import http.client
import json
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import pytest
from django.test import Client
from playwright.async_api import Page
from serving import PATIENCE, Site
from sse_end import EVENTS
from writing import write

from messaging import apublish

pytestmark = pytest.mark.django_db(transaction=True)

CUTS = 50
WRITERS = 6

FOLLOW = """
    () => {
        window.heard = [];
        const source = new EventSource("/messaging/events/?topic=parcels.%23");
        source.onmessage = ({ data }) => window.heard.push(JSON.parse(data).body);
    }
"""


class Follower:
    """A plain HTTP client that is cut off again and again, and goes on where it was."""

    def __init__(self, site: Site, client: Client) -> None:
        cookie = next(iter(client.cookies.values()))
        self._headers = {"Cookie": f"{cookie.key}={cookie.value}"}
        self._site = site
        self.position: str | None = None
        self.heard: list[str] = []
        self.cuts = 0

    def follow(self, events: int) -> None:
        """Read so many events, and hang up."""
        connection = http.client.HTTPConnection("127.0.0.1", self._site.port, timeout=PATIENCE)
        resume = {"Last-Event-ID": self.position} if self.position else {}
        connection.request("GET", EVENTS, headers={**self._headers, **resume})
        answer = connection.getresponse()
        assert answer.status == 200
        position = self.position
        wanted = len(self.heard) + events
        while len(self.heard) < wanted or self.position is None:
            field, _, value = answer.readline().decode().rstrip("\n").partition(": ")
            if field == "id":
                position = value
            elif field == "data":
                self.heard.append(json.loads(json.loads(value)["body"]))
            elif not field:
                self.position = position
            if field == "data":
                self.position = position
        connection.close()
        self.cuts += 1


async def test_a_client_that_is_cut_off_fifty_times_misses_and_repeats_nothing(
    site: Site, operator: Client, elsewhere: Callable[..., Future[Any]]
) -> None:
    await site.start()
    follower = Follower(site, operator)
    await asyncio.to_thread(follower.follow, 0)
    writing = [elsewhere(write, writer) for writer in range(WRITERS)]
    chance = random.Random(1)
    for _ in range(CUTS):
        await asyncio.to_thread(follower.follow, chance.randint(1, 15))
    committed = [
        name for writer in writing for name in await asyncio.to_thread(writer.result, 4 * PATIENCE)
    ]
    await asyncio.to_thread(follower.follow, len(committed) - len(follower.heard))
    assert follower.cuts >= CUTS
    assert sorted(follower.heard) == sorted(committed)
    await asyncio.to_thread(site.stop)


@pytest.mark.browser
async def test_a_browser_follows_a_topic_and_goes_on_after_a_restart(
    site: Site, visit: Callable[..., Awaitable[Page]]
) -> None:
    page = await visit()
    await page.evaluate(FOLLOW)
    async with asyncio.timeout(PATIENCE):
        while not await page.evaluate("window.heard.length"):
            await apublish("parcels.sent", "first")
    await asyncio.to_thread(site.stop)
    await apublish("parcels.sent", "missed")
    await site.start()
    await apublish("parcels.sent", "after")
    deadline = asyncio.get_running_loop().time() + PATIENCE
    bodies: list[str] = []
    while '"after"' not in bodies:
        assert asyncio.get_running_loop().time() < deadline, bodies
        bodies = await page.evaluate("window.heard")
        await asyncio.sleep(0.05)
    assert bodies[-2:] == ['"missed"', '"after"']
    assert set(bodies[:-2]) == {'"first"'}
