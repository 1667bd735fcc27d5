"""Event socket: the topic messages for a client that says how many it can take.

The frames are in ``docs/decisions/event-streams.md``. What a client has no room for stays in the
log.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer

from ..feed import BadCursor
from .access import Denied, user_of_session
from .endings import BAD_FRAMES, ENDINGS, SILENT, UNAVAILABLE
from .events import fields
from .frames import BadFrame
from .hub import Hub, running_hub
from .streams import Ended, Given, Stream
from .subscribing import Acknowledge, Credit, Pong, Subscribe, Window, parse

logger = logging.getLogger("messaging")

MOST_BAD_FRAMES = 10
EVENTS_A_FRAME = 50
# A client that hears nothing is asked whether it is there, and one that says nothing is gone: also
# where its end of the connection vanished without a word.
PING_EVERY = 10.0
SILENCE = 25.0


class EventSocket(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One client: its stream, and its window."""

    _hub: Hub
    _window: Window
    _stream: Stream | None = None
    _pump: asyncio.Task[None] | None = None
    _watch: asyncio.Task[None] | None = None
    _heard_at = 0.0
    _bad_frames = 0

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if self._watch:
                self._watch.cancel()
            self._unsubscribe()

    async def connect(self) -> None:
        # Accepted first: a browser gets to see the code only of a connection that it had.
        await self.accept()
        self._hub = running_hub()
        try:
            await self._hub.call(user_of_session, self._session_key)
        except Denied as denied:
            await self._end(denied.code)
        except Exception as error:
            logger.warning("Session not looked up error=%s", type(error).__name__)
            await self._end(UNAVAILABLE)
        else:
            self._heard_at = time.monotonic()
            self._watch = asyncio.create_task(self._watch_out())

    @property
    def _session_key(self) -> str | None:
        key: str | None = self.scope["session"].session_key
        return key

    def _unsubscribe(self) -> None:
        if self._pump:
            self._pump.cancel()
        if self._stream:
            self._stream.leave()
        self._pump = self._stream = None

    # From the client

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self._watch is None:
            return
        try:
            await self._do(parse(text_data))
        except BadFrame as error:
            await self._refuse(error.code)
        except Denied as denied:
            await self._refuse(ENDINGS[denied.code].name)
        except BadCursor:
            await self._refuse("bad_cursor")
        except Exception as error:
            logger.warning("Not subscribed error=%s", type(error).__name__)
            await self._end(UNAVAILABLE)

    async def _do(self, frame: Subscribe | Acknowledge | Credit | Pong) -> None:
        if isinstance(frame, Subscribe):
            self._unsubscribe()
            stream = Stream(self._hub, self._session_key, frame.topic)
            await stream.open(frame.resume)
            self._stream, self._window = stream, Window(credit=frame.credit)
            await self._say("subscribed", topic=frame.topic, position=stream.resume)
            self._pump = asyncio.create_task(self._send_events(stream, self._window))
        elif self._stream is None:
            raise BadFrame("not_subscribed")
        elif isinstance(frame, Acknowledge):
            self._window.acknowledge(frame.position)
            self._stream.wake()
        elif isinstance(frame, Credit):
            self._window.credit = frame.credit
            self._stream.wake()
        self._heard_at = time.monotonic()

    async def _refuse(self, code: str) -> None:
        self._bad_frames += 1
        await self._say("error", code=code)
        if self._bad_frames >= MOST_BAD_FRAMES:
            await self._end(BAD_FRAMES)

    # To the client

    async def _send_events(self, stream: Stream, window: Window) -> None:
        try:
            while True:
                given = await stream.listen(lambda: min(window.room, EVENTS_A_FRAME), PING_EVERY)
                await self._give(given, window, stream.waiting)
        except Ended as ended:
            await self._end(ended.code, resume=ended.resume)

    async def _give(self, given: Given, window: Window, waiting: int) -> None:
        if given.is_reset:
            await self._say("reset", code="retention")
        if not given.events:
            # A client that has acknowledged all it got goes on from here.
            await self._say("ping", position=given.position, waiting=waiting)
            return
        events = [{"position": position, **fields(event)} for event, position in given.events]
        for event in events:
            window.send(event["position"], len(event.get("body") or ""))
        await self._say("events", events=events, waiting=waiting)

    async def _say(self, kind: str, **content: Any) -> None:
        await self.send(text_data=json.dumps({"type": kind, **content}))

    async def _end(self, code: int, **content: Any) -> None:
        if self._watch and self._watch is not asyncio.current_task():
            self._watch.cancel()
        self._watch = None
        ending = ENDINGS[code]
        await self._say("end", code=ending.name, message=ending.message, **content)
        await self.close(code)

    async def _watch_out(self) -> None:
        while (left := self._heard_at + SILENCE - time.monotonic()) > 0:
            await asyncio.sleep(left)
        resume = {"resume": self._stream.resume} if self._stream else {}
        self._unsubscribe()
        await self._end(SILENT, **resume)
