"""Reader: reads the feed and the figures once for all sockets of this process.

It runs while sockets are connected, as one task of the event loop with one thread and one
connection, and hands what it reads to groups of the channel layer.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from django.db import DatabaseError, InterfaceError, connections

from .. import feed
from ..feed import Cursor, News
from .fragments import Figures, outdated, read_figures

logger = logging.getLogger("messaging")

P = ParamSpec("P")
T = TypeVar("T")

READ_EVERY = 0.25
FIGURES_EVERY = 1.0
# Figures that are expensive, because there are many queues and workers, are read less often.
FIGURES_SHARE = 0.1
# A group hears of the reader at least so often, so that its sockets notice when it does not.
HAND_OVER_EVERY = 5.0
# Back-off while the database does not answer: up to 4 seconds.
MOST_DOUBLINGS = 4

# Sockets of one process get the same texts, which are worth parsing once.
load_news = lru_cache(maxsize=16)(News.load)


class Reader:
    """What the sockets of one event loop share."""

    def __init__(self, layer: Any) -> None:
        self._layer = layer
        # Processes may share a channel layer; each has groups of its own, so nothing comes twice.
        self._process = secrets.token_hex(8)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="messaging-feed")
        self._task: asyncio.Task[None] | None = None
        self._followed: Counter[str | None] = Counter()
        self._handed: dict[str | None, tuple[Cursor | None, float]] = {}
        self._cursor: Cursor | None = None
        self.figures: Figures | None = None

    def group(self, topic: str | None) -> str:
        """Return the name of the group that gets a topic's events; None is all topics."""
        name = "all" if topic is None else hashlib.sha256(topic.encode()).hexdigest()[:32]
        return f"messaging.{self._process}.{name}"

    @property
    def sockets(self) -> int:
        return self._followed.total()

    @property
    def is_running(self) -> bool:
        return self._task is not None

    async def follow(self, topic: str | None, channel: str) -> None:
        """Have a topic's events handed to a socket's channel."""
        await self._layer.group_add(self.group(topic), channel)
        self._followed[topic] += 1
        if self._task is None:
            self._cursor = None
            self._handed.clear()
            self._task = asyncio.create_task(self._run())

    async def unfollow(self, topic: str | None, channel: str) -> None:
        """Undo :meth:`follow`; when nobody follows anything any more, reading ends."""
        self._followed[topic] -= 1
        if not self._followed[topic]:
            del self._followed[topic]
            self._handed.pop(topic, None)
        await self._layer.group_discard(self.group(topic), channel)

    async def rejoin(self, topic: str | None, channel: str) -> None:
        """Follow again: a layer forgets members that were slow, or when it was restarted."""
        await self._layer.group_add(self.group(topic), channel)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that uses the database in the reader's thread, on its connection."""
        call = partial(with_connection, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _run(self) -> None:
        try:
            await self._read()
        finally:
            # At once, so that a socket which comes now starts another task.
            self._task = None
            self._thread.submit(connections.close_all)

    async def _read(self) -> None:
        failures = 0
        figures_at = 0.0
        while self._followed:
            try:
                started = time.monotonic()
                if started >= figures_at:
                    await self._hand_over_figures()
                    took = time.monotonic() - started
                    figures_at = started + max(FIGURES_EVERY, took / FIGURES_SHARE)
                await self._hand_over_news()
                failures = 0
            except Exception as error:
                # Whatever it was, the sockets that wait must not wait for ever.
                failures = min(failures + 1, MOST_DOUBLINGS)
                logger.warning("Feed not read error=%s", type(error).__name__)
            await asyncio.sleep(READ_EVERY * 2**failures)

    async def _hand_over_figures(self) -> None:
        try:
            self.figures = await self.call(read_figures)
        except (DatabaseError, InterfaceError):
            self.figures = outdated(self.figures)
        for topic in list(self._followed):
            await self._layer.group_send(self.group(topic), {"type": "feed.figures"})

    async def _hand_over_news(self) -> None:
        if self._cursor is None:
            # Each socket reads for itself what came before.
            self._cursor = (await self.call(feed.latest, limit=1)).cursor
            return
        news = await self.call(feed.since, self._cursor)
        parts = {topic: self._part(topic, news) for topic in self._followed}
        # Before they are sent: what a group does not get then is a gap that its sockets see.
        self._cursor = news.cursor
        for topic, part in parts.items():
            if part is not None:
                message = {"type": "feed.news", "topic": topic, "news": part.dump()}
                await self._layer.group_send(self.group(topic), message)

    def _part(self, topic: str | None, news: News) -> News | None:
        """Return what a group gets to hear, from where it was; None when there is nothing."""
        handed, at = self._handed.get(topic, (news.seen, 0.0))
        events = tuple(event for event in news.events if topic in (None, event.topic))
        if not (events or news.skipped or time.monotonic() - at >= HAND_OVER_EVERY):
            return None
        self._handed[topic] = (news.cursor, time.monotonic())
        return News(seen=handed, cursor=news.cursor, events=events, skipped=news.skipped)


def with_connection(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function, and drop the connection when it turns out to be broken."""
    try:
        return function(*args, **kwargs)
    except (DatabaseError, InterfaceError):
        # A connection that broke is of no more use; the next call opens another.
        connections.close_all()
        raise


_readers: WeakKeyDictionary[asyncio.AbstractEventLoop, Reader] = WeakKeyDictionary()


def reader_for(layer: Any) -> Reader:
    """Return the reader of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _readers:
        _readers[loop] = Reader(layer)
    return _readers[loop]
