"""Keep house: what the main thread of a worker process does beside the handling, when it is due."""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django.db import DatabaseError, InterfaceError, connections

from .. import leasing, maintenance, signals
from ..control.ephemeral import sweep_ephemeral
from ..engines import wakeup
from ..expiring import Expiry
from ..limits import RENEW_EVERY, Limits
from ..store import subscriptions
from ..store.connection import connection_for
from .bell import Bell
from .configuration import Configuration
from .operating import Operating
from .options import Options
from .presence import Presence
from .tally import Tally

logger = logging.getLogger("messaging")

CONFIGURE_EVERY = 1.0
COUNT_EVERY = 1.0
BEAT_EVERY = 3.0
DUE_EVERY = 1.0
SWEEP_EVERY = 1.0
EXPIRE_EVERY = 5.0
EPHEMERAL_EVERY = 5.0
RETRY_DUE = 0.1
PRUNE_EVERY = 3600.0
OPERATE_EVERY = 1.0

# The longest pause between two looks at what is due, seconds, and the shortest.
LONGEST_PAUSE = 1.0
SHORTEST_PAUSE = 0.01


@dataclass(kw_only=True)
class Errand:
    """Something to do every so many seconds, or sooner; ``at`` is of the monotonic clock."""

    do: Callable[[], None]
    every: float
    at: float = 0.0

    def take_up(self) -> bool:
        """Tell whether it is due, and then put it off until the next time."""
        now = time.monotonic()
        if now < self.at:
            return False
        self.at = now + self.every
        return True

    def expect_at(self, at: float) -> None:
        """Have it done at a time, unless it is due before."""
        self.at = min(self.at, at)

    def expect_in(self, seconds: float) -> None:
        """Have it done after some seconds, unless it is due before."""
        self.expect_at(time.monotonic() + seconds)


class Housekeeping:
    """The errands of one process, run by its main thread."""

    def __init__(
        self,
        name: str,
        options: Options,
        configuration: Configuration,
        tally: Tally,
        *,
        limits: Limits,
        presence: Presence,
        bell: Bell,
        arrived: Callable[[Sequence[wakeup.Arrival]], None],
        is_ending: Callable[[], bool],
    ) -> None:
        self._name = name
        self._using = options.using
        self._configuration = configuration
        self._tally = tally
        self._limits = limits
        self._bell = bell
        self._arrived = arrived
        self._is_ending = is_ending
        self._expiry = Expiry(options.using)
        # When retries are due that the threads have scheduled.
        self._retries_at: deque[float] = deque()
        self._configuring = Errand(do=self._configure, every=CONFIGURE_EVERY)
        self._promoting = Errand(do=self._promote, every=DUE_EVERY)
        self._beating = Errand(do=presence.beat, every=BEAT_EVERY)
        self._scheduling = Errand(do=self._fire_schedules, every=DUE_EVERY)
        operating = Operating(options.using, is_ending)
        self._operating = Errand(do=operating.look, every=OPERATE_EVERY)
        # Spread over the workers, and never at the start of all of them.
        first_pruning = time.monotonic() + PRUNE_EVERY * random.uniform(0.1, 1)  # noqa: S311
        self._errands = [
            self._configuring,
            Errand(do=self._sweep, every=SWEEP_EVERY),
            Errand(do=self._take_turns, every=RENEW_EVERY),
            self._promoting,
            Errand(do=self._expire, every=EXPIRE_EVERY),
            Errand(do=presence.record, every=COUNT_EVERY),
            self._beating,
            Errand(do=self._prune, every=PRUNE_EVERY, at=first_pruning),
        ]
        # Somebody who only drains a queue leaves these to the workers that stay.
        if not options.drain:
            self._errands += [
                self._scheduling,
                self._operating,
                Errand(do=self._end_ephemeral, every=EPHEMERAL_EVERY),
            ]

    def keep(self) -> None:
        """Do all that is due; what the database refuses is put off."""
        if self._configuration.is_expired:
            self._configuring.expect_in(0)
        while self._retries_at:
            self._promoting.expect_at(self._retries_at.popleft())
        try:
            for errand in self._errands:
                if errand.take_up():
                    errand.do()
        except (DatabaseError, InterfaceError) as error:
            self._warn("keep house", error)
            connections.close_all()

    def pause(self) -> float:
        """Return the seconds until something is due."""
        next_at = min(errand.at for errand in self._errands)
        return max(SHORTEST_PAUSE, min(next_at - time.monotonic(), LONGEST_PAUSE))

    def expect_beat(self) -> None:
        """Give a sign of life the next time: what it would say has changed."""
        self._beating.expect_in(0)

    def expect_retry(self, after: float) -> None:
        """Look again when a retry is due that would otherwise wait for the next look.

        From any thread.
        """
        if after < DUE_EVERY:
            self._retries_at.append(time.monotonic() + after)
            self._bell.ring()

    def _configure(self) -> None:
        expired = self._configuration.is_expired
        self._configuration.refresh()
        if expired:
            self._arrived([])
            self._operating.expect_in(0)

    def _sweep(self) -> None:
        """Take back what is past its lease; it may be due at once."""
        if leasing.sweep_expired(self._using):
            self._promoting.expect_in(0)

    def _take_turns(self) -> None:
        """Be the active consumer of queues that have one, or stay it until all is finished."""
        is_idle = self._configuration.is_held or self._is_ending()
        running = self._tally.running()
        mine = [
            policy
            for policy in self._configuration.known()
            if policy.single_active_consumer and (policy.name in running or not is_idle)
        ]
        if mine and self._limits.renew(mine):
            self._arrived([])

    def _promote(self) -> None:
        """Make due deliveries ready, and look again when the next one is due."""
        arrivals, more = maintenance.promote_due(self._using)
        if arrivals:
            self._arrived(arrivals)
            wakeup.announce(connection_for(self._using), arrivals)
        due_in = 0.0 if more else maintenance.seconds_until_due(self._using)
        if due_in is not None:
            if due_in <= 0 and not arrivals:
                # Somebody holds a lock on what is due: no reason to run in circles.
                due_in = RETRY_DUE
            self._promoting.expect_in(max(0.0, due_in))

    def _fire_schedules(self) -> None:
        """Send what schedules are due for, and look again at the next tick."""
        due_in = maintenance.fire_schedules(self._using)
        if due_in is not None:
            self._scheduling.expect_in(max(RETRY_DUE, due_in))

    def _expire(self) -> None:
        self._expiry.settle()

    def _prune(self) -> None:
        self._clean_up(maintenance.prune)

    def _end_ephemeral(self) -> None:
        """Delete what ephemeral subscriptions have left whose processes died."""
        if subscriptions.any_idle(connection_for(self._using)):
            self._clean_up(sweep_ephemeral)

    def _clean_up(self, clean: Callable[[str | None], object]) -> None:
        """Do it in a thread of its own: it may take a while, and what is due must not wait."""

        def work() -> None:
            try:
                clean(self._using)
            except (DatabaseError, InterfaceError) as error:
                self._warn(clean.__name__.replace("_", " "), error)
            finally:
                connections.close_all()

        threading.Thread(target=work, name=f"messaging-{clean.__name__}", daemon=True).start()

    def _warn(self, failed: str, error: Exception) -> None:
        logger.warning(
            "Worker cannot %s worker=%s error=%s",
            failed,
            self._name,
            signals.printable(error, 200),
        )
