"""Allowance: how many more messages the worker may handle, over all of its processes."""

import copy
import fcntl
import mmap
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Allowance:
    """A number in memory shared by fork; None is unlimited.

    What the thread of each slot has reserved stands beside it, because a killed process gives
    nothing back.
    """

    def __init__(self, limit: int | None, slots: int = 1) -> None:
        self._slot = 0
        self._is_limited = limit is not None
        if limit is None:
            return
        self._numbers = memoryview(mmap.mmap(-1, 8 * (1 + slots))).cast("q")
        self._numbers[0] = limit
        self._threads = threading.Lock()
        self._processes = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker

    def of_slot(self, slot: int) -> "Allowance":
        """Return the same allowance as the thread of that slot uses it."""
        allowance = copy.copy(self)
        allowance._slot = slot
        return allowance

    def take(self, wanted: int) -> int:
        """Reserve up to ``wanted`` messages; return how many may be claimed."""
        if not self._is_limited:
            return wanted
        with self._locked():
            granted = max(0, min(wanted, self._numbers[0]))
            self._numbers[0] -= granted
            self._numbers[1 + self._slot] = granted
            return granted

    def give_back(self, unused: int) -> None:
        """Return what was reserved and not handled."""
        if self._is_limited:
            with self._locked():
                self._numbers[0] += unused
                self._numbers[1 + self._slot] = 0

    def recover(self, *, handled: int) -> None:
        """Return what the thread had reserved whose process has ended."""
        if self._is_limited and (reserved := self._numbers[1 + self._slot]):
            self.give_back(reserved - handled)

    @property
    def used_up(self) -> bool:
        """Whether nothing may be handled any more."""
        return self._is_limited and self._numbers[0] <= 0

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # Of the kernel, which releases it when a process is killed while it holds it.
        with self._threads:
            fcntl.lockf(self._processes, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._processes, fcntl.LOCK_UN)
