"""Time out: raise HandlerTimeout in a handler that takes too long.

A thread watches. It cancels the statement that the database is at work on, whose caller then
raises; anywhere else it raises the exception between two Python instructions of the handler's
thread. Whoever takes the only ticket of a call decides: the watcher, that it is too late, or the
handler's thread, that it has returned. So the exception never comes after the handler's end.
"""

import contextlib
import ctypes
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg.pq import TransactionStatus

from .exceptions import HandlerTimeout, Reject, Retry

# How long a cancelled statement may take to end, seconds.
CANCEL_PATIENCE = 5.0
IDLE = 3_600.0
ACTIVE = TransactionStatus.ACTIVE


class TimeLimit:
    """The time of one call in this thread, from begin() to end(), and close() in any case."""

    def __init__(self, seconds: float, connection: BaseDatabaseWrapper) -> None:
        self.seconds = seconds
        self.deadline = 0.0
        self.passed = False
        self._thread = threading.get_ident()
        self._connection = connection
        self._raw = connection.connection
        self._in_sql = False
        # Popped by one thread only, and without a lock that an exception could leave shut: who
        # decides, and after that, who raises.
        self._ticket = [True]
        self._exception = [True]
        self._done = threading.Event()

    @property
    def is_open(self) -> bool:
        """Whether the call neither has returned nor is late."""
        return bool(self._ticket)

    def begin(self) -> None:
        """Start the time. From here to the end of end() the exception may come."""
        self._connection.execute_wrappers.append(self._run_statement)
        self.deadline = time.monotonic() + self.seconds
        _watcher().watch(self._thread, self)

    def end(self) -> None:
        """Say that the handler has returned; afterwards nothing is raised any more.

        Raises HandlerTimeout itself when the watcher was faster.
        """
        if not _taken(self._ticket):
            self._done.wait(CANCEL_PATIENCE * 2)
            _raise_in(self._thread, None)  # what has not arrived yet

    def close(self) -> None:
        """Leave the connection as it was."""
        with contextlib.suppress(ValueError):
            self._connection.execute_wrappers.remove(self._run_statement)

    def expire(self) -> None:
        """End the handler, unless it has returned meanwhile. Called by the watcher."""
        if not _taken(self._ticket):
            return
        self.passed = True
        try:
            self._cancel()
            if not self._in_sql and _taken(self._exception):
                _raise_in(self._thread, HandlerTimeout)
        finally:
            self._done.set()

    def _cancel(self) -> None:
        """Cancel the statement that runs: its thread executes no Python until it has ended."""
        deadline = time.monotonic() + CANCEL_PATIENCE
        while self._exception and (left := deadline - time.monotonic()) > 0:
            if not self._in_sql and self._raw.pgconn.transaction_status != ACTIVE:
                break
            with contextlib.suppress(psycopg.Error):
                self._raw.cancel_safe(timeout=left)
            time.sleep(0.002)

    def _run_statement(
        self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any
    ) -> Any:
        """Raise here and not within: an interrupted statement would leave a broken connection."""
        self._in_sql = True
        try:
            self._raise_if_passed()
            result = execute(sql, params, many, context)
            self._raise_if_passed()
            return result
        except Exception as error:
            self._raise_if_passed(error)
            raise
        finally:
            self._in_sql = False

    def _raise_if_passed(self, error: Exception | None = None) -> None:
        if self.passed:
            if _taken(self._exception):
                raise HandlerTimeout(self.seconds) from error
            # Once only. If the watcher does it just now, it has to come before the statement.
            self._done.wait(CANCEL_PATIENCE * 2)

    def explain(self, error: BaseException) -> BaseException:
        """Return what a call came to that ended with this error: late, unless it says otherwise."""
        if not self.passed or isinstance(error, Retry | Reject):
            return error
        if isinstance(error, HandlerTimeout) and error.seconds is not None:
            return error
        explained = HandlerTimeout(self.seconds).with_traceback(error.__traceback__)
        if not isinstance(error, HandlerTimeout):
            explained.__cause__ = error
        return explained


class Watcher(threading.Thread):
    """Watches the calls of all threads of this process."""

    def __init__(self) -> None:
        super().__init__(name="messaging-timeouts", daemon=True)
        self.pid = os.getpid()
        self._limits: dict[int, TimeLimit] = {}
        self._changed = threading.Event()
        self._next = 0.0

    def watch(self, thread: int, limit: TimeLimit) -> None:
        """Watch the call that a thread begins; it runs one at a time."""
        self._limits[thread] = limit
        if limit.deadline < self._next:
            self._changed.set()

    def run(self) -> None:
        """Expire what is late, for as long as the process lives."""
        while True:
            self._changed.clear()
            now = time.monotonic()
            for limit in self._open():
                if limit.deadline <= now:
                    limit.expire()
            self._next = self._first(now + IDLE)
            # Once more: one that came before the line above did not know that it has to wake this.
            # Never later than said before, or one that relied on it would be overlooked.
            self._next = min(self._next, self._first(self._next))
            self._changed.wait(max(0.0, self._next - time.monotonic()))

    def _first(self, default: float) -> float:
        return min((limit.deadline for limit in self._open()), default=default)

    def _open(self) -> list[TimeLimit]:
        return [limit for limit in list(self._limits.values()) if limit.is_open]


def _taken(tickets: list[bool]) -> bool:
    """Take the only ticket there is; say whether nobody has before."""
    try:
        return tickets.pop()
    except IndexError:
        return False


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    raised = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), raised)


def _watcher() -> Watcher:
    """Return this process's watcher; a fork leaves the thread behind."""
    global _current
    with _starting:
        if _current is None or _current.pid != os.getpid():
            _current = Watcher()
            _current.start()
        return _current


_starting = threading.Lock()
_current: Watcher | None = None
