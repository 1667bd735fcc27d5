"""A process that is stopped for longer than its lease commits nothing of what it was doing."""

from collections import Counter
from typing import NamedTuple

import psutil
import pytest
from journal import Line, read
from machinery import Database, Worker, wait_until

TRIES = 15
LEASES = "SELECT count(*) FROM messaging_lease"
EFFECTS = "SELECT message_id, worker FROM trials_effect"


class Kind(NamedTuple):
    """Where processes are stopped: what they run, and the gate at which they stand then.

    ``each``: how many messages a process holds. ``processes``: how many are stopped, side by side.
    """

    command: tuple[str, ...]
    gate: str = "gate"
    each: int = 1
    processes: int = TRIES

    @property
    def queue(self) -> str:
        return self.command[1]


KINDS = {
    "inside the handler": Kind(("runworker", "leased")),
    "before the acknowledgement": Kind(("runworker", "leased"), gate="gate of settling"),
    "in an event loop": Kind(("runworker", "looped"), each=TRIES, processes=1),
    "in receive()": Kind(("pull", "pulled", "--lease=600")),
    "in a batch": Kind(("pull", "pulled", "--lease=600", "--limit=3"), each=3),
}


class Stage:
    """The processes of one kind, and what they and others do."""

    def __init__(self, database: Database, kind: Kind, send_all, start_worker) -> None:
        self.database = database
        self.kind = kind
        self._send_all = send_all
        self._start_worker = start_worker

    def send(self, gate) -> set[int]:
        """Send as many messages as the processes can hold, which are handled up to the gate."""
        bodies = [{self.kind.gate: str(gate)}] * (self.kind.each * self.kind.processes)
        return set(self._send_all(self.kind.queue, bodies))

    def start(self, processes: int) -> Worker:
        """Start processes that handle the messages."""
        command, *arguments = self.kind.command
        return self._start_worker(*arguments, f"--processes={processes}", command=command)

    def wait_at_gate(self, worker: Worker, messages: set[int]) -> set[int]:
        """Wait until each process stands at the gate, with all the messages; return their ids."""

        def standing() -> set[int]:
            return {line.process for line in self.lines("waits", messages)}

        def all_stand() -> bool:
            waiting = {line.message for line in self.lines("waits", messages)}
            return waiting == messages and len(standing()) == self.kind.processes

        wait_until(all_stand, report=lambda: f"{standing()} stand there\n{worker.output}")
        return standing()

    def lost(self, worker: Worker, messages: set[int]) -> bool:
        """Whether the processes have been told that they came too late, for each message."""
        if self.kind.command[0] == "pull":
            return {line.message for line in self.lines("loses", messages)} == messages
        output = worker.output
        return all(
            f"Message lost its lease and is not settled id={message} " in output
            for message in messages
        )

    def lines(self, what: str, messages: set[int]) -> list[Line]:
        """Return what the journal tells of that about the messages."""
        lines = read(self.database.journal)
        return [line for line in lines if line.what == what and line.message in messages]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_no_effect_is_doubled_by_processes_that_were_stopped(
    database, send_all, start_worker, tmp_path, kind
):
    stage = Stage(database, kind, send_all, start_worker)
    sent = stage.send(tmp_path / "gate")
    worker = stage.start(kind.processes)
    zombies = stage.wait_at_gate(worker, sent)
    stopped = worker.children
    assert {process.pid for process in stopped} == zombies
    for process in stopped:
        process.suspend()
    wait_until(lambda: all(p.status() == psutil.STATUS_STOPPED for p in stopped))
    assert (database.effects(), database.value(LEASES)) == ({}, len(sent))

    database.execute("UPDATE messaging_lease SET leased_until = statement_timestamp()")
    (tmp_path / "gate").touch()
    others = stage.start(2)
    wait_until(
        lambda: len(database.effects()) == len(sent) and not database.value(LEASES),
        report=lambda: others.output,
    )
    others.destroy()
    for process in stopped:
        process.resume()
    wait_until(lambda: stage.lost(worker, sent), report=lambda: worker.output)

    following = stage.send(tmp_path / "next")
    assert stage.wait_at_gate(worker, following) == zombies
    (tmp_path / "next").touch()
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert worker.children == stopped

    effects = database.rows(EFFECTS)
    assert Counter(message for message, _ in effects) == dict.fromkeys(sent | following, 1)
    assert not {process for message, process in effects if message in sent} & zombies
    commits = stage.lines("commits", sent)
    assert Counter(line.message for line in commits) == dict.fromkeys(sent, 1)
    assert not {line.process for line in commits} & zombies
    assert all(database.attempts(message) == [1] for message in sent)
