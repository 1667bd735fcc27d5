"""Run: one thread that delivers, handles and acknowledges, a transaction at a time."""

import logging
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple

from django.db import DatabaseError, InterfaceError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from .. import conf, signals
from ..acknowledgement import WORKER_DIED, outcome_of, settle
from ..consuming import Consumer
from ..delivery import deliver
from ..engines import Source, engine
from ..engines.wakeup import Arrival
from ..handling import Handled, TransactionLost, handle, is_conflict
from ..messages import Message, Outcome, Settlement
from ..policies import QueuePolicy
from ..store import deadletters
from ..store.connection import connection_for, run
from .allowance import Allowance
from .company import Company
from .configuration import Configuration
from .pace import Pace
from .slots import Slots
from .tally import Tally

logger = logging.getLogger("messaging")

FIRST_WAIT = 0.05
MAX_RECONNECT_WAIT = 3.0
# After so many lost transactions in a row a message is no longer thought innocent.
INNOCENT_LOSSES = 3
LOST_PATIENCE = 30.0


class Work:
    """One consumer as one thread runs it."""

    def __init__(self, consumer: Consumer, source: Source) -> None:
        self.consumer = consumer
        self.source = source
        self.pace = Pace(consumer.transaction_size)
        # Deliveries whose transaction was lost through no fault of theirs, and how often in a row.
        self.losses: Counter[int] = Counter()


class Round(NamedTuple):
    """What serving each queue once came to; ``unsettled``: something was claimed in vain."""

    settled: int
    unsettled: bool


