"""Heart: a thread that keeps the leases of a process while its handlers are at work.

On a connection of its own: the handlers' are busy, or hold a transaction.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DatabaseError, InterfaceError, connections

from .. import signals
from ..messages import Delivered
from ..store import leases
from ..store.connection import connection_for

logger = logging.getLogger("messaging")

# A lease is kept when a third of it is over: two beats may be lost.
BEATS = 3
RETRY = 0.5
# The connection is given back to the server when no lease has been held for so long, seconds.
IDLE = 60.0


class Heart(threading.Thread):
    """Extends what is held, each lease in its own time, all that are due in one statement."""

    def __init__(self, using: str | None, worker: str) -> None:
        super().__init__(name="messaging-heart", daemon=True)
        self._using = using
        self._worker = worker
        self._held: dict[int, tuple[Delivered, float]] = {}
        self._due_at: dict[int, float] = {}
        self._changed = threading.Condition()
        self._stopping = False

    @contextmanager
    def beating(self, delivered: Delivered, seconds: float) -> Iterator[None]:
        """Keep a lease of so many seconds during a block."""
        self.hold(delivered, seconds)
        try:
            yield
        finally:
            self.let_go(delivered)

    def hold(self, delivered: Delivered, seconds: float) -> None:
        """Keep a lease from now on."""
        token = int(delivered.token or 0)
        with self._changed:
            self._held[token] = (delivered, seconds)
            self._due_at[token] = time.monotonic() + seconds / BEATS
            self._changed.notify()

    def let_go(self, delivered: Delivered) -> None:
        """Let a lease end in its time."""
        token = int(delivered.token or 0)
        with self._changed:
            self._held.pop(token, None)
            self._due_at.pop(token, None)

    def stop(self) -> None:
        """End the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self) -> None:
        """Beat until stopped."""
        while due := self._next():
            try:
                leases.beat(connection_for(self._using), due)
            except (DatabaseError, InterfaceError) as error:
                logger.warning(
                    "Worker cannot keep its leases worker=%s error=%s",
                    self._worker,
                    signals.printable(error, 200),
                )
                connections.close_all()
                self._put_off(due, RETRY)
        connections.close_all()

    def _next(self) -> list[tuple[Delivered, float]]:
        """Wait until leases are due and return them; nothing: it was stopped."""
        with self._changed:
            while not self._stopping:
                now = time.monotonic()
                due = [token for token, at in self._due_at.items() if at <= now]
                if due:
                    for token in due:
                        self._due_at[token] = now + self._held[token][1] / BEATS
                    return [self._held[token] for token in due]
                if self._due_at:
                    self._changed.wait(min(self._due_at.values()) - now)
                elif not self._changed.wait(IDLE):
                    connections.close_all()
        return []

    def _put_off(self, due: list[tuple[Delivered, float]], seconds: float) -> None:
        with self._changed:
            for delivered, _ in due:
                if delivered.token in self._due_at:
                    self._due_at[delivered.token] = time.monotonic() + seconds
            if not self._stopping:
                self._changed.wait(seconds)
