"""Interleaving: run sessions in every order of their statements, as PostgreSQL's isolationtester.

Each session is a thread with a connection of its own that stops before every statement about
messages, and before its COMMIT or ROLLBACK. One of them is let go at a time, until it stops again,
ends, or waits for the lock of another (``pg_blocking_pids``); a session that waits yields. An
exploration tries every choice, and runs each schedule from a fresh start.
"""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import connection, connections

# What stops a session: where messages are, what handlers did, and what waits for others by a lock
# or gives messages their place in a lane. The other statements commute.
ABOUT_MESSAGES = re.compile(
    r"messaging_(message|delivery|scheduled|lane|laneentry|lease|arrival|deadletter|deduplication"
    r"|subscription|room)\b|\beffect\b|advisory|messaging_join_lanes IMMEDIATE"
)
BLOCKED = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
PATIENCE = 30.0  # seconds
# How long a statement may take before its session is thought to wait for a lock.
USUAL = 0.004
# The server looks for a deadlock after a second.
SHORTEST_DEADLOCK = 0.8

Job = Callable[[], Any]


class Abandoned(BaseException):
    """Ends the sessions of a schedule that came to nothing."""


@dataclass(kw_only=True)
class Schedule:
    """One run: who was let go at each step, out of whom, and what each session came to."""

    choices: list[int] = field(default_factory=list)
    options: list[list[int]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    waits: int = 0
    deadlocks: int = 0

    def __str__(self) -> str:
        lines = [f"choices {self.choices}", *(step[:100] for step in self.steps)]
        return "\n".join([*lines, *(f"{name} = {what!r}" for name, what in self.results.items())])


class Session:
    """A thread with a connection, which does a job statement by statement."""

    def __init__(
        self, name: str, ending: Callable[[str], None], ended: Callable[[str, bool], None]
    ) -> None:
        self.name = name
        self._ending = ending
        self._ended = ended
        self.pid = 0
        self.result: Any = None
        self.next = ""
        self.done = True
        self.abandoned = False
        self._job: Job | None = None
        self._go = threading.Semaphore(0)
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"session-{name}", daemon=True)
        self._thread.start()
        self._await_stop()

    def begin(self, job: Job) -> None:
        """Start a job, up to before its first statement."""
        self._job, self.result, self.done, self.abandoned = job, None, False, False
        self.let_go()

    def let_go(self) -> None:
        """Let it do what it stopped before."""
        self.stopped.clear()
        self._go.release()

    def close(self) -> None:
        """End the thread and its connection."""
        self._job = None
        self.let_go()
        self._thread.join(PATIENCE)

    def _await_stop(self) -> None:
        assert self.stopped.wait(PATIENCE), f"session {self.name} does not stop"

    def _run(self) -> None:
        mine = connections["default"]
        mine.ensure_connection()
        self.pid = mine.connection.info.backend_pid
        with mine.cursor() as cursor:
            cursor.execute("SET synchronous_commit = off")
        mine._commit = self._in_turn("COMMIT", mine._commit)
        mine._rollback = self._in_turn("ROLLBACK", mine._rollback)
        with mine.execute_wrapper(self._before):
            while True:
                self.done = True
                self.stopped.set()
                self._go.acquire()
                if self._job is None:
                    break
                try:
                    self.result = self._job()
                except BaseException as error:
                    self.result = error
        connections.close_all()

    def _in_turn(self, what: str, end: Callable[[], None]) -> Callable[[], None]:
        def end_in_turn() -> None:
            self._pause(what)
            thread = threading.current_thread().name
            self._ending(thread)
            end()
            self._ended(thread, what == "COMMIT")

        return end_in_turn

    def _before(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if ABOUT_MESSAGES.search(sql):
            self._pause(" ".join(sql.split()))
        return execute(sql, params, many, context)

    def _pause(self, what: str) -> None:
        if self.abandoned:
            if what == "ROLLBACK":
                return
            raise Abandoned
        self.next = what
        self.stopped.set()
        self._go.acquire()
        if self.abandoned and what != "ROLLBACK":
            raise Abandoned


class Stage:
    """The sessions of a test; runs one schedule after another."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        ending: Callable[[str], None],
        ended: Callable[[str, bool], None],
    ) -> None:
        """``ending`` and ``ended`` hear of the ends of transactions, just before and after."""
        self.sessions = [Session(name, ending, ended) for name in names]

    def close(self) -> None:
        """End all sessions."""
        for session in self.sessions:
            session.close()

    def run(
        self, jobs: Mapping[str, Job], prefix: Sequence[int], chance: random.Random | None = None
    ) -> Schedule:
        """Run the jobs in the order that ``prefix`` says, then by chance or first come first."""
        schedule = Schedule()
        active = [session for session in self.sessions if session.name in jobs]
        for session in active:
            session.begin(jobs[session.name])
        self._settle(active)
        try:
            while unfinished := [session for session in active if not session.done]:
                ready = [session for session in unfinished if session.stopped.is_set()]
                if not ready:
                    schedule.deadlocks += self._wait_for_any(unfinished)
                    continue
                step = len(schedule.choices)
                index = prefix[step] if step < len(prefix) else 0
                if step >= len(prefix) and chance is not None:
                    index = chance.randrange(len(ready))
                index = min(index, len(ready) - 1)
                chosen = ready[index]
                schedule.choices.append(index)
                schedule.options.append(list(range(len(ready))))
                schedule.steps.append(f"{chosen.name}: {chosen.next}")
                chosen.let_go()
                schedule.waits += self._settle(unfinished)
        except BaseException:
            self._abandon(active)
            raise
        schedule.results = {session.name: session.result for session in active}
        return schedule

    def _settle(self, unfinished: Sequence[Session]) -> int:
        """Wait until each session has stopped or waits for a lock; return how many wait."""
        deadline = time.monotonic() + PATIENCE
        waiting = 0
        for session in unfinished:
            if session.stopped.wait(USUAL):
                continue
            while not session.stopped.is_set():
                assert time.monotonic() < deadline, f"{session.name} neither stops nor waits"
                if is_blocked(session.pid):
                    waiting += 1
                    break
                session.stopped.wait(0.001)
        return waiting

    def _wait_for_any(self, unfinished: Sequence[Session]) -> bool:
        """Wait until one goes on; return whether it took the server to end a deadlock."""
        started = time.monotonic()
        while not any(session.stopped.is_set() for session in unfinished):
            assert time.monotonic() < started + PATIENCE, "all sessions wait"
            time.sleep(0.001)
        return time.monotonic() - started > SHORTEST_DEADLOCK

    def _abandon(self, active: Sequence[Session]) -> None:
        for session in active:
            session.abandoned = True
        deadline = time.monotonic() + PATIENCE
        while (left := [s for s in active if not s.done]) and time.monotonic() < deadline:
            for session in left:
                if session.stopped.is_set() and not session.done:
                    session.let_go()
            time.sleep(0.001)


def is_blocked(pid: int) -> bool:
    """Tell whether a session waits for a lock that another holds."""
    with connection.cursor() as cursor:
        cursor.execute(BLOCKED, [pid])
        return bool(cursor.fetchone()[0])


def explore(
    run: Callable[[Sequence[int], random.Random | None], Schedule], *, most: int, seed: int
) -> Iterator[Schedule]:
    """Run every schedule, depth first; of more than ``most``, as many by chance."""
    prefix: list[int] = []
    for _ in range(most):
        schedule = run(prefix, None)
        yield schedule
        following = _following(schedule)
        if following is None:
            return
        prefix = following
    # There are more than that: the last half of them is drawn, so that no corner is left out.
    chance = random.Random(seed)
    for _ in range(most):
        yield run([], chance)


def _following(schedule: Schedule) -> list[int] | None:
    """Return the choices that lead to the next schedule, or None when all were tried."""
    choices = list(schedule.choices)
    for step in reversed(range(len(choices))):
        if choices[step] + 1 < len(schedule.options[step]):
            return [*choices[:step], choices[step] + 1]
    return None
