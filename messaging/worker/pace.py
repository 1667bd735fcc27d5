"""Pace: how many messages of a consumer share a transaction.

A handler that runs no SQL shares a claim with as many others as fit in about 50 ms. One that
touches the database gets a transaction of its own, or the row locks of one message would be held
while the next ones run. Which kind a consumer is, the worker learns by watching; it starts with the
careful one.

A batch consumer says how many it takes at once. Here a failure narrows the next batches down, and
success widens them again.
"""

from collections.abc import Sequence

from ..handling import Handled

TIME_BUDGET = 0.05
MAX_SHARED = 500
TRUST_AFTER = 10
MAX_TRUST_AFTER = 10_000


class Pace:
    """The size of the next transaction of one consumer in one thread.

    ``careful``: the first batches are small, so that a process that replaces one that died soon
    finds out what it died of.
    """

    def __init__(
        self, transaction_size: int | None, *, batch: int | None = None, careful: bool = False
    ) -> None:
        self._declared = transaction_size
        self._most = batch
        self._batch = 1 if careful or batch is None else batch
        # Messages of a batch that has failed, and that were not in one that has not.
        self._suspects = 0
        self._shared = 1
        self._without_sql = 0
        self._trust_after = TRUST_AFTER
        self._average = 0.0
        self._alone = 0

    def size(self) -> int:
        """Return how many messages to claim."""
        if self._alone:
            return 1
        if self._most is not None:
            return self._batch
        return self._declared or self._shared

    def narrow(self, count: int) -> None:
        """Take the next batches from the halves of one of ``count`` messages that has failed."""
        self._suspects = count
        self._batch = max(1, count // 2)

    def isolate(self, count: int) -> None:
        """Give each of the next ``count`` messages a transaction of its own."""
        self._alone = count

    def learn(self, handled: Sequence[Handled]) -> None:
        """Take account of what the last transaction showed."""
        self._alone = max(0, self._alone - len(handled))
        if self._most is not None:
            self._widen(handled)
            return
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

    def _widen(self, handled: Sequence[Handled]) -> None:
        """Make the next batch larger after one that has not failed, and halve what is suspect."""
        self._suspects = max(0, self._suspects - len(handled))
        if self._suspects:
            self._batch = max(1, self._suspects // 2)
        elif len(handled) > 1 or (handled and handled[0].error is None):
            self._batch = min(self._batch * 2, self._most or 1)
