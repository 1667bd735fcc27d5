"""Work: what one thread remembers of a consumer, and what a round of them came to."""

import time
from collections import Counter
from typing import NamedTuple

from ..consuming import Consumer
from ..engines import Source
from .pace import Pace


class Work:
    """One consumer as one thread runs it; ``careful``: in a process that may die of a message."""

    def __init__(self, consumer: Consumer, source: Source, *, careful: bool) -> None:
        self.consumer = consumer
        self.source = source
        size = consumer.concurrency if consumer.is_async else consumer.transaction_size
        self.pace = Pace(size, batch=consumer.batch, careful=careful)
        # Deliveries whose transaction was lost through no fault of theirs, and how often in a row.
        self.losses: Counter[int] = Counter()
        self._closed_until = 0.0

    def close(self, seconds: float) -> None:
        """Note that a limit lets nothing through for so long."""
        self._closed_until = time.monotonic() + seconds

    @property
    def closed_for(self) -> float:
        """The seconds until it is worth asking again; 0: now."""
        return max(0.0, self._closed_until - time.monotonic())


class Round(NamedTuple):
    """What serving the queues came to.

    ``unsettled``: something was claimed in vain. ``closed_for``: a limit holds a queue back for so
    many seconds; None: of no queue.
    """

    settled: int
    unsettled: bool
    closed_for: float | None = None

    def plus(self, other: "Round") -> "Round":
        """Return both as one."""
        closed = [each for each in (self.closed_for, other.closed_for) if each is not None]
        return Round(
            self.settled + other.settled,
            self.unsettled or other.unsettled,
            min(closed, default=None),
        )
