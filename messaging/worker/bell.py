"""Bell: wakes a main thread that waits, from other threads and from signal handlers.

A `threading.Event` must not be set in a signal handler: the thread that was interrupted may hold
its lock.
"""

import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from typing import Any


class Bell:
    """Made and waited for by one thread, rung by any."""

    def __init__(self) -> None:
        self._listening, self._ringing = socket.socketpair()
        self._listening.setblocking(False)
        self._ringing.setblocking(False)

    def ring(self) -> None:
        """Wake the thread that waits, or the next time it does."""
        # Full: it was rung often enough.
        with suppress(BlockingIOError):
            self._ringing.send(b"\0")

    def wait(self, timeout: float, others: Sequence[Any] = ()) -> None:
        """Wait until the bell rings, one of the others is ready, or time is up."""
        wait([self._listening, *others], timeout)
        with suppress(BlockingIOError):
            self._listening.recv(4096)

    @contextmanager
    def rung_by_signals(self) -> Iterator[None]:
        """Have every signal with a handler ring the bell; for the main thread only."""
        before = signal.set_wakeup_fd(self._ringing.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)

    def close(self) -> None:
        """Give both ends back."""
        self._listening.close()
        self._ringing.close()
