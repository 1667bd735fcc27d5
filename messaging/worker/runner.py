"""Run: one thread that delivers, handles and acknowledges, a transaction at a time."""

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence

from django.db import DatabaseError, InterfaceError, connections

from .. import conf, signals
from ..consuming import Consumer
from ..engines import engine
from ..engines.wakeup import Arrival
from ..handling import TransactionLost
from ..limits import Limits
from ..messages import Outcome, Settlement
from ..policies import QueuePolicy
from ..store.connection import connection_for
from . import losses
from .allowance import Allowance
from .company import Company
from .configuration import Configuration
from .heart import Heart
from .leasing import Leaseholder
from .slots import Slots
from .tally import Tally
from .turns import turns
from .work import Round, Work

logger = logging.getLogger("messaging")

FIRST_WAIT = 0.05
MAX_RECONNECT_WAIT = 3.0


class Runner:
    """Serves its queues in turn, by their weights, until it is told to stop.

    Without ``limits`` it handles whatever it finds, as a test wants it. ``retrying`` is told in how
    many seconds the first of some failed messages is due again. ``finds``: it runs the consumers
    too that rows make, which otherwise an event loop does.
    """

    def __init__(
        self,
        consumers: Sequence[Consumer],
        configuration: Configuration,
        *,
        using: str | None = None,
        name: str = "",
        slots: Slots | None = None,
        slot: int = 0,
        tally: Tally | None = None,
        allowance: Allowance | None = None,
        company: Company | None = None,
        limits: Limits | None = None,
        heart: Heart | None = None,
        retrying: Callable[[float], object] = lambda after: None,
        drain: bool = False,
        finds: bool = False,
    ) -> None:
        self._finds = finds
        self._consumers = consumers
        self._configuration = configuration
        self._using = using
        self._name = name
        self._slots = slots or Slots(1)
        # In a test there is no process that could be replaced.
        self._careful = slots is not None
        self._slot = slot
        self._tally = tally or Tally()
        self._allowance = allowance or Allowance(None)
        self._limits = limits
        self._retrying = retrying
        self._drain = drain
        self._works: dict[str, Work] = {}
        self._arrivals: deque[Arrival] = deque()
        self._awake = threading.Event()
        self._stopping = False
        self._transactor = Leaseholder(
            heart=heart,
            using=using,
            name=name,
            slots=self._slots,
            slot=slot,
            tally=self._tally,
            company=company,
            thorough=drain,
            go_on=lambda: not self._stopping,
            pause=self._awake.wait,
        )

    def stop(self) -> None:
        """Claim nothing more; the message being handled is the last."""
        self._stopping = True
        self._awake.set()

    def notice(self, arrivals: Sequence[Arrival]) -> None:
        """Take up what a wake-up announced."""
        self._arrivals.extend(arrivals)
        self._awake.set()

    def run(self) -> None:
        """Work until stopped, or in drain mode until nothing is ready."""
        wait, failures = FIRST_WAIT, 0
        while not self._stopping and not self._allowance.used_up:
            self._awake.clear()
            try:
                done = self.run_round()
                failures = 0
            except (DatabaseError, InterfaceError) as error:
                failures += 1
                self._recover(error, failures)
                continue
            if done.settled or done.unsettled:
                wait = FIRST_WAIT
            elif self._drain and done.closed_for is None and not self._configuration.is_held:
                break
            elif self._awake.wait(self._pause(wait, done)):
                wait = FIRST_WAIT
            else:
                wait = min(wait * 2, conf.POLL_INTERVAL)
        connections.close_all()

    def _pause(self, wait: float, done: Round) -> float:
        wait *= random.uniform(0.8, 1.2)  # noqa: S311 - spreads the polls
        return wait if done.closed_for is None else min(wait, done.closed_for)

    def run_round(self) -> Round:
        """Give each queue as many transactions as it weighs; one that has nothing, no second."""
        self._take_notice()
        works = [
            self._work(consumer, policy)
            for consumer in (*self._consumers, *(self._configuration.found if self._finds else ()))
            if (policy := self._configuration.policy(consumer.queue)) and not policy.paused
        ]
        done = Round(0, False)
        idle: set[int] = set()
        for position in turns([work.source.policy.weight for work in works]):
            if self._stopping or self._configuration.is_held:
                break
            if position in idle:
                continue
            step = self._step(works[position])
            if not step.settled and not step.unsettled:
                idle.add(position)
            done = done.plus(step)
        return done

    def _work(self, consumer: Consumer, policy: QueuePolicy) -> Work:
        work = self._works.get(consumer.queue)
        if work is None or work.source.policy.id != policy.id:
            source = engine().source(policy, self._using)
            work = Work(consumer, source, careful=self._careful)
            self._works[consumer.queue] = work
        work.consumer = consumer
        work.source.policy = policy
        return work

    def _take_notice(self) -> None:
        by_id = {work.source.policy.id: work for work in self._works.values()}
        while self._arrivals:
            arrival = self._arrivals.popleft()
            work = by_id.get(arrival.queue_id)
            if work is not None and arrival.first is not None:
                work.source.notice(arrival.priority, arrival.first)

    def _step(self, work: Work) -> Round:
        """Give a queue one transaction, if its limits let it."""
        policy = work.source.policy
        limits = self._limits if policy.is_limited else None
        if limits is not None:
            if work.closed_for:
                return Round(0, False, work.closed_for)
            if not limits.is_active(policy):
                return Round(0, False)
        granted = self._allowance.take(work.pace.size())
        settled: list[Outcome] = []
        try:
            permitted = self._permitted(work, limits, granted)
            if permitted:
                settled = self._transactor.transact(work, limits, permitted)
        except TransactionLost as lost:
            settled = losses.count(
                work,
                lost,
                self._name,
                connection_for(self._using),
                go_on=lambda: not self._stopping,
            )
        finally:
            self._allowance.give_back(granted - len(settled))
            self._slots.clear(self._slot)
        self._report(work, settled)
        if limits is not None:
            limits.give_back(policy, permitted - len(settled))
        closed_for = work.closed_for if limits is not None and work.closed_for else None
        unsettled = bool(permitted) and self._transactor.claimed and not settled
        return Round(len(settled), unsettled, closed_for)

    def _permitted(self, work: Work, limits: Limits | None, granted: int) -> int:
        """Return how many messages the queue's rate lets through now."""
        if limits is None or not granted:
            return granted
        permits = limits.take(work.source.policy, granted)
        if not permits.granted:
            work.close(permits.wait)
        return permits.granted

    def _report(self, work: Work, settled: Sequence[Outcome]) -> None:
        signals.report_all(settled, work.consumer.queue, self._name)
        if work.losses:
            for outcome in settled:
                work.losses.pop(outcome.delivered.id, None)
        if settled:
            self._tally.add(work.source.policy.id, settled)
        if waits := [o.after for o in settled if o.settlement is Settlement.RETRY]:
            self._retrying(min(waits))

    def _recover(self, error: Exception, failures: int) -> None:
        """Get a new connection; what was claimed is ready again, uncounted."""
        wait = min(MAX_RECONNECT_WAIT, 0.1 * 2 ** min(failures, 10)) * random.uniform(0.5, 1)  # noqa: S311
        logger.warning(
            "Worker reconnects worker=%s in=%.1f error=%s",
            self._name,
            wait,
            signals.printable(error, 200),
        )
        connections[connection_for(self._using).alias].close()
        for work in self._works.values():
            work.source.rewind()
        if not self._stopping:
            self._awake.wait(wait)
