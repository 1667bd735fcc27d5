"""Supervise: keep the worker processes alive, and count what they died of."""

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from django.db import connections

from .allowance import Allowance
from .bell import Bell
from .casualties import Casualties
from .process import Options, Process
from .slots import Slots

logger = logging.getLogger("messaging")

fork = multiprocessing.get_context("fork")

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# A process that ended by itself sooner than this is replaced with a growing delay, seconds.
SHORT_LIFE = 1.0
MAX_DELAY = 10.0
# How long after the grace a process may take to end by itself.
MARGIN = 5.0


@dataclass(slots=True)
class Child:
    """A worker process and the slots of its threads."""

    process: BaseProcess
    slots: list[int]
    started: float


class Supervisor:
    """The parent: it runs no handler, holds no connection, and outlives what they do."""

    def __init__(self, options: Options) -> None:
        self._options = options
        # Twice what is needed: slots of the dead stay taken until they are counted.
        self._slots = Slots(2 * options.processes * options.threads)
        self._allowance = Allowance(options.max_messages, self._slots.count)
        self._casualties = Casualties(self._slots, options.using)
        self._children: list[Child] = []
        self._bell = Bell()
        self._to_start = options.processes
        self._start_at = 0.0
        self._short_lives = 0
        self._signals = 0
        self._kill_at: float | None = None

    def run(self) -> int:
        """Work until told to stop or everything is done; return the exit code."""
        connections.close_all()
        before = {number: signal.signal(number, self._on_stop_signal) for number in STOP_SIGNALS}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with self._bell.rung_by_signals():
                self._supervise()
        finally:
            self._kill()
            for number, handler in before.items():
                signal.signal(number, handler)
            self._bell.close()
        return 0

    def _supervise(self) -> None:
        while self._is_needed:
            self._start_missing()
            self._bell.wait(self._pause(), [child.process.sentinel for child in self._children])
            self._pass_on_signals()
            self._bury()
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._kill()
                break
            if self._casualties:
                self._casualties.settle()

    @property
    def _is_needed(self) -> bool:
        return bool(self._children or self._casualties or (self._to_start and not self._signals))

    def _pause(self) -> float:
        if self._casualties:
            return 0.1
        if self._to_start and not self._signals:
            return max(0.0, min(1.0, self._start_at - time.monotonic()))
        return 1.0

    def _start_missing(self) -> None:
        # A drain ends when nothing is ready: what a dead process held may be the last.
        if self._options.drain and self._casualties:
            return
        while self._to_start and time.monotonic() >= self._start_at:
            slots = self._free_slots()
            if len(slots) < self._options.threads:
                return
            with _stop_signals_waiting():
                if self._signals:
                    return
                self._start(slots[: self._options.threads])
                self._to_start -= 1

    def _free_slots(self) -> list[int]:
        taken = self._casualties.slots.union(*(child.slots for child in self._children))
        return [slot for slot in range(self._slots.count) if slot not in taken]

    def _start(self, slots: list[int]) -> None:
        process = fork.Process(target=self._run_child, args=(slots, os.getpid()), daemon=False)
        process.start()
        self._children.append(Child(process, slots, time.monotonic()))
        logger.info("Worker process started pid=%s", process.pid)

    def _run_child(self, slots: list[int], parent: int) -> None:
        # A group of its own: Ctrl-C in a terminal reaches the supervisor alone, which passes on
        # what it means. One that came before is forgotten by ignoring it.
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        self._bell.close()
        raise SystemExit(
            Process(self._options, self._slots, slots, self._allowance, parent=parent).run()
        )

    def _bury(self) -> None:
        """Note what the processes that have ended were running, and replace them."""
        for child in [child for child in self._children if not child.process.is_alive()]:
            self._children.remove(child)
            code = child.process.exitcode
            name = f"{socket.gethostname()}/{child.process.pid}"
            running = sum(self._bury_slot(slot, code, name) for slot in child.slots)
            child.process.close()
            died = code != 0 or running > 0
            if died:
                logger.error("Worker process died worker=%s code=%s", name, code)
            if self._signals or self._allowance.used_up or (self._options.drain and not died):
                continue
            self._to_start += 1
            self._delay_start(code != 0 and not running, time.monotonic() - child.started)

    def _bury_slot(self, slot: int, code: int | None, name: str) -> bool:
        """Note what one thread was running; return whether it was running anything."""
        was_running = self._casualties.add(slot, code, name)
        self._allowance.of_slot(slot).recover(handled=int(was_running))
        return was_running

    def _delay_start(self, failed_by_itself: bool, lived: float) -> None:
        """Start again at once, unless processes keep failing without a message to blame."""
        short = failed_by_itself and lived < SHORT_LIFE
        self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives > self._options.processes:
            delay = min(MAX_DELAY, 0.1 * 2 ** min(self._short_lives, 10))
            self._start_at = time.monotonic() + delay

    def _on_stop_signal(self, number: int, frame: object) -> None:
        self._signals += 1

    def _pass_on_signals(self) -> None:
        """Have the processes finish what they run; a second signal ends everything now.

        The processes are told once: a service manager may signal them as well, and that must not
        look like the second.
        """
        if self._signals and self._kill_at is None:
            self._kill_at = time.monotonic() + self._options.grace + MARGIN
            for child in self._children:
                child.process.terminate()
        if self._signals > 1:
            self._kill_at = time.monotonic()

    def _kill(self) -> None:
        """End what still runs, uncounted: the database rolls it back."""
        for child in self._children:
            child.process.kill()
            child.process.join()
        self._children = []


@contextmanager
def _stop_signals_waiting() -> Iterator[None]:
    """Hold back stop signals around a fork, so that no child misses one or takes it for ours."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
