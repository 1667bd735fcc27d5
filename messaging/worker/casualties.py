"""Casualties: count the deliveries that worker processes died of.

The database has rolled back, or will as soon as it notices that the process is gone; its delivery
is ready again as if it had never been tried. Here it becomes a failed attempt.
"""

import logging
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from django.db import DatabaseError, InterfaceError, connections, transaction

from .. import leasing, signals
from ..acknowledgement import outcome_of_death, settle
from ..engines import engine
from ..messages import Delivered, Outcome, Settlement
from ..policies import QueuePolicy
from ..store.configuration import policies
from ..store.connection import connection_for
from .slots import Slots

logger = logging.getLogger("messaging")


@dataclass(frozen=True, slots=True)
class Casualty:
    """A delivery that was running when its process died, and how that died.

    ``overdue``: the process was killed because of this one. ``spared``: because of another.
    """

    slot: int
    delivered: Delivered
    how: str
    worker: str
    overdue: bool = False
    spared: bool = False

    def outcome(self, policy: QueuePolicy, taken: Delivered) -> Outcome:
        """Return what it comes to: a failed attempt, unless it was spared."""
        if self.spared:
            return Outcome(taken, Settlement.RETRY, counts=False)
        return outcome_of_death(policy, taken, self.how, overdue=self.overdue)


class Casualties:
    """Those not counted yet; their slots stay taken, so that no other thread runs them."""

    def __init__(self, slots: Slots, using: str | None) -> None:
        self._slots = slots
        self._using = using
        self._pending: list[Casualty] = []
        # Dead processes whose event loops may have held messages, to how they died; None: spared.
        self._holders: dict[str, str | None] = {}

    def __bool__(self) -> bool:
        return bool(self._pending or self._holders)

    @property
    def slots(self) -> set[int]:
        """The slots that are still taken."""
        return {casualty.slot for casualty in self._pending}

    def add(self, slot: int, exit_code: int | None, worker: str) -> bool:
        """Take note of what a thread of a dead process was running; return whether it was."""
        delivered = self._slots.running(slot)
        if delivered is None:
            return False
        self._pending.append(Casualty(slot, delivered, _how(exit_code), worker))
        return True

    def add_killed(self, slot: int, killed_at: float, worker: str) -> bool:
        """Take note of what a thread was running of a process killed for a hard timeout.

        Only what was overdue then is counted. The database gives the rest back, and what was held
        under a lease is released here. Return whether it is counted.
        """
        delivered = self._slots.running(slot)
        overdue = self._slots.is_overdue(slot, killed_at)
        if delivered is not None and (overdue or delivered.token is not None):
            self._pending.append(
                Casualty(slot, delivered, "hard timeout", worker, overdue, not overdue)
            )
        else:
            self._slots.clear(slot)
        return overdue

    def add_holder(self, exit_code: int | None, worker: str, *, spared: bool) -> None:
        """Take note of a dead process, under whose name its event loop holds what it was running.

        ``spared``: it was killed because of a message that a thread was running.
        """
        self._holders[worker] = None if spared else _how(exit_code)

    def settle(self) -> None:
        """Count those whose deliveries can be taken now; the others wait for the next call."""
        try:
            self._pending = [each for each in self._pending if not self._settle(each)]
            # After those of its threads, each of which is judged by itself.
            for worker in self._holders.keys() - {each.worker for each in self._pending}:
                self._settle_holder(worker)
        except (DatabaseError, InterfaceError) as error:
            logger.warning("Casualties not counted yet error=%s", signals.printable(error, 200))
        finally:
            # The next process is forked from here and must not inherit a connection.
            connections.close_all()

    def _settle_holder(self, worker: str) -> None:
        how = self._holders[worker]
        if how is None:
            leasing.release_all([worker], self._using)
        else:
            leasing.count_deaths([worker], how, self._using)
        del self._holders[worker]

    def release(self, workers: Sequence[str]) -> None:
        """Give back, uncounted, what processes held that were told to end at once."""
        try:
            leasing.release_all(workers, self._using)
        except (DatabaseError, InterfaceError) as error:
            logger.warning("Leases not given back yet error=%s", signals.printable(error, 200))
        finally:
            connections.close_all()

    def _settle(self, casualty: Casualty) -> bool:
        """Count one; return whether it is done with."""
        connection = connection_for(self._using)
        outcome: Outcome | None = None
        with transaction.atomic(using=connection.alias):
            taken, held = engine().take_lost(casualty.delivered, self._using)
            if taken is None and held:
                return False
            if taken is not None:
                known = policies(connection, ids=[taken.queue_id])
                if known:
                    outcome = casualty.outcome(known[0], taken)
                    settle(engine().source(known[0], self._using), [outcome], casualty.worker)
        self._slots.clear(casualty.slot)
        if outcome is not None and outcome.failure is not None:
            signals.report(outcome, known[0].name, casualty.worker)
        return True


def _how(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        try:
            return f"signal {-exit_code} ({signal.Signals(-exit_code).name})"
        except ValueError:
            return f"signal {-exit_code}"
    return f"exit code {exit_code}"
