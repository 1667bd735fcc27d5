"""Mailbox: wake those who wait for a reply when it has come.

Each process has one thread with one connection that listens for all, and only while somebody
waits. Where it cannot listen, those who wait look by themselves, and more often.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.core import mail
from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper

from ..store import notifications

SLICE = 1.0
# The connection is kept for the next request, and given back to the server in quiet times, seconds.
IDLE = 60.0
RECONNECT = 0.5
# How long to believe that there is no listening here, seconds.
DEAF = 60.0


class Mailbox:
    """Listens for one database on behalf of every thread of this process."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._settings = connection
        self._lock = threading.Lock()
        self._waiting: dict[str, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None
        self._idle_since = 0.0
        self._deaf_until = 0.0
        # Whether a reply would be heard now.
        self.hears = False

    @contextmanager
    def expecting(self, token: str, wake: Callable[[], None]) -> Iterator[None]:
        """Have ``wake`` called, in another thread, whenever it is worth looking for a reply."""
        with self._lock:
            self._waiting[token] = wake
            if self._thread is None and time.monotonic() >= self._deaf_until:
                self._thread = threading.Thread(
                    target=self._run, name="messaging-mailbox", daemon=True
                )
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._waiting[token]
                self._idle_since = time.monotonic()

    def _run(self) -> None:
        while not self._is_over():
            try:
                with notifications.connect(self._settings) as raw:
                    notifications.start_listening(raw, notifications.REPLIES)
                    self.hears = True
                    # What came before the LISTEN was not heard.
                    self._wake(None)
                    while not self._is_over():
                        for payload in notifications.listen(raw, self._slice()):
                            self._wake(payload.split(";"))
            except psycopg.NotSupportedError:
                self.hears = False
                with self._lock:
                    self._deaf_until = time.monotonic() + DEAF
                    self._thread = None
                return
            except (psycopg.Error, DatabaseError, OSError):
                self.hears = False
                self._wake(None)
                time.sleep(RECONNECT)

    def _slice(self) -> float:
        # In a test run the connection must not keep the test database from being dropped.
        return 0.02 if hasattr(mail, "outbox") else SLICE

    def _is_over(self) -> bool:
        """Whether nobody has waited for a while; the thread ends then."""
        idle = 0.0 if hasattr(mail, "outbox") else IDLE
        with self._lock:
            if self._waiting or time.monotonic() < self._idle_since + idle:
                return False
            self.hears = False
            self._thread = None
            return True

    def _wake(self, tokens: list[str] | None) -> None:
        with self._lock:
            if tokens is None:
                wakes = list(self._waiting.values())
            else:
                wakes = [self._waiting[token] for token in tokens if token in self._waiting]
        for wake in wakes:
            wake()


_mailboxes: dict[tuple[str, Any], Mailbox] = {}
_lock = threading.Lock()


def mailbox(connection: BaseDatabaseWrapper) -> Mailbox:
    """Return this process's mailbox of a database."""
    key = (connection.alias, connection.settings_dict["NAME"])
    with _lock:
        if key not in _mailboxes:
            _mailboxes[key] = Mailbox(connection)
        return _mailboxes[key]


def _forget_after_fork() -> None:
    # The thread did not come along, and the socket belongs to the parent.
    global _lock
    _lock = threading.Lock()
    _mailboxes.clear()


os.register_at_fork(after_in_child=_forget_after_fork)
