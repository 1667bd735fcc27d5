"""One worker process: runners in threads, and a main thread that keeps house for them."""

import contextlib
import faulthandler
import gc
import json
import logging
import os
import random
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
from django.db import DatabaseError, InterfaceError, connections

import messaging

from .. import leasing, maintenance, signals
from ..consuming import Consumer
from ..control.ephemeral import sweep_ephemeral
from ..engines import wakeup
from ..expiring import Expiry
from ..limits import RENEW_EVERY, Limits
from ..store import subscriptions, workers
from ..store.connection import connection_for
from .allowance import Allowance
from .asynchronous import AsyncRunner
from .bell import Bell
from .company import Company
from .configuration import Configuration, Finder
from .heart import Heart
from .listener import Listener
from .memory import resident_bytes
from .operating import Operating
from .orders import OBEYED
from .pulses import Pulses
from .runner import Runner
from .slots import Slots
from .tally import Tally

logger = logging.getLogger("messaging")

# How a process ends that wants to be replaced: it has grown too large.
RETIRED = 75

CONFIGURE_EVERY = 1.0
COUNT_EVERY = 1.0
BEAT_EVERY = 3.0
DUE_EVERY = 1.0
SWEEP_EVERY = 1.0
EXPIRE_EVERY = 5.0
# How many objects more than before have the collector look for what is garbage.
GARBAGE = 10_000
EPHEMERAL_EVERY = 5.0
RETRY_DUE = 0.1
PRUNE_EVERY = 3600.0
OPERATE_EVERY = 1.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `runworker` was asked for; grace in seconds, memory of each process in bytes.

    ``find`` finds the consumers that come and go with rows, all of them asynchronous.
    """

    consumers: Sequence[Consumer]
    find: Finder | None = None
    processes: int = 1
    threads: int = 1
    drain: bool = False
    max_messages: int | None = None
    max_memory: int | None = None
    grace: float = 30.0
    name: str | None = None
    health: tuple[str, int] | None = None
    using: str | None = None

    def shared_out(self) -> tuple[list[Consumer], list[Consumer]]:
        """Return the consumers that threads run, and those that an event loop runs.

        A drain or a limited number of messages has the threads run all: they know when it is over.
        """
        if self.is_limited:
            return list(self.consumers), []
        in_a_loop = [consumer for consumer in self.consumers if consumer.is_async]
        return [consumer for consumer in self.consumers if not consumer.is_async], in_a_loop

    @property
    def is_limited(self) -> bool:
        """Whether it ends by itself."""
        return self.drain or self.max_messages is not None

    @property
    def has_a_loop(self) -> bool:
        """Whether each process has an event loop."""
        return bool(self.shared_out()[1]) or (self.find is not None and not self.is_limited)

    @property
    def holds_leases(self) -> bool:
        """Whether messages are held outside of the transactions of their handlers."""
        return self.find is not None or any(each.is_leased for each in self.consumers)

    @property
    def slots(self) -> int:
        """How many slots each process has: one for each thread, and one for an event loop."""
        return self.threads + self.has_a_loop

    def process_name(self, pid: int | None) -> str:
        """Return the name under which a process gives signs of life."""
        return f"{self.name or socket.gethostname()}/{pid}"


class Process:
    """The inside of a worker process."""

    def __init__(
        self,
        options: Options,
        slots: Slots,
        slot_numbers: Sequence[int],
        allowance: Allowance,
        *,
        parent: int,
        pulses: Pulses | None = None,
        paused: bool = False,
    ) -> None:
        self._options = options
        self._slots = slots
        self._slot_numbers = slot_numbers
        self._parent = parent
        self._pulses = pulses or Pulses(slots.count)
        self._paused = paused
        self.name = options.process_name(os.getpid())
        self._tally = Tally()
        self._configuration = Configuration(options.consumers, options.using, options.find)
        company = Company() if options.threads > 1 else None
        self._expiry = Expiry(options.using)
        self._heart = Heart(options.using, self.name)
        self._limits = Limits(self.name, options.using)
        here, in_a_loop = options.shared_out()
        self._runners: list[Runner | AsyncRunner] = [
            Runner(
                here,
                self._configuration,
                using=options.using,
                name=self.name,
                slots=slots,
                slot=slot,
                tally=self._tally,
                allowance=allowance.of_slot(slot),
                company=company,
                heart=self._heart,
                limits=self._limits,
                retrying=self._expect_due,
                drain=options.drain,
                finds=options.is_limited,
            )
            for slot in slot_numbers[: options.threads]
            if here or not options.has_a_loop
        ]
        if options.has_a_loop:
            loop = AsyncRunner(
                in_a_loop,
                self._configuration,
                using=options.using,
                name=self.name,
                heart=self._heart,
                slots=slots,
                slot=slot_numbers[options.threads],
                tally=self._tally,
                limits=self._limits,
            )
            self._runners.append(loop)
        self._threads: list[threading.Thread] = []
        self._broken: BaseException | None = None
        self._bell = Bell()
        self._asked_to_stop = False
        self._stop_at: float | None = None
        self._retiring = False
        self._has_beaten = False
        # When retries are due that the threads have scheduled.
        self._retries_at: deque[float] = deque()
        self._due_at = dict.fromkeys(
            (
                "configure",
                "count",
                "beat",
                "sweep",
                "promote",
                "turns",
                "schedules",
                "expire",
                "ephemeral",
                "operate",
            ),
            0.0,
        )
        self._operating = Operating(options.using, lambda: self._stop_at is not None)
        # Spread over the workers, and never at the start of all of them.
        self._due_at["prune"] = time.monotonic() + PRUNE_EVERY * random.uniform(0.1, 1)  # noqa: S311

    def run(self) -> int:
        """Work until told to stop or drained; return the exit code."""
        with self._bell.rung_by_signals():
            self._obey_signals()
            # What is loaded stays: the collector need not walk over it for every few messages, nor
            # over those of one transaction several times.
            gc.freeze()
            gc.set_threshold(GARBAGE)
            self._wait_for_configuration()
            self._work()
        if self._broken is not None:
            return 1
        return RETIRED if self._retiring and self._stop_at is None else 0

    def _work(self) -> None:
        self._check_end()
        self._configuration.hold(self._paused)
        self._keep_house()
        listener = Listener(self._options.using, self._arrived, self._changed)
        if not self._options.drain:
            listener.start()
        for number, runner in enumerate(self._runners):
            thread = threading.Thread(
                target=self._run_runner, args=(runner,), name=f"messaging-runner-{number}"
            )
            thread.daemon = True
            self._threads.append(thread)
            thread.start()
        if self._options.holds_leases:
            self._heart.start()
        signals.worker_started.send_robust(type(self), name=self.name)
        while any(thread.is_alive() for thread in self._threads):
            self._check_end()
            self._check_pause()
            self._check_weight()
            self._keep_house()
            self._bell.wait(self._pause())
        listener.stop()
        self._heart.stop()
        self._sign_off()

    def _check_end(self) -> None:
        """Stop when asked to, or when the supervisor is gone; abandon when the grace is over."""
        if self._stop_at is not None and time.monotonic() > self._stop_at:
            self._abandon()
        if self._asked_to_stop:
            self._stop()
        elif os.getppid() != self._parent and self._stop_at is None:
            logger.warning("Worker stops, its supervisor is gone worker=%s", self.name)
            self._stop()

    def _check_pause(self) -> None:
        """Claim nothing while told to wait, and go on when told to."""
        if self._configuration.is_held != self._paused:
            self._configuration.hold(self._paused)
            self._due_at["beat"] = 0.0
            logger.info("Worker %s worker=%s", "waits" if self._paused else "goes on", self.name)
            # Those that sleep look again.
            self._arrived([])

    def _check_weight(self) -> None:
        """Finish and be replaced when too large; not before something was handled."""
        limit = self._options.max_memory
        if limit is None or self._retiring or not self._tally.handled:
            return
        if (size := resident_bytes()) > limit:
            logger.warning(
                "Worker process retires worker=%s mib=%d limit=%d",
                self.name,
                size >> 20,
                limit >> 20,
            )
            self._retiring = True
            # However long that takes: what it runs is not to be cut short for that.
            for runner in self._runners:
                runner.stop()

    def _run_runner(self, runner: Runner | AsyncRunner) -> None:
        try:
            runner.run()
        except BaseException as error:
            logger.exception("Worker thread broke worker=%s", self.name)
            self._broken = error
            self._asked_to_stop = True
        finally:
            self._bell.ring()

    def _obey_signals(self) -> None:
        signal.signal(signal.SIGTERM, self._on_stop_signal)
        signal.signal(signal.SIGINT, self._on_stop_signal)
        signal.signal(signal.SIGTSTP, self._on_pause_signal)
        signal.signal(signal.SIGCONT, self._on_pause_signal)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with contextlib.suppress(AttributeError, ValueError, OSError):
            faulthandler.register(signal.SIGQUIT)
        # Held back since before the fork.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OBEYED)

    def _on_stop_signal(self, number: int, frame: object) -> None:
        self._asked_to_stop = True

    def _on_pause_signal(self, number: int, frame: object) -> None:
        self._paused = number == signal.SIGTSTP

    def _stop(self) -> None:
        if self._stop_at is None:
            self._stop_at = time.monotonic() + self._options.grace
            for runner in self._runners:
                runner.stop()

    def _abandon(self) -> None:
        """End now: the database rolls back what is unfinished, and nothing is counted."""
        for slot in self._slot_numbers:
            self._slots.clear(slot)
        logger.warning("Worker abandons what it was handling worker=%s", self.name)
        self._release()
        os._exit(0)

    def _release(self) -> None:
        """Give back what is held under a lease, uncounted; if that fails the leases end in time."""
        with contextlib.suppress(DatabaseError, InterfaceError):
            leasing.release_all([self.name], self._options.using)

    def _arrived(self, arrivals: Sequence[wakeup.Arrival]) -> None:
        for runner in self._runners:
            runner.notice(arrivals)

    def _changed(self) -> None:
        self._configuration.expire()
        self._bell.ring()

    def _wait_for_configuration(self) -> None:
        while not self._asked_to_stop:
            try:
                self._configuration.refresh()
                return
            except (DatabaseError, InterfaceError, psycopg.Error) as error:
                logger.warning(
                    "Worker waits for the database worker=%s error=%s",
                    self.name,
                    signals.printable(error, 200),
                )
                connections.close_all()
                self._bell.wait(random.uniform(0.5, 2.0))  # noqa: S311 - spreads reconnects

    def _keep_house(self) -> None:
        try:
            if self._configuration.is_expired or self._is_due("configure", CONFIGURE_EVERY):
                expired = self._configuration.is_expired
                self._configuration.refresh()
                if expired:
                    self._arrived([])
                    self._due_at["operate"] = 0.0
            if self._is_due("sweep", SWEEP_EVERY) and leasing.sweep_expired(self._options.using):
                self._due_at["promote"] = 0.0
            if self._is_due("turns", RENEW_EVERY):
                self._take_turns()
            while self._retries_at:
                self._due_at["promote"] = min(self._due_at["promote"], self._retries_at.popleft())
            if self._is_due("promote", DUE_EVERY):
                self._promote()
            if self._is_due("expire", EXPIRE_EVERY):
                self._expiry.settle()
            if self._is_due("schedules", DUE_EVERY) and not self._options.drain:
                self._fire_schedules()
            if self._is_due("count", COUNT_EVERY):
                self._record()
            if self._is_due("beat", BEAT_EVERY):
                self._beat()
            if self._is_due("operate", OPERATE_EVERY) and not self._options.drain:
                self._operating.look()
            # On their own: they may take a while, and what is due must not wait for them.
            if self._is_due("prune", PRUNE_EVERY):
                threading.Thread(target=self._prune, name="messaging-prune", daemon=True).start()
            if self._is_due("ephemeral", EPHEMERAL_EVERY) and not self._options.drain:
                self._end_ephemeral()
        except (DatabaseError, InterfaceError) as error:
            logger.warning(
                "Worker cannot keep house worker=%s error=%s",
                self.name,
                signals.printable(error, 200),
            )
            connections.close_all()

    def _take_turns(self) -> None:
        """Be the active consumer of queues that have one, or stay it until all is finished."""
        is_idle = self._paused or self._stop_at is not None
        running = self._tally.running()
        mine = [
            policy
            for policy in self._configuration.known()
            if policy.single_active_consumer and (policy.name in running or not is_idle)
        ]
        if mine and self._limits.renew(mine):
            self._arrived([])

    def _is_due(self, what: str, every: float) -> bool:
        now = time.monotonic()
        if now < self._due_at[what]:
            return False
        self._due_at[what] = now + every
        return True

    def _pause(self) -> float:
        return max(0.01, min(min(self._due_at.values()) - time.monotonic(), 1.0))

    def _expect_due(self, after: float) -> None:
        """Look again when a retry is due that would otherwise wait for the next look."""
        if after < DUE_EVERY:
            self._retries_at.append(time.monotonic() + after)
            self._bell.ring()

    def _promote(self) -> None:
        """Make due deliveries ready, and look again when the next one is due."""
        arrivals, more = maintenance.promote_due(self._options.using)
        if arrivals:
            self._arrived(arrivals)
            wakeup.announce(connection_for(self._options.using), arrivals)
        due_in = 0.0 if more else maintenance.seconds_until_due(self._options.using)
        if due_in is not None:
            if due_in <= 0 and not arrivals:
                # Somebody holds a lock on what is due: no reason to run in circles.
                due_in = RETRY_DUE
            at = time.monotonic() + max(0.0, due_in)
            self._due_at["promote"] = min(self._due_at["promote"], at)

    def _fire_schedules(self) -> None:
        """Send what schedules are due for, and look again at the next tick."""
        due_in = maintenance.fire_schedules(self._options.using)
        if due_in is not None:
            at = time.monotonic() + max(RETRY_DUE, due_in)
            self._due_at["schedules"] = min(self._due_at["schedules"], at)

    def _prune(self) -> None:
        self._clean_up(maintenance.prune)

    def _end_ephemeral(self) -> None:
        """Delete what ephemeral subscriptions have left whose processes died."""
        if subscriptions.any_idle(connection_for(self._options.using)):
            threading.Thread(
                target=self._clean_up,
                args=(sweep_ephemeral,),
                name="messaging-ephemeral",
                daemon=True,
            ).start()

    def _clean_up(self, clean: Callable[[str | None], object]) -> None:
        """Do it in a thread of its own."""
        try:
            clean(self._options.using)
        except (DatabaseError, InterfaceError) as error:
            logger.warning(
                "Worker cannot %s worker=%s error=%s",
                clean.__name__.replace("_", " "),
                self.name,
                signals.printable(error, 200),
            )
        finally:
            connections.close_all()

    def _record(self) -> None:
        if rows := self._tally.flush():
            workers.record(connection_for(self._options.using), self.name, rows)

    def _beat(self) -> None:
        connection = connection_for(self._options.using)
        workers.beat(connection, self._heartbeat())
        self._pulses.beat(self._slot_numbers[0])
        if self._options.name and not self._has_beaten:
            # The worker bears its name by the heartbeats of its processes from now on.
            workers.sign_off(connection, self._options.name)
        self._has_beaten = True

    def _heartbeat(self) -> dict[str, object]:
        return {
            "name": self.name,
            "host": socket.gethostname()[:100],
            "pid": os.getpid(),
            "version": messaging.__version__,
            "queues": json.dumps(self._configuration.queues),
            "threads": self._options.threads,
            "running": json.dumps(self._tally.running()),
            "handled": self._tally.handled,
            "failed": self._tally.failed,
            "state": self._state(),
        }

    def _state(self) -> str:
        if self._stop_at is not None:
            return "stopping"
        # What it does, and not what it was told a moment ago: whoever reads it relies on it.
        return "paused" if self._configuration.is_held else "running"

    def _sign_off(self) -> None:
        self._release()
        with contextlib.suppress(DatabaseError, InterfaceError):
            self._limits.resign()
            self._record()
            workers.sign_off(connection_for(self._options.using), self.name)
        wakeup.finish()
        connections.close_all()
        signals.worker_stopped.send_robust(type(self), name=self.name)
