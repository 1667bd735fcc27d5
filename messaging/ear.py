"""Hear: wait until something arrives on a queue, or until it is time to look without being called.

On a connection of its own. While it cannot listen it only waits: the caller looks again anyway.
"""

import asyncio
import time
from types import TracebackType
from typing import Self

import psycopg
from django.db import DatabaseError

from .engines import wakeup
from .store import notifications
from .store.connection import connection_for

Raw = psycopg.Connection[tuple[object, ...]]
AsyncRaw = psycopg.AsyncConnection[tuple[object, ...]]
DEAF = (psycopg.Error, DatabaseError, OSError)


def _concerns(payload: str, queue_id: int) -> bool:
    """Tell whether a notification is about a queue, or about the configuration."""
    arrivals = wakeup.decode(payload)
    return arrivals is None or any(arrival.queue_id == queue_id for arrival in arrivals)


class Ear:
    """Listens for one call that waits."""

    def __init__(self, using: str | None) -> None:
        self._using = using
        self._raw: Raw | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def wait(self, queue_id: int, seconds: float) -> None:
        """Wait until something arrives; at once the first time, for what was not heard before."""
        started = time.monotonic()
        try:
            if self._raw is None:
                self._raw = notifications.connect(connection_for(self._using))
                notifications.start_listening(self._raw)
                return
            for payload in notifications.listen(self._raw, seconds):
                if _concerns(payload, queue_id):
                    return
        except DEAF:
            self._close()
            time.sleep(max(0.0, started + seconds - time.monotonic()))

    def _close(self) -> None:
        if self._raw is not None:
            self._raw.close()
            self._raw = None


class AsyncEar:
    """Listens for one coroutine that waits."""

    def __init__(self, using: str | None) -> None:
        self._using = using
        self._raw: AsyncRaw | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def wait(self, queue_id: int, seconds: float) -> None:
        """Wait until something arrives; at once the first time, for what was not heard before."""
        started = time.monotonic()
        try:
            if self._raw is None:
                self._raw = await notifications.listen_async(connection_for(self._using))
                return
            async for payload in notifications.heard(self._raw, seconds):
                if _concerns(payload, queue_id):
                    return
        except DEAF:
            await self._close()
            await asyncio.sleep(max(0.0, started + seconds - time.monotonic()))

    async def _close(self) -> None:
        if self._raw is not None:
            await self._raw.close()
            self._raw = None
