"""Sockets: keep one browser's live page up to date.

What a browser has is known by its cursor. Hand-overs of the reader that do not join on to it are
answered by reading what is missing, so that a full channel costs a query and never an event.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer

from .. import feed
from ..feed import BadCursor, Cursor, Event, News
from .access import Denied, Viewer, viewer_of_session
from .frames import (
    EVENTS,
    MOVING_EVENTS,
    BadFrame,
    Resume,
    Shown,
    figures_frame,
    news_frame,
    parse,
)
from .reader import HAND_OVER_EVERY, Reader, load_news, reader_for

logger = logging.getLogger("messaging")

# Codes that a socket is closed with, after those of HTTP.
BAD_FRAMES = 4400
TOO_SLOW = 4408
UNAVAILABLE = 4503

MOST_BAD_FRAMES = 10
# A browser gets at most four frames a second, about 20 kB a second, and no more frames than this
# before it has shown one.
FRAME_EVERY = 0.25
BYTES_A_SECOND = 20_000
LONGEST_PAUSE = 2.0
MOST_UNSHOWN = 4
PATIENCE = 20.0
# A browser that hears nothing for three times as long connects again.
SIGN_EVERY = 5.0
# The session, the user and the permission are looked up again after 4 seconds; with many sockets
# later, so that a process does it fifty times a second at most.
CHECK_EVERY = 4.0
CHECKS_A_SECOND = 50
LONGEST_UNCHECKED = 30.0


class LiveSocket(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One browser: what it has been sent, what waits for it, and whether it keeps up."""

    _reader: Reader
    _viewer: Viewer

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
    ) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._is_following = False
        self._topic: str | None = None
        # What the browser asked for last and is not yet answered.
        self._resume: Resume | None = None
        # What the browser has (None: nothing), and how far the events that wait for it go.
        self._sent: Cursor | None = None
        self._position: Cursor | None = None
        self._pending: list[Event] = []
        self._skipped = 0
        self._is_behind = False
        self._heard_at = time.monotonic()
        self._fragments: dict[str, str] = {}
        self._rows: list[str] | None = None
        self._has_figures = False
        self._number = self._shown = 0
        self._bad_frames = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._end()

    async def connect(self) -> None:
        # Accepted first: a browser gets to see the code only of a connection that it had.
        await self.accept()
        if self.channel_layer is None:
            await self.close(UNAVAILABLE)
            return
        self._reader = reader_for(self.channel_layer)
        try:
            self._viewer = await self._look_up()
        except Denied as denied:
            await self.close(denied.code)
            return
        except Exception as error:
            logger.warning("Session not looked up error=%s", type(error).__name__)
            await self.close(UNAVAILABLE)
            return
        self._tasks = [asyncio.create_task(self._pump()), asyncio.create_task(self._watch())]

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._is_following:
            self._is_following = False
            await self._reader.unfollow(self._topic, self.channel_name)

    async def _look_up(self) -> Viewer:
        return await self._reader.call(viewer_of_session, self.scope["session"].session_key)

    # From the browser

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        try:
            frame = parse(text_data)
        except BadFrame as error:
            await self._refuse(error.code)
            return
        if isinstance(frame, Shown):
            self._shown = min(max(self._shown, frame.number), self._number)
            self._room.set()
        elif self._tasks:
            # The pump answers, at its pace, the last one of many.
            self._resume = frame
            self._changed.set()

    async def _refuse(self, code: str) -> None:
        self._bad_frames += 1
        await self.send(text_data=json.dumps({"type": "error", "code": code}))
        if self._bad_frames >= MOST_BAD_FRAMES:
            await self.close(BAD_FRAMES)

    # From the reader

    async def feed_figures(self, message: dict[str, Any]) -> None:
        """Note that there are new figures."""
        self._has_figures = True
        self._changed.set()

    async def feed_news(self, message: dict[str, Any]) -> None:
        """Take the events of a hand-over, or note that some are missing before it."""
        self._heard_at = time.monotonic()
        if self._position is None or self._is_behind or message["topic"] != self._topic:
            return
        news = load_news(message["news"])
        mine, seen = self._position, news.seen
        if seen is None or not mine.snapshot.includes(seen.snapshot):
            self._is_behind = True
        elif not all(self._viewer.rights.knows(event.topic) for event in news.events):
            # A new topic: whether this user may have it is looked up before it is read.
            self._is_behind = True
        elif seen == mine and (self._sees_all or not news.skipped):
            self._take(news.events, news.skipped)
            self._position = news.cursor
        elif news.skipped:
            self._is_behind = True
        else:
            # It begins before this socket's own reading ended.
            self._take([e for e in news.events if not mine.snapshot.sees(e.transaction)], 0)
            if news.cursor.snapshot.includes(mine.snapshot):
                self._position = news.cursor
        self._changed.set()

    @property
    def _sees_all(self) -> bool:
        return self._topic is None and self._viewer.rights.topics is None

    def _take(self, events: Sequence[Event], skipped: int) -> None:
        self._pending += [e for e in events if self._viewer.rights.allows(e.topic)]
        surplus = max(0, len(self._pending) - MOVING_EVENTS)
        del self._pending[:surplus]
        self._skipped += skipped + surplus

    # To the browser

    async def _pump(self) -> None:
        while True:
            is_quiet = not await self._wait()
            if not await self._has_room():
                await self.close(TOO_SLOW)
                return
            try:
                frame = await self._next_frame()
            except BadFrame as error:
                await self._refuse(error.code)
                frame = {}
            except Denied as denied:
                await self.close(denied.code)
                return
            except Exception as error:
                logger.warning("Live page not updated error=%s", type(error).__name__)
                self._changed.set()
                await asyncio.sleep(1)
                continue
            size = await self._send_frame(frame) if frame or is_quiet else 0
            await asyncio.sleep(min(max(FRAME_EVERY, size / BYTES_A_SECOND), LONGEST_PAUSE))

    async def _wait(self) -> bool:
        """Wait for something to say; tell whether there is, or it is only time for a sign."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), SIGN_EVERY)
            self._changed.clear()
            return True
        return False

    async def _send_frame(self, frame: dict[str, Any]) -> int:
        self._number += 1
        figures = self._reader.figures
        current = figures is not None and not figures.is_outdated
        text = json.dumps({"type": "frame", "number": self._number, "current": current, **frame})
        await self.send(text_data=text)
        return len(text)

    async def _has_room(self) -> bool:
        """Wait until the browser has shown enough of what it got; tell whether it did in time."""
        while self._number - self._shown >= MOST_UNSHOWN:
            self._room.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._room.wait(), PATIENCE)
                continue
            return False
        return True

    async def _next_frame(self) -> dict[str, Any]:
        frame: dict[str, Any] = {}
        is_reset = False
        if self._resume:
            await self._start(self._resume)
        if self._is_behind:
            is_reset = await self._catch_up()
        if self._position not in (None, self._sent):
            news = News(
                seen=self._sent,
                cursor=self._position,
                events=tuple(self._pending),
                skipped=self._skipped,
                is_reset=is_reset,
            )
            frame["news"] = news_frame(news, self._viewer)
            self._sent = self._position
            self._pending, self._skipped = [], 0
        if self._has_figures and self._reader.figures:
            self._has_figures = False
            figures = self._reader.figures
            fragments = await self._reader.call(figures.fragments, self._viewer)
            changes = figures_frame(fragments, figures.rows, self._fragments, self._rows)
            if changes:
                frame["figures"] = changes
            self._fragments, self._rows = fragments, figures.rows
        return frame

    async def _start(self, asked: Resume) -> None:
        """Begin where the browser says that it is; nothing else is sent before that is read."""
        self._position = None
        try:
            await self._follow(asked.topic)
        except BadFrame:
            self._resume = None
            raise
        self._resume = None
        self._sent = asked.cursor
        self._is_behind = True

    async def _catch_up(self) -> bool:
        """Read what the browser does not have; tell whether older events may be missing."""
        if not self._sees_all:
            self._note(await self._look_up())
        topics = self._viewer.rights.topics_of(self._topic)
        try:
            if self._sent is None:
                news = await self._reader.call(feed.latest, topics=topics, limit=EVENTS)
            else:
                news = await self._reader.call(feed.since, self._sent, topics=topics, limit=EVENTS)
        except BadCursor as error:
            self._is_behind = False
            raise BadFrame("bad_cursor") from error
        self._pending, self._skipped = list(news.events), news.skipped
        self._position = news.cursor
        self._is_behind = False
        return news.is_reset

    async def _follow(self, topic: str | None) -> None:
        if topic is not None and not await self._may_follow(topic):
            raise BadFrame("not_found")
        if self._is_following and topic == self._topic:
            return
        if self._is_following:
            self._is_following = False
            await self._reader.unfollow(self._topic, self.channel_name)
        self._topic = topic
        await self._reader.follow(topic, self.channel_name)
        self._is_following = True

    async def _may_follow(self, topic: str) -> bool:
        """Tell whether there is a topic, and this user may have its events."""
        return self._viewer.rights.allows(topic) and await self._reader.call(
            feed.topic_exists, topic
        )

    # Still allowed?

    async def _watch(self) -> None:
        checked_at = time.monotonic()
        while True:
            pause = max(CHECK_EVERY, self._reader.sockets / CHECKS_A_SECOND)
            await asyncio.sleep(min(pause, LONGEST_UNCHECKED))
            try:
                await self._check()
                checked_at = time.monotonic()
            except Denied as denied:
                await self.close(denied.code)
                return
            except Exception as error:
                logger.warning("Session not looked up error=%s", type(error).__name__)
                if time.monotonic() - checked_at > LONGEST_UNCHECKED:
                    await self.close(UNAVAILABLE)
                    return

    def _note(self, viewer: Viewer) -> None:
        if viewer != self._viewer:
            self._fragments = {}
        self._viewer = viewer

    async def _check(self) -> None:
        self._note(await self._look_up())
        if self._is_following and time.monotonic() - self._heard_at > 2 * HAND_OVER_EVERY:
            # The layer lost this socket, or its messages.
            await self._reader.rejoin(self._topic, self.channel_name)
            self._is_behind = True
            self._changed.set()
