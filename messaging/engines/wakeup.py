"""Wake-up: tell the workers and the statistics what has arrived, after the commit.

A NOTIFY inside the publishers' transactions would take a server-wide lock at commit and serialise
them. So each publishing process has one thread with one connection that sends for all, once a
commit is done and at most once in 10 ms. Polling stands behind it: a lost notification costs
latency and never a message.
"""

import atexit
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import psycopg
from django.core import mail
from django.db.backends.base.base import BaseDatabaseWrapper

from ..store import notifications

logger = logging.getLogger("messaging")

COALESCE = 0.01
COUNT_EVERY = 1.0
# The connection is kept for bursts and given back to the server in quiet times, seconds.
IDLE = 60.0
EVERYTHING = "*"
# Tokens of 48 characters, in a payload.
REPLIES_AT_ONCE = 100
# Comes after every id: where a delivery gets its id at the commit only.
LATEST = 2**62


class Arrival(NamedTuple):
    """Deliveries have come to a queue at a priority; ready from id ``first`` on, or None: later."""

    queue_id: int
    priority: int
    first: int | None
    number: int = 0


def encode(arrivals: Mapping[tuple[int, int], int]) -> list[str]:
    """Return the payloads that announce the first delivery of each (queue, priority)."""
    payloads: list[list[str]] = [[]]
    size = 0
    for (queue_id, priority), first in arrivals.items():
        text = f"{queue_id}:{priority}:{first}"
        if size + len(text) + 1 > notifications.MAX_PAYLOAD:
            payloads.append([])
            size = 0
        payloads[-1].append(text)
        size += len(text) + 1
    return [";".join(texts) for texts in payloads if texts]


def decode(payload: str) -> list[Arrival] | None:
    """Return the arrivals of a payload; None: configuration changed, look at everything."""
    try:
        parts = (map(int, text.split(":")) for text in payload.split(";"))
        return [Arrival(queue_id, priority, first) for queue_id, priority, first in parts]
    except ValueError:
        return None


class Coalescer:
    """Sends wake-ups and counts for one database on behalf of every thread of this process."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._settings = connection
        self._process = f"{socket.gethostname()}/{os.getpid()}"
        self._arrivals: dict[tuple[int, int], int] = {}
        self._changed = False
        self._replies: list[str] = []
        self._published: Counter[int] = Counter()
        self._count_at = 0.0
        # The lock by itself where nobody waits: a condition takes it in Python.
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        # Whoever ends the process sends beside the thread, on the same connection.
        self._sending = threading.Lock()
        self._thread: threading.Thread | None = None
        self._raw: psycopg.Connection[tuple[object, ...]] | None = None

    def announce(self, arrivals: Iterable[Arrival]) -> None:
        """Gather arrivals for the next wake-up and count them."""
        with self._lock:
            asleep = not self._arrivals
            for queue_id, priority, first, number in arrivals:
                if number:
                    self._published[queue_id] += number
                if first is not None:
                    known = self._arrivals.get((queue_id, priority))
                    if known is None or first < known:
                        self._arrivals[queue_id, priority] = first
            if asleep:
                self._start()

    def announce_change(self) -> None:
        """Have every worker read its queues' configuration again."""
        with self._condition:
            self._changed = True
            self._start()

    def announce_reply(self, token: str) -> None:
        """Wake whoever waits for a reply."""
        with self._condition:
            self._replies.append(token)
            self._start()

    def _start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="messaging-wakeup", daemon=True)
            self._thread.start()
        self._condition.notify()

    def _run(self) -> None:
        # In a test run (Django gives it an outbox) the connection closes at once: it would keep
        # the test database from being dropped.
        in_tests = hasattr(mail, "outbox")
        while True:
            with self._condition:
                if not self._urgent() and self._published and not in_tests:
                    self._condition.wait_for(self._urgent, self._count_at - time.monotonic())
                elif not self._pending():
                    self._condition.wait_for(self._pending, 0 if in_tests else IDLE)
                    if not self._pending():
                        self._close()
                        self._condition.wait_for(self._pending)
            self.flush(count=in_tests or time.monotonic() >= self._count_at)
            time.sleep(COALESCE)

    def _urgent(self) -> bool:
        return bool(self._arrivals) or self._changed or bool(self._replies)

    def _pending(self) -> bool:
        return self._urgent() or bool(self._published)

    def flush(self, *, count: bool) -> None:
        """Send what has gathered; on failure drop it, since the workers poll as well."""
        with self._sending:
            self._flush(count)

    def _flush(self, count: bool) -> None:
        published: Counter[int] = Counter()
        with self._condition:
            payloads = encode(self._arrivals)
            replies, self._replies = self._replies, []
            if self._changed:
                payloads.append(EVERYTHING)
            self._arrivals = {}
            self._changed = False
            if count:
                published, self._published = self._published, published
                self._count_at = time.monotonic() + COUNT_EVERY
        try:
            self._send(payloads, replies, published)
        except Exception as error:  # whatever it is, the thread has to live for the next one
            logger.warning("Wake-up not sent, workers will poll error=%s", error)
            self._close()

    def _send(self, payloads: list[str], replies: list[str], published: Counter[int]) -> None:
        if not payloads and not replies and not published:
            return
        if self._raw is None or self._raw.closed:
            self._raw = notifications.connect(self._settings)
        for payload in payloads:
            notifications.notify(self._raw, payload)
        for first in range(0, len(replies), REPLIES_AT_ONCE):
            together = ";".join(replies[first : first + REPLIES_AT_ONCE])
            notifications.notify(self._raw, together, notifications.REPLIES)
        if published:
            notifications.record_published(self._raw, self._process, published)

    def _close(self) -> None:
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    def finish(self) -> None:
        """Send what is left when the process ends."""
        with self._sending:
            self._flush(count=True)
            self._close()


_coalescers: dict[tuple[str, Any], Coalescer] = {}
_lock = threading.Lock()


def announce(connection: BaseDatabaseWrapper, arrivals: Iterable[Arrival]) -> None:
    """Tell the workers that deliveries have arrived."""
    _coalescer(connection).announce(arrivals)


def announce_change(connection: BaseDatabaseWrapper) -> None:
    """Tell the workers that queues were changed, paused or resumed."""
    _coalescer(connection).announce_change()


def announce_reply(connection: BaseDatabaseWrapper, token: str) -> None:
    """Tell whoever waits for the reply to a request that it has come."""
    _coalescer(connection).announce_reply(token)


def _coalescer(connection: BaseDatabaseWrapper) -> Coalescer:
    key = (connection.alias, connection.settings_dict["NAME"])
    if coalescer := _coalescers.get(key):
        return coalescer
    with _lock:
        return _coalescers.setdefault(key, Coalescer(connection))


def finish() -> None:
    """Send what is left, when this process ends."""
    for coalescer in list(_coalescers.values()):
        coalescer.finish()


def _forget_after_fork() -> None:
    # The threads did not come along, and the sockets belong to the parent.
    global _lock
    _lock = threading.Lock()
    _coalescers.clear()


atexit.register(finish)
os.register_at_fork(after_in_child=_forget_after_fork)
