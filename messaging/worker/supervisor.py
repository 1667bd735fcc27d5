"""Supervise: keep the worker processes alive, and count what they died of."""

import logging
import multiprocessing
import os
import signal
import socket
import time
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess

from django.db import connections

from .allowance import Allowance
from .casualties import Casualties
from .process import Options, Process
from .slots import Slots

logger = logging.getLogger("messaging")

fork = multiprocessing.get_context("fork")

# A process that lived shorter than this is replaced with a growing delay, seconds.
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
        self._allowance = Allowance(options.max_messages)
        self._casualties = Casualties(self._slots, options.using)
        self._children: list[Child] = []
        self._to_start = options.processes
        self._start_at = 0.0
        self._short_lives = 0
        self._signals = 0
        self._kill_at: float | None = None

    def run(self) -> int:
        """Work until told to stop or everything is done; return the exit code."""
        connections.close_all()
        before = {
            number: signal.signal(number, self._on_stop_signal)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        listening, waking = socket.socketpair()
        listening.setblocking(False)
        waking.setblocking(False)
        fd_before = signal.set_wakeup_fd(waking.fileno(), warn_on_full_buffer=False)
        try:
            self._supervise(listening)
        finally:
            self._kill()
            signal.set_wakeup_fd(fd_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            listening.close()
            waking.close()
        return 0

    def _supervise(self, wakeups: socket.socket) -> None:
        while self._children or self._to_start or self._casualties:
            self._start_missing()
            sentinels = [child.process.sentinel for child in self._children]
            if wakeups in wait([*sentinels, wakeups], self._pause()):
                wakeups.recv(64)
            self._bury()
            if self._casualties:
                self._casualties.settle()
            if self._kill_at is not None and time.monotonic() > self._kill_at:
                self._kill()
                if not self._children:
                    break

    def _pause(self) -> float:
        if self._casualties:
            return 0.1
        if self._to_start:
            return max(0.0, min(1.0, self._start_at - time.monotonic()))
        return 1.0

    def _start_missing(self) -> None:
        while self._to_start and time.monotonic() >= self._start_at:
            slots = self._free_slots()
            if len(slots) < self._options.threads:
                return
            self._start(slots[: self._options.threads])
            self._to_start -= 1

    def _free_slots(self) -> list[int]:
        taken = self._casualties.slots.union(*(child.slots for child in self._children))
        return [slot for slot in range(self._slots.count) if slot not in taken]

    def _start(self, slots: list[int]) -> None:
        process = fork.Process(target=self._run_child, args=(slots,), daemon=False)
        process.start()
        self._children.append(Child(process, slots, time.monotonic()))
        logger.info("Worker process started pid=%s", process.pid)

    def _run_child(self, slots: list[int]) -> None:
        # A group of its own: Ctrl-C in a terminal reaches the supervisor alone, which passes on
        # what it means.
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        code = Process(self._options, self._slots, slots, self._allowance).run()
        raise SystemExit(code)

    def _bury(self) -> None:
        """Note what the processes that have ended were running, and replace them."""
        for child in [child for child in self._children if not child.process.is_alive()]:
            self._children.remove(child)
            code = child.process.exitcode
            for slot in child.slots:
                self._casualties.add(slot, code, f"{socket.gethostname()}/{child.process.pid}")
            died = code != 0 or bool(self._casualties.slots.intersection(child.slots))
            child.process.close()
            if died:
                logger.error("Worker process died code=%s", code)
            if self._signals or self._allowance.used_up or (self._options.drain and not died):
                continue
            self._to_start += 1
            short = time.monotonic() - child.started < SHORT_LIFE
            self._short_lives = self._short_lives + 1 if short else 0
            if self._short_lives > self._options.processes:
                delay = min(MAX_DELAY, 0.1 * 2 ** min(self._short_lives, 10))
                self._start_at = time.monotonic() + delay

    def _on_stop_signal(self, number: int, frame: object) -> None:
        self._signals += 1
        self._to_start = 0
        margin = self._options.grace + MARGIN if self._signals == 1 else MARGIN
        self._kill_at = time.monotonic() + margin
        for child in self._children:
            if child.process.is_alive():
                child.process.terminate()

    def _kill(self) -> None:
        for child in self._children:
            if child.process.is_alive():
                child.process.kill()
                child.process.join()
        self._children = [c for c in self._children if c.process.is_alive()]
