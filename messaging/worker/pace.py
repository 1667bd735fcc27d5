"""Pace: how many messages of a consumer share a transaction.

A handler that runs no SQL shares a claim with as many others as fit in about 50 ms. One that
touches the database gets a transaction of its own, or the row locks of one message would be held
while the next ones run. Which kind a consumer is, the worker learns by watching; it starts with the
careful one.
"""

from collections.abc import Sequence

from ..handling import Handled

TIME_BUDGET = 0.05
MAX_SHARED = 500
TRUST_AFTER = 10
MAX_TRUST_AFTER = 10_000


class Pace:
    """The size of the next transaction of one consumer in one thread."""

    def __init__(self, transaction_size: int | None) -> None:
        self._declared = transaction_size
        self._shared = 1
        self._without_sql = 0
        self._trust_after = TRUST_AFTER
        self._average = 0.0
        self._alone = 0

    def size(self) -> int:
        """Return how many messages to claim."""
        if self._alone:
            return 1
        return self._declared or self._shared

    def isolate(self, count: int) -> None:
        """Give each of the next ``count`` messages a transaction of its own."""
        self._alone = count

    def learn(self, handled: Sequence[Handled]) -> None:
        """Take account of what the last transaction showed."""
        self._alone = max(0, self._alone - len(handled))
        if self._declared is not None or not handled:
            return
        if any(each.used_database for each in handled):
            # Whoever did it once will do it again: trust takes twice as long each time.
            if self._shared > 1:
                self._trust_after = min(self._trust_after * 2, MAX_TRUST_AFTER)
            self._shared = 1
            self._without_sql = 0
            return
        self._without_sql += len(handled)
        took = sum(each.duration for each in handled) / len(handled)
        self._average = took if not self._average else 0.8 * self._average + 0.2 * took
        if self._without_sql >= self._trust_after:
            fitting = int(TIME_BUDGET / max(self._average, 1e-6))
            self._shared = max(1, min(self._shared * 2, fitting, MAX_SHARED))
