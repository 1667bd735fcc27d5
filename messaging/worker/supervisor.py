"""Supervise: keep the worker processes alive, and count what they died of."""

import logging
import multiprocessing
import os
import signal
import time
from collections import deque
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

from django.db import connections

from .allowance import Allowance
from .bell import Bell
from .casualties import Casualties
from .health import Health
from .options import Options
from .orders import Orders
from .process import RETIRED, Process
from .pulses import Pulses
from .slots import Slots

logger = logging.getLogger("messaging")

fork = multiprocessing.get_context("fork")

# A process that ended by itself sooner than this is replaced with a growing delay, seconds.
SHORT_LIFE = 1.0
MAX_DELAY = 10.0
# How long after the grace a process may take to end by itself.
MARGIN = 5.0
# A process whose last heartbeat is older, seconds, is not well: it has missed several.
SILENCE = 15.0
# Until casualties are tried again, and between the stacks of two processes, whose lines must not
# mix; seconds.
SOON = 0.1


@dataclass(slots=True)
class Child:
    """A worker process and the slots of its threads, and of its event loop if it has one."""

    process: BaseProcess
    slots: list[int]
    started: float
    # When it was killed for a hard timeout.
    killed_at: float | None = None


class Supervisor:
    """The parent: it runs no handler, holds no connection, and outlives what they do."""

    def __init__(self, options: Options) -> None:
        self._options = options
        # Twice what is needed: slots of the dead stay taken until they are counted.
        self._slots = Slots(2 * options.processes * options.slots)
        self._allowance = Allowance(options.max_messages, self._slots.count)
        self._pulses = Pulses(self._slots.count)
        self._casualties = Casualties(self._slots, options.using)
        self._children: list[Child] = []
        self._bell = Bell()
        self._orders = Orders()
        self._health = Health(options.health, self._facts) if options.health else None
        self._to_start = options.processes
        self._start_at = 0.0
        self._short_lives = 0
        self._paused = False
        self._stacks: deque[Child] = deque()
        self._kill_at: float | None = None

    def run(self) -> int:
        """Work until told to stop or everything is done; return the exit code."""
        connections.close_all()
        with self._orders.obeyed():
            try:
                with self._bell.rung_by_signals():
                    self._supervise()
            finally:
                self._kill()
        self._close()
        return 0

    def _supervise(self) -> None:
        while self._is_needed:
            self._start_missing()
            self._bell.wait(self._pause(), self._noises())
            self._carry_out_orders()
            self._kill_overdue()
            self._bury()
            if self._health is not None:
                self._health.serve()
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._kill()
                break
            if self._casualties:
                self._casualties.settle()

    @property
    def _is_needed(self) -> bool:
        return bool(self._children or self._casualties or (self._to_start and not self._is_told))

    @property
    def _is_told(self) -> bool:
        """Whether it was told to stop."""
        return bool(self._orders.stops)

    def _noises(self) -> list[Any]:
        sentinels = [child.process.sentinel for child in self._children]
        return [*sentinels, *(self._health.sockets if self._health else ())]

    def _pause(self) -> float:
        if self._casualties or self._stacks:
            return SOON
        if self._to_start and not self._is_told:
            return max(0.0, min(1.0, self._start_at - time.monotonic()))
        return 1.0

    def _start_missing(self) -> None:
        # A drain ends when nothing is ready: what a dead process held may be the last.
        if self._options.drain and self._casualties:
            return
        while self._to_start and time.monotonic() >= self._start_at:
            slots = self._free_slots()
            if len(slots) < self._options.slots:
                return
            with self._orders.held_back():
                if self._is_told:
                    return
                self._start(slots[: self._options.slots])
                self._to_start -= 1

    def _free_slots(self) -> list[int]:
        taken = self._casualties.slots.union(*(child.slots for child in self._children))
        return [slot for slot in range(self._slots.count) if slot not in taken]

    def _start(self, slots: list[int]) -> None:
        # Until its first heartbeat, its start is one.
        self._pulses.beat(slots[0])
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
        self._close()
        process = Process(
            self._options,
            self._slots,
            slots,
            self._allowance,
            parent=parent,
            pulses=self._pulses,
            paused=self._orders.paused,
        )
        raise SystemExit(process.run())

    def _kill_overdue(self) -> None:
        """Kill the processes of handlers that are past their hard timeout."""
        now = time.monotonic()
        for child in self._children:
            overdue = any(self._slots.is_overdue(slot, now) for slot in child.slots)
            if overdue and child.killed_at is None:
                child.killed_at = now
                child.process.kill()
                logger.error("Worker process killed, hard timeout pid=%s", child.process.pid)

    def _bury(self) -> None:
        """Note what the processes that have ended were running, and replace them."""
        for child in [child for child in self._children if not child.process.is_alive()]:
            self._children.remove(child)
            code = child.process.exitcode
            name = self._options.process_name(child.process.pid)
            running = sum([self._bury_slot(slot, child, name) for slot in child.slots])
            retired = code == RETIRED and not running
            died = (code != 0 or running > 0) and not retired
            if died:
                logger.error("Worker process died worker=%s code=%s", name, code)
                if self._options.holds_leases:
                    self._casualties.add_holder(code, name, spared=child.killed_at is not None)
            child.process.close()
            if self._is_told or self._allowance.used_up or self._is_drained(died or retired):
                continue
            self._to_start += 1
            failed = died and not running and child.killed_at is None
            self._delay_start(failed, time.monotonic() - child.started)

    def _is_drained(self, ended_early: bool) -> bool:
        return self._options.drain and not ended_early

    def _bury_slot(self, slot: int, child: Child, name: str) -> bool:
        """Note what one thread was running; return whether that counts as a failed attempt."""
        if child.killed_at is None:
            counts = self._casualties.add(slot, child.process.exitcode, name)
        else:
            counts = self._casualties.add_killed(slot, child.killed_at, name)
        self._allowance.of_slot(slot).recover(handled=int(counts))
        return counts

    def _delay_start(self, failed_by_itself: bool, lived: float) -> None:
        """Start again at once, unless processes keep failing without a message to blame."""
        short = failed_by_itself and lived < SHORT_LIFE
        self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives > self._options.processes:
            delay = min(MAX_DELAY, 0.1 * 2 ** min(self._short_lives, 10))
            self._start_at = time.monotonic() + delay

    def _carry_out_orders(self) -> None:
        if self._orders.paused is not self._paused:
            self._paused = self._orders.paused
            self._pass_on_pause()
        if self._orders.report_wanted:
            self._orders.report_wanted = False
            logger.info("Worker state %s", self._facts())
        if self._orders.stacks_wanted:
            self._orders.stacks_wanted = False
            self._stacks.extend(self._children)
        if self._stacks:
            self._print_stacks(self._stacks.popleft())
        if self._is_told:
            self._stop()

    def _pass_on_pause(self) -> None:
        """Have the processes claim nothing, or go on; this one is never suspended itself.

        A supervisor that Ctrl-Z froze could neither stop its processes nor count their deaths.
        """
        if self._paused:
            logger.warning("Worker claims nothing until SIGCONT pid=%s", os.getpid())
        for child in self._children:
            os.kill(child.process.pid or 0, signal.SIGTSTP if self._paused else signal.SIGCONT)

    def _print_stacks(self, child: Child) -> None:
        if child in self._children:
            logger.warning("Stacks of worker process pid=%s", child.process.pid)
            os.kill(child.process.pid or 0, signal.SIGQUIT)

    def _stop(self) -> None:
        """Have the processes finish what they run; a second signal ends everything now.

        The processes are told once: a service manager may signal them as well, and that must not
        look like the second.
        """
        if self._kill_at is None:
            self._kill_at = time.monotonic() + self._options.grace + MARGIN
            for child in self._children:
                child.process.terminate()
        if self._orders.stops > 1:
            self._kill_at = time.monotonic()

    def _facts(self) -> dict[str, Any]:
        """Return how the worker is: well when no process is missing or silent."""
        silences = [self._pulses.age(child.slots[0]) for child in self._children]
        return {
            "healthy": not self._to_start and all(silence < SILENCE for silence in silences),
            "state": "stopping" if self._is_told else "paused" if self._paused else "running",
            "queues": [consumer.queue for consumer in self._options.consumers],
            "missing": self._to_start,
            "uncounted_deaths": len(self._casualties.slots),
            "processes": [self._facts_of(child) for child in self._children],
        }

    def _facts_of(self, child: Child) -> dict[str, Any]:
        running = [self._slots.running(slot) for slot in child.slots]
        return {
            "name": self._options.process_name(child.process.pid),
            "age": round(time.monotonic() - child.started, 1),
            "last_heartbeat": round(self._pulses.age(child.slots[0]), 1),
            "messages": [each.message_id for each in running if each is not None],
        }

    def _kill(self) -> None:
        """End what still runs, uncounted: the database rolls it back."""
        names = [self._options.process_name(child.process.pid) for child in self._children]
        for child in self._children:
            child.process.kill()
            child.process.join()
        self._children = []
        if names and self._options.holds_leases:
            self._casualties.release(names)

    def _close(self) -> None:
        self._bell.close()
        if self._health is not None:
            self._health.close()
