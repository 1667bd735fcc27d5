"""One worker process: runners in threads, and a main thread that keeps house for them."""

import contextlib
import faulthandler
import gc
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Sequence

import psycopg
from django.db import DatabaseError, InterfaceError, connections

from .. import leasing, signals
from ..engines import wakeup
from ..limits import Limits
from .allowance import Allowance
from .asynchronous import AsyncRunner
from .bell import Bell
from .company import Company
from .configuration import Configuration
from .heart import Heart
from .housekeeping import Housekeeping
from .listener import Listener
from .memory import resident_bytes
from .options import Options
from .orders import OBEYED
from .presence import Presence
from .pulses import Pulses
from .runner import Runner
from .slots import Slots
from .tally import Tally

logger = logging.getLogger("messaging")

# How a process ends that wants to be replaced: it has grown too large.
RETIRED = 75

# How many objects more than before have the collector look for what is garbage.
GARBAGE = 10_000


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
        self._paused = paused
        self.name = options.process_name(os.getpid())
        self._bell = Bell()
        self._tally = Tally()
        self._configuration = Configuration(options.consumers, options.using, options.find)
        self._heart = Heart(options.using, self.name)
        self._limits = Limits(self.name, options.using)
        self._presence = Presence(
            self.name,
            options,
            self._configuration,
            self._tally,
            pulses=pulses or Pulses(slots.count),
            slot=slot_numbers[0],
            is_ending=self._is_ending,
        )
        self._house = Housekeeping(
            self.name,
            options,
            self._configuration,
            self._tally,
            limits=self._limits,
            presence=self._presence,
            bell=self._bell,
            arrived=self._arrived,
            is_ending=self._is_ending,
        )
        company = Company() if options.threads > 1 else None
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
                retrying=self._house.expect_retry,
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
        self._asked_to_stop = False
        self._stop_at: float | None = None
        self._retiring = False

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
        self._house.keep()
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
            self._house.keep()
            self._bell.wait(self._house.pause())
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
            self._house.expect_beat()
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

    def _is_ending(self) -> bool:
        return self._stop_at is not None

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

    def _sign_off(self) -> None:
        self._release()
        with contextlib.suppress(DatabaseError, InterfaceError):
            self._limits.resign()
            self._presence.sign_off()
        wakeup.finish()
        connections.close_all()
        signals.worker_stopped.send_robust(type(self), name=self.name)
