"""Hub: reads the topic messages once for all streams of this process.

It runs while there are streams, as one task of the event loop with one thread and one
connection. What is too much for one hand-over is left out: the streams see the gap, and read for
themselves.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, Protocol, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from django.db import connections

from .. import following
from ..following import Position, Stretch
from .reader import MOST_DOUBLINGS, READ_EVERY, with_connection

logger = logging.getLogger("messaging")

P = ParamSpec("P")
T = TypeVar("T")

# More than this in one reading is left to the streams, each at its own pace.
MOST_EVENTS = 1_000


class Listener(Protocol):
    """What the hub hands its stretches to."""

    user: str

    def offer(self, stretch: Stretch) -> None: ...


class Hub:
    """What the streams of one event loop share."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="messaging-hub")
        self._task: asyncio.Task[None] | None = None
        # Weak, so that a response that nobody begins to read takes up no place.
        self._listeners: WeakSet[Listener] = WeakSet()

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    @property
    def is_running(self) -> bool:
        return self._task is not None

    def listeners_of(self, user: str) -> int:
        """Count the streams of one user."""
        return sum(listener.user == user for listener in self._listeners)

    def join(self, listener: Listener) -> None:
        """Offer a listener all that comes from now on."""
        self._listeners.add(listener)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def leave(self, listener: Listener) -> None:
        """Undo :meth:`join`; without any listener, reading ends."""
        self._listeners.discard(listener)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function that uses the database in the hub's thread, on its connection."""
        call = partial(with_connection, function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    async def _run(self) -> None:
        try:
            await self._read()
        finally:
            # At once, so that a stream which comes now starts another task.
            self._task = None
            self._thread.submit(connections.close_all)

    async def _read(self) -> None:
        failures = 0
        position: Position | None = None
        while self._listeners:
            try:
                position = await self._hand_over(position)
                failures = 0
            except Exception as error:
                # Whatever it was, the streams that wait must not wait for ever.
                failures = min(failures + 1, MOST_DOUBLINGS)
                logger.warning("Events not read error=%s", type(error).__name__)
            await asyncio.sleep(READ_EVERY * 2**failures)

    async def _hand_over(self, position: Position | None) -> Position:
        if position is None:
            return await self.call(following.here)
        found = await self.call(following.stretch, position, limit=MOST_EVENTS)
        if found.end.upto is not None:
            return Position(seen=found.end.upto)
        for listener in tuple(self._listeners):
            listener.offer(found)
        return found.end


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def running_hub() -> Hub:
    """Return the hub of the running event loop."""
    return _hubs.setdefault(asyncio.get_running_loop(), Hub())
