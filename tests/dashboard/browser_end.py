"""The browser's end of a socket, without a browser."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.db import connections
from django.test import Client

from messaging.dashboard.hub import Hub
from messaging.dashboard.reader import Reader
from messaging.dashboard.routing import websocket_application

ORIGIN = "http://localhost:8000"
PATIENCE = 10.0


class Browser:
    """The browser's end of a socket."""

    def __init__(
        self, client: Client, *, origin: str | None = ORIGIN, path: str = "/messaging/live/"
    ) -> None:
        cookies = "; ".join(f"{name}={cookie.value}" for name, cookie in client.cookies.items())
        headers = [(b"cookie", cookies.encode()), (b"host", b"localhost:8000")]
        if origin is not None:
            headers.append((b"origin", origin.encode()))
        self.socket = WebsocketCommunicator(websocket_application, path, headers)
        self.cursor: str | None = None
        self.bodies: list[str] = []
        self.shows = True

    async def connect(self) -> bool:
        is_connected, _ = await self.socket.connect(timeout=PATIENCE)
        return bool(is_connected)

    async def say(self, frame: Any) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame)
        await self.socket.send_to(text_data=text)

    async def resume(self, cursor: str | None, topic: str | None = None) -> None:
        self.cursor = cursor
        await self.say({"type": "resume", "cursor": cursor, "topic": topic})

    async def hear(self) -> dict[str, Any]:
        """Return the next frame, or the code that the socket is closed with."""
        message = await self.socket.receive_output(PATIENCE)
        if message["type"] == "websocket.close":
            return {"type": "closed", "code": message.get("code")}
        frame: dict[str, Any] = json.loads(message["text"])
        if frame["type"] == "frame" and self.shows:
            await self.say({"type": "shown", "number": frame["number"]})
        return frame

    async def hear_code(self, kind: str) -> Any:
        """Return the code of the next frame of a kind, whatever comes before."""
        while (frame := await self.hear())["type"] != kind:
            pass
        return frame["code"]

    async def hear_events(self, number: int) -> None:
        """Take events as a page does, joining on to what it has, until it has so many."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while len(self.bodies) < number:
            assert asyncio.get_running_loop().time() < deadline, self.bodies
            frame = await self.hear()
            assert frame["type"] == "frame", frame
            if news := frame.get("news"):
                assert news["from"] in (self.cursor, None)
                self.cursor = news["cursor"]
                self.bodies += [event["body"] for event in news["events"]]

    async def leave(self) -> None:
        await self.socket.disconnect(timeout=PATIENCE)


async def has_ended(shared: Reader | Hub) -> None:
    """Wait until a reader whose sockets have left neither reads nor keeps a connection."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while shared.is_running:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    await shared.call(connections.close_all)


def alter(change: Callable[[], Any]) -> Awaitable[Any]:
    return sync_to_async(change)()
