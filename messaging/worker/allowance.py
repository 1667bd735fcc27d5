"""Allowance: how many more messages the worker may handle, over all of its processes."""

import multiprocessing


class Allowance:
    """A number shared by fork; None is unlimited."""

    def __init__(self, limit: int | None) -> None:
        self._left = None
        if limit is not None:
            self._left = multiprocessing.get_context("fork").Value("q", limit)

    def take(self, wanted: int) -> int:
        """Reserve up to ``wanted`` messages; return how many may be claimed."""
        if self._left is None:
            return wanted
        with self._left.get_lock():
            granted = min(wanted, self._left.value)
            self._left.value -= granted
            return granted

    def give_back(self, unused: int) -> None:
        """Return what was reserved and not handled."""
        if self._left is not None and unused:
            with self._left.get_lock():
                self._left.value += unused

    @property
    def used_up(self) -> bool:
        """Whether nothing may be handled any more."""
        return self._left is not None and self._left.value <= 0