class Runner:
    """Serves its queues in turn, one transaction each, until it is told to stop."""

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
        drain: bool = False,
    ) -> None:
        self._consumers = consumers
        self._configuration = configuration
        self._using = using
        self._name = name
        self._slots = slots or Slots(1)
        self._slot = slot
        self._tally = tally or Tally()
        self._allowance = allowance or Allowance(None)
        self._company = company
        self._drain = drain
        self._works: dict[str, Work] = {}
        self._arrivals: deque[Arrival] = deque()
        self._awake = threading.Event()
        self._stopping = False
        self._claimed = False

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
            except (OperationalError, InterfaceError) as error:
                failures += 1
                self._recover(error, failures)
                continue
            if done.settled or done.unsettled:
                wait = FIRST_WAIT
            elif self._drain:
                break
            elif self._awake.wait(wait * random.uniform(0.8, 1.2)):  # noqa: S311 - spreads the polls
                wait = FIRST_WAIT
            else:
                wait = min(wait * 2, conf.POLL_INTERVAL)
        connections.close_all()

    def run_round(self) -> Round:
        """Give each queue one transaction."""
        self._take_notice()
        settled, unsettled = 0, False
        for consumer in self._consumers:
            if self._stopping:
                break
            policy = self._configuration.policy(consumer.queue)
            if policy is None or policy.paused:
                continue
            done = self._step(self._work(consumer, policy))
            settled += done.settled
            unsettled = unsettled or done.unsettled
        return Round(settled, unsettled)

    def _work(self, consumer: Consumer, policy: QueuePolicy) -> Work:
        work = self._works.get(consumer.queue)
        if work is None or work.source.policy.id != policy.id:
            work = Work(consumer, engine().source(policy, self._using))
            self._works[consumer.queue] = work
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
        granted = self._allowance.take(work.pace.size())
        settled: list[Outcome] = []
        self._claimed = False
        with ExitStack() as company:
            try:
                settled = self._transact(work, granted, company) if granted else []
            except TransactionLost as lost:
                settled = self._after_loss(work, lost)
            finally:
                self._allowance.give_back(granted - len(settled))
                self._slots.clear(self._slot)
        for outcome in settled:
            signals.report(outcome, work.consumer.queue, self._name)
            if work.losses:
                work.losses.pop(outcome.delivered.id, None)
        if settled:
            self._tally.add(work.source.policy.id, settled)
        return Round(len(settled), self._claimed and not settled)

    def _transact(self, work: Work, limit: int, company: ExitStack) -> list[Outcome]:
        """Claim, handle and settle in one transaction; return what it came to."""
        connection = connection_for(self._using)
        queue = work.consumer.queue
        messages: Sequence[Message] = ()
        handled: list[Handled] = []
        outcomes: list[Outcome] = []
        try:
            with transaction.atomic(using=connection.alias):
                if not work.consumer.durable:
                    run(connection, "SET LOCAL synchronous_commit = off")
                messages, outcomes = deliver(work.source, limit, thorough=self._drain)
                if not messages and not outcomes:
                    return []
                self._claimed = True
                if self._company is not None and messages:
                    company.enter_context(self._join(self._company, messages[0]))
                self._tally.started(queue, len(messages))
                try:
                    handled = self._handle(work, messages, connection)
                finally:
                    self._tally.finished(queue, len(messages))
                outcomes += [
                    outcome_of(work.source.policy, each.message, each.error, each.duration)
                    for each in handled
                ]
                done = {id(each.message) for each in handled}
                rest = [m.delivery for m in messages if id(m) not in done]
                settle(work.source, outcomes, self._name, unhandled=rest)
        except DatabaseError as error:
            work.source.rewind()
            work.pace.isolate(len(messages))
            if not handled or not _is_answer(error):
                raise
            if len(handled) > 1:  # each runs alone next, so that the one at fault shows
                return []
            raise TransactionLost(
                handled[0].message, error, guilty=not is_conflict(error)
            ) from error
        except TransactionLost as lost:
            work.source.rewind()
            work.pace.isolate(len(messages))
            if lost.ended:
                self._restore(work, lost, messages, outcomes)
            raise
        work.pace.learn(handled)
        return outcomes

    def _join(self, company: Company, first: Message) -> AbstractContextManager[None]:
        """Handle beside the process's other threads, unless the message may kill them all."""
        if first.attempt > 1:
            connection = connection_for(self._using)
            error = deadletters.last_error(connection, first.id, first.delivery.queue_id)
            if error == WORKER_DIED:
                return company.alone()
        return company.beside_others()

    def _restore(
        self, work: Work, lost: TransactionLost, messages: Sequence[Message], dead: list[Outcome]
    ) -> None:
        """Put back what a handler's own commit has taken from its queue for good."""
        position = messages.index(lost.message)
        failed = [each.message for each in lost.handled if each.error is not None]
        unsettled = [message.delivery for message in (*failed, *messages[position:])]
        # Their keys' tokens are gone as well.
        good = [
            Outcome(each.message.delivery, Settlement.ACKNOWLEDGED)
            for each in lost.handled
            if each.error is None
        ]
        unsettled += [outcome.delivered for outcome in dead]
        with transaction.atomic(using=connection_for(self._using).alias):
            settle(work.source, good, self._name, unhandled=unsettled)

    def _handle(
        self, work: Work, messages: Sequence[Message], connection: BaseDatabaseWrapper
    ) -> list[Handled]:
        return handle(
            work.consumer,
            self._together(messages),
            connection,
            starting=lambda message: self._slots.start(self._slot, message.delivery),
            go_on=lambda: not self._stopping,
        )

    def _together(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return the first messages that may share a transaction.

        One that failed before runs alone, so that whatever failed it cannot take others with it.
        One that another process was running when it died waits until that is counted.
        """
        elsewhere = self._slots.running_elsewhere(self._slot)
        for position, message in enumerate(messages):
            if message.delivery.id in elsewhere:
                if position == 0:
                    self._awake.wait(FIRST_WAIT)
                return messages[:position]
            if message.attempt > 1:
                return messages[: max(1, position)]
        return messages

    def _after_loss(self, work: Work, lost: TransactionLost) -> list[Outcome]:
        """Count a failure whose transaction is gone, or let the message be tried again at once."""
        connection = connection_for(self._using)
        if connection.closed_in_transaction or not connection.is_usable():
            connection.close()
        delivered = lost.message.delivery
        if not lost.guilty:
            work.losses[delivered.id] += 1
            if work.losses[delivered.id] < INNOCENT_LOSSES:
                if not is_conflict(lost.error):
                    raise OperationalError(str(lost.error)) from lost.error  # reconnect
                time.sleep(random.uniform(0, 0.02))  # noqa: S311 - lets the winner finish
                return []
        outcome = outcome_of(work.source.policy, lost.message, lost.error, 0.0)
        deadline = time.monotonic() + LOST_PATIENCE
        while time.monotonic() < deadline and not self._stopping:
            with transaction.atomic(using=connection.alias):
                taken, held = engine().take_lost(delivered, self._using)
                if taken is not None:
                    settle(work.source, [outcome._replace(delivered=taken)], self._name)
            if taken is not None:
                return [outcome]
            if not held:
                break
            time.sleep(0.05)
        return []

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


def _is_answer(error: DatabaseError) -> bool:
    """Tell whether the server refused this transaction, rather than the connection."""
    sqlstate = getattr(error.__cause__, "sqlstate", None)
    # Shut down, terminated, connection lost, idle too long: nothing that a message could help.
    return sqlstate is not None and not sqlstate.startswith(("57P", "08", "25P03"))
