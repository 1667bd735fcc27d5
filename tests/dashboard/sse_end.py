"""A client's end of a stream of Server-Sent Events, without a server between."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

from asgiref.sync import sync_to_async
from browser_end import PATIENCE
from django.test import AsyncClient, Client

EVENTS = "/messaging/events/"


class Listener:
    """What a client that follows the rules of Server-Sent Events has been told."""

    def __init__(self, client: Client) -> None:
        self._client = AsyncClient()
        self._client.cookies = client.cookies
        self._lines: AsyncGenerator[str, None] | None = None
        self.position: str | None = None
        self.heard: list[tuple[str, Any]] = []

    async def ask(self, resume: str | None = None, **query: str) -> Any:
        """Ask for the stream and return the answer."""
        headers = {"Last-Event-ID": resume} if resume else {}
        self.answer = await self._client.get(EVENTS, query, headers=headers)
        if self.answer.streaming:
            self._lines = self._split()
        return self.answer

    async def _split(self) -> AsyncGenerator[str, None]:
        text = ""
        async for part in self.answer.streaming_content:
            text += part.decode()
            *lines, text = text.split("\n")
            for line in lines:
                yield line

    async def hear(self) -> tuple[str, Any] | None:
        """Return the next event's name and data; None when the stream is over."""
        return await asyncio.wait_for(self._hear(), PATIENCE)

    async def _hear(self) -> tuple[str, Any] | None:
        name, data, position = "message", "", self.position
        assert self._lines is not None
        async for line in self._lines:
            field, _, value = line.partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data = value
            elif field == "id":
                position = value
            elif not line:
                self.position = position
                if data:
                    self.heard.append((name, json.loads(data)))
                    return self.heard[-1]
                name = "message"
        return None

    async def hear_bodies(self, number: int) -> list[Any]:
        """Return the bodies of so many events, which are all that comes."""
        found = []
        for _ in range(number):
            heard = await self.hear()
            assert heard is not None
            name, event = heard
            assert name == "message", event
            found.append(json.loads(event["body"]))
        return found

    async def hear_end(self) -> Any:
        """Return the data of the event that ends the stream, whatever comes before."""
        while (heard := await self.hear()) is not None:
            if heard[0] == "end":
                assert await self.hear() is None
                return heard[1]
        raise AssertionError("the stream ended without a word")

    async def leave(self) -> None:
        if self._lines is not None:
            # As a server does when its client has gone.
            await self._lines.aclose()
            await self.answer._iterator.aclose()
            await sync_to_async(self.answer.close)()
