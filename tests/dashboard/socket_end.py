"""A client's end of the event socket, which says how many events it can take."""

import json
from typing import Any

from browser_end import Browser
from django.test import Client

PATH = "/messaging/events/"


class Subscriber(Browser):
    """What a client that follows the protocol has been told."""

    def __init__(self, client: Client, **options: Any) -> None:
        super().__init__(client, path=PATH, **options)
        self.position: str | None = None

    async def subscribe(
        self, topic: str = "#", resume: str | None = None, credit: int = 100
    ) -> None:
        """Subscribe, and hear that it is so."""
        frame = {"type": "subscribe", "topic": topic, "resume": resume, "credit": credit}
        await self.say(frame)
        self.position = (await self.hear_kind("subscribed"))["position"]

    async def hear(self) -> dict[str, Any]:
        """Return the next frame, or the code that the socket is closed with."""
        message = await self.socket.receive_output(20)
        if message["type"] == "websocket.close":
            return {"type": "closed", "code": message.get("code")}
        frame: dict[str, Any] = json.loads(message["text"])
        if frame["type"] == "ping" and self.shows:
            await self.say({"type": "pong"})
        return frame

    async def hear_kind(self, kind: str) -> dict[str, Any]:
        """Return the next frame of a kind, past signs of life."""
        while (frame := await self.hear())["type"] == "ping":
            pass
        assert frame["type"] == kind, frame
        return frame

    async def hear_ending(self) -> tuple[dict[str, Any], int]:
        """Return the frame that tells the end, and the code of the close after it."""
        while (frame := await self.hear())["type"] in ("ping", "events"):
            pass
        assert frame["type"] == "end", frame
        closed = await self.hear()
        assert closed["type"] == "closed", closed
        return frame, closed["code"]

    async def hear_bodies(self, number: int, *, acknowledge: bool = True) -> list[Any]:
        """Return the bodies of so many events, which are all that comes."""
        found: list[Any] = []
        while len(found) < number:
            frame = await self.hear_kind("events")
            found += [json.loads(event["body"]) for event in frame["events"]]
            self.position = frame["events"][-1]["position"]
            if acknowledge:
                await self.acknowledge()
        assert len(found) == number
        return found

    async def acknowledge(self) -> None:
        await self.say({"type": "ack", "position": self.position})
