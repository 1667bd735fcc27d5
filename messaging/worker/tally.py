"""Tally: what a process has done, gathered for the statistics and the heartbeat."""

import threading
from collections import Counter, defaultdict
from collections.abc import Sequence

from ..messages import Outcome, Settlement

FIELDS = {
    Settlement.ACKNOWLEDGED: "acknowledged",
    Settlement.RETRY: "failed",
    Settlement.DEAD: "dead",
    Settlement.EXPIRED: "expired",
}


class Tally:
    """Counts per queue since the last flush, and totals since the start."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[int, Counter[str]] = defaultdict(Counter)
        self._busy: defaultdict[int, float] = defaultdict(float)
        self._running: Counter[str] = Counter()
        self.handled = 0
        self.failed = 0

    def started(self, queue: str, count: int) -> None:
        """Note that ``count`` messages of a queue are in flight."""
        with self._lock:
            self._running[queue] += count

    def finished(self, queue: str, count: int) -> None:
        """Note that they are not any more."""
        with self._lock:
            self._running[queue] -= count

    def add(self, queue_id: int, outcomes: Sequence[Outcome]) -> None:
        """Count what a committed transaction came to."""
        acknowledged = len(outcomes)
        with self._lock:
            counts = self._counts[queue_id]
            for outcome in outcomes:
                # A key that is looked up by a member of an enumeration costs as much as all else.
                if outcome.settlement is not Settlement.ACKNOWLEDGED:
                    counts[FIELDS[outcome.settlement]] += 1
                    acknowledged -= 1
                if outcome.failure is not None:
                    self.failed += 1
            counts["acknowledged"] += acknowledged
            self.handled += len(outcomes)
            self._busy[queue_id] += sum([outcome.duration for outcome in outcomes])

    def running(self) -> dict[str, int]:
        """Return queue names to messages in flight."""
        with self._lock:
            return {queue: count for queue, count in self._running.items() if count}

    def flush(self) -> list[tuple[int, int, int, int, int, float]]:
        """Return (queue, acknowledged, failed, dead, expired, seconds) rows, and start anew."""
        with self._lock:
            counts, self._counts = self._counts, defaultdict(Counter)
            busy, self._busy = self._busy, defaultdict(float)
        return [
            (
                queue_id,
                each["acknowledged"],
                each["failed"],
                each["dead"],
                each["expired"],
                busy[queue_id],
            )
            for queue_id, each in counts.items()
        ]
