"""Pulses: shared memory in which each process notes that the database has its heartbeat."""

import mmap
import time


class Pulses:
    """A time of the monotonic clock for each slot, in memory shared by fork."""

    def __init__(self, count: int) -> None:
        self._times = memoryview(mmap.mmap(-1, 8 * max(1, count))).cast("d")

    def beat(self, slot: int) -> None:
        """Note that the process whose first slot this is lives."""
        self._times[slot] = time.monotonic()

    def age(self, slot: int) -> float:
        """Return the seconds since then."""
        return time.monotonic() - self._times[slot]
