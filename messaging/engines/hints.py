"""Hints: the position behind which nothing should be left, per priority of a queue.

A claim that starts at the head of its index walks over every entry deleted since the last vacuum;
with a long transaction elsewhere in the database that is all of them. So a scan starts where the
last one ended, trailing a little because ids commit out of order. What commits late or rolls back
lands behind the hint and is found by a scan without one, once a second, on at most 2 % of the time.
Correctness never depends on a hint.
"""

import time
from collections import deque

TRAIL = 0.05
SWEEP_EVERY = 1.0
SWEEP_SHARE = 50


class Hints:
    """Where to start scanning each priority of one queue."""

    def __init__(self) -> None:
        self._positions: dict[int, int] = {0: 0}
        self._recent: dict[int, deque[tuple[float, int]]] = {}
        self._next_sweep = 0.0

    @property
    def priorities(self) -> list[int]:
        """The priorities seen, highest first."""
        return sorted(self._positions, reverse=True)

    def position(self, priority: int) -> int:
        """Return the delivery id after which to scan."""
        recent = self._recent.get(priority)
        if recent:
            settled = time.monotonic() - TRAIL
            while recent and recent[0][0] <= settled:
                self._positions[priority] = max(self._positions[priority], recent.popleft()[1])
        return self._positions[priority]

    def advance(self, priority: int, last: int) -> None:
        """Remember that a claim took everything up to ``last``."""
        self._recent.setdefault(priority, deque()).append((time.monotonic(), last))

    def lower(self, priority: int, first: int) -> None:
        """Make sure that the next scan sees delivery ``first``."""
        position = self._positions.setdefault(priority, 0)
        if first <= position:
            self._positions[priority] = first - 1
        recent = self._recent.get(priority)
        if recent and any(last >= first for _, last in recent):
            recent.clear()

    def forget(self) -> None:
        """Start from the head of every priority next time."""
        for priority in self._positions:
            self._positions[priority] = 0
        self._recent.clear()

    def sweep_due(self) -> bool:
        """Tell whether it is time for a scan without hints."""
        return time.monotonic() >= self._next_sweep

    def swept(self, took: float, priorities: list[int]) -> None:
        """Note a scan without hints, and which priorities it found."""
        self._next_sweep = time.monotonic() + max(SWEEP_EVERY, took * SWEEP_SHARE)
        for priority in priorities:
            self._positions.setdefault(priority, 0)
