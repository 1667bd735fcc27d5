"""Run async consumers: one event loop of a process, with many messages in flight.

The loop never waits for the database: a thread beside it claims, and settles what has ended. The
heart keeps the leases, whatever the handlers do to the loop.
"""

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from asgiref.sync import async_to_sync
from django.db import DatabaseError, InterfaceError, connections, transaction

from .. import conf, leasing, signals
from ..acknowledgement import LEASE_EXPIRED, WORKER_DIED
from ..consuming import Consumer
from ..engines import engine
from ..engines.wakeup import Arrival
from ..handling import Handled
from ..limits import Limits
from ..messages import Message
from ..settling import Lease
from ..store import deadletters, leases
from ..store.connection import connection_for
from .configuration import Configuration
from .coroutines import call
from .deadlines import Deadlines
from .heart import Heart
from .leasing import claim, seconds_of, settle_handled
from .slots import Slots
from .tally import Tally
from .work import Work

logger = logging.getLogger("messaging")

FIRST_WAIT = 0.05
MAX_RECONNECT_WAIT = 3.0


class AsyncRunner:
    """Serves async consumers until it is told to stop and all that is in flight has ended."""

    def __init__(
        self,
        consumers: Sequence[Consumer],
        configuration: Configuration,
        *,
        using: str | None = None,
        name: str = "",
        heart: Heart,
        slots: Slots,
        slot: int,
        tally: Tally | None = None,
        limits: Limits | None = None,
    ) -> None:
        self._consumers = consumers
        self._configuration = configuration
        self._using = using
        self._name = name
        self._heart = heart
        self._deadlines = Deadlines(slots, slot)
        self._tally = tally or Tally()
        self._limits = limits
        self._works: dict[str, Work] = {}
        self._arrivals: deque[Arrival] = deque()
        self._claimed: deque[tuple[Work, Message]] = deque()
        self._ended: deque[tuple[Work, Handled]] = deque()
        # Beside which a process died before: each runs with no other. Until then it is held under
        # another name, so that it is no suspect in the death of those before it.
        self._suspects: deque[tuple[Work, Message]] = deque()
        self._alone: Message | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight: Counter[str] = Counter()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awake = asyncio.Event()
        self._stopping = False

    def stop(self) -> None:
        """Claim nothing more, and end when what is in flight has."""
        self._stopping = True
        self._wake()

    def notice(self, arrivals: Sequence[Arrival]) -> None:
        """Take up what a wake-up announced."""
        self._arrivals.extend(arrivals)
        self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._awake.set)

    def run(self) -> None:
        """Work until stopped. This thread serves the handlers' ``sync_to_async``."""
        try:
            async_to_sync(self._serve)()
        finally:
            connections.close_all()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "messaging-async-database") as database:
            try:
                await self._work(database)
            finally:
                await self._loop.run_in_executor(database, connections.close_all)

    async def _work(self, database: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        wait, failures = FIRST_WAIT, 0
        while not self._stopping or self._in_flight.total() or self._ended:
            self._awake.clear()
            try:
                await loop.run_in_executor(database, self._take_turn)
                failures = 0
            except (DatabaseError, InterfaceError) as error:
                failures += 1
                await loop.run_in_executor(database, connections.close_all)
                self._start_claimed()
                await self._recover(error, failures)
                continue
            if self._start_claimed():
                wait = FIRST_WAIT
            elif not self._ended and (not self._stopping or self._in_flight.total()):
                wait = await self._pause(wait)

    def _start_claimed(self) -> bool:
        """Start what was claimed; return whether anything was."""
        found = bool(self._claimed)
        while self._claimed:
            self._start(*self._claimed.popleft())
        return found

    async def _pause(self, wait: float) -> float:
        """Wait for an arrival, an end or the next poll; return how long to wait next time."""
        try:
            async with asyncio.timeout(wait * random.uniform(0.8, 1.2)):  # noqa: S311
                await self._awake.wait()
        except TimeoutError:
            longest: float = conf.POLL_INTERVAL
            return min(wait * 2, longest)
        return FIRST_WAIT

    def _start(self, work: Work, message: Message) -> None:
        task = asyncio.create_task(self._run(work, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, work: Work, message: Message) -> None:
        try:
            handled = await call(work.consumer, message, self._deadlines)
        except BaseException as error:  # whatever it is, the message has ended
            handled = Handled(message, error, 0.0, False)
        self._ended.append((work, handled))
        self._awake.set()

    def _take_turn(self) -> None:
        """Settle what has ended and claim what there is room for. Runs beside the loop."""
        self._settle()
        if self._stopping:
            self._release_suspects()
        if self._suspects and len(self._suspects) == self._in_flight.total():
            self._admit_suspect()
        if self._stopping or self._suspects or self._is_alone:
            return
        by_id = {work.source.policy.id: work for work in self._works.values()}
        while self._arrivals:
            arrival = self._arrivals.popleft()
            if (known := by_id.get(arrival.queue_id)) and arrival.first is not None:
                known.source.notice(arrival.priority, arrival.first)
        for consumer in (*self._consumers, *self._configuration.found):
            policy = self._configuration.policy(consumer.queue)
            if policy is None or policy.paused:
                continue
            work = self._works.get(consumer.queue)
            if work is None or work.source.policy.id != policy.id:
                source = engine().source(policy, self._using)
                work = self._works[consumer.queue] = Work(consumer, source, careful=False)
            work.consumer = consumer
            work.source.policy = policy
            self._claim(work)

    def _claim(self, work: Work) -> None:
        policy = work.source.policy
        queue = work.consumer.queue
        limit = work.consumer.concurrency - self._in_flight[queue]
        limits = self._limits if policy.is_limited else None
        if limits is not None:
            if work.closed_for or not limits.is_active(policy):
                return
            permits = limits.take(policy, limit)
            if not permits.granted:
                work.close(permits.wait)
            limit = permits.granted
        if limit <= 0:
            return
        messages, outcomes = claim(work, limit, limits, worker=self._name, using=self._using)
        while work.source.tidied and not messages:
            messages, more = claim(work, limit, limits, worker=self._name, using=self._using)
            outcomes += more
        # Before anything that may fail: from here on they are ours.
        for message in messages:
            message.lease = Lease(message, policy, self._name, self._using)
            self._heart.hold(message.delivery, seconds_of(work))
        self._in_flight[queue] += len(messages)
        self._tally.started(queue, len(messages))
        for message in messages:
            if self._is_suspect(message):
                self._suspects.append((work, message))
            else:
                self._claimed.append((work, message))
        if limits is not None:
            limits.give_back(policy, limit - len(messages))
        for outcome in outcomes:
            signals.report(outcome, queue, self._name)
        self._tally.add(policy.id, outcomes)

    def _is_suspect(self, message: Message) -> bool:
        """Tell whether a process ended while it handled this message before."""
        if message.attempt == 1:
            return False
        connection = connection_for(self._using)
        try:
            error = deadletters.last_error(connection, message.id, message.delivery.queue_id)
            suspect = error in (WORKER_DIED, LEASE_EXPIRED)
            if suspect:
                leases.pass_to(connection, message.delivery, leasing.waiting(self._name))
        except (DatabaseError, InterfaceError):
            return True
        return suspect

    def _admit_suspect(self) -> None:
        """Start a suspect, now that nothing else runs."""
        _, message = self._suspects[0]
        leases.pass_to(connection_for(self._using), message.delivery, self._name)
        self._alone = message
        self._claimed.append(self._suspects.popleft())

    @property
    def _is_alone(self) -> bool:
        """Whether a suspect runs, beside which nothing is started."""
        return self._alone is not None

    def _release_suspects(self) -> None:
        """Give back, uncounted, what has not been started."""
        while self._suspects:
            work, message = self._suspects[0]
            with transaction.atomic(using=connection_for(self._using).alias):
                leasing.settle_held(
                    work.source, [], self._name, using=self._using, released=[message.delivery]
                )
            self._suspects.popleft()
            self._heart.let_go(message.delivery)
            self._in_flight[work.consumer.queue] -= 1
            self._tally.finished(work.consumer.queue, 1)

    def _settle(self) -> None:
        """Settle what has ended, queue by queue; what fails stays for the next turn."""
        count = len(self._ended)
        by_queue: dict[str, list[tuple[Work, Handled]]] = {}
        for work, handled in list(self._ended)[:count]:
            by_queue.setdefault(work.consumer.queue, []).append((work, handled))
        for queue, ended in by_queue.items():
            work = ended[-1][0]
            all_handled = [handled for _, handled in ended]
            outcomes = settle_handled(work, all_handled, worker=self._name, using=self._using)
            for each in ended:
                self._ended.remove(each)
                if each[1].message is self._alone:
                    self._alone = None
                self._heart.let_go(each[1].message.delivery)
            self._in_flight[queue] -= len(ended)
            self._tally.finished(queue, len(ended))
            for outcome in outcomes:
                signals.report(outcome, queue, self._name)
            self._tally.add(work.source.policy.id, outcomes)

    async def _recover(self, error: Exception, failures: int) -> None:
        """Get a new connection; what is in flight goes on, and its leases are kept."""
        wait = min(MAX_RECONNECT_WAIT, 0.1 * 2 ** min(failures, 10)) * random.uniform(0.5, 1)  # noqa: S311
        logger.warning(
            "Worker reconnects worker=%s in=%.1f error=%s",
            self._name,
            wait,
            signals.printable(error, 200),
        )
        await asyncio.sleep(wait)
