"""Keys keep their order while workers are killed: one message at a time, each of them once."""

import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import psutil
import psycopg
import pytest
from journal import Line, last_process, read
from machinery import Database, Worker, wait_until

MESSAGES = 50_000
KEYS = 64
HOT = 0.2
FAILING = 0.1
BATCH = 100
# How many messages wait before no more are sent: some keys go idle, and come back.
AHEAD = 5_000
WORKERS = 2
PROCESSES = 4
KILL_EVERY = 1.0  # seconds, on average
ENOUGH_KILLS = 20
LOOK_EVERY = 0.1  # seconds
PATIENCE = 900  # seconds; on two idle cores it takes about one minute

# What waits behind its key; and whatever else is left, such as the tokens of the keys.
LEFT = """
    SELECT (SELECT count(*) FROM messaging_laneentry),
        (SELECT count(*) FROM messaging_lane)
        + (SELECT count(*) FROM messaging_delivery)
        + (SELECT count(*) FROM messaging_scheduled)
"""
EFFECTS = "SELECT message_id FROM trials_effect ORDER BY id"


class Run(NamedTuple):
    """One call of a handler; ``end`` None: its process was killed before it returned."""

    begin: int
    end: int | None
    process: int
    message: int


def test_keys_keep_their_order_and_handle_one_message_at_a_time(
    database, send_all, start_worker, record_property
):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    workers = [start_worker("keyed", f"--processes={PROCESSES}") for _ in range(WORKERS)]
    wait_until(lambda: database.workers == WORKERS * PROCESSES)
    started = time.monotonic()
    sent, killed = go_through(database, send_all, workers, random.Random(seed))
    seconds = time.monotonic() - started
    record_property("seed", seed)
    record_property("seconds", round(seconds))
    assert database.dead() == {}
    check_effects(database, sent)
    runs = list(runs_of(read(database.journal)))
    check_turns(runs, sent, killed)
    kills = len(killed.keys() & {run.process for run in runs})
    broken_off = sum(run.end is None for run in runs)
    deaths = database.value("SELECT count(*) FROM messaging_attempt WHERE error = 'WorkerDied'")
    print(
        f"{MESSAGES:,} messages in {seconds:.0f} seconds: {len(runs):,} calls, {kills} processes "
        f"killed, {broken_off} of them in a handler, {deaths} counted as attempts"
    )
    assert kills >= ENOUGH_KILLS
    assert broken_off >= ENOUGH_KILLS / 5
    assert all(worker.is_running for worker in workers)


@pytest.mark.parametrize("queue", ["alone", "together", "leased"])
def test_a_message_that_kills_its_worker_dies_and_its_key_goes_on(
    database, send_all, start_worker, queue
):
    sent = send_all(queue, [{}] * 20, ordering_key="ada")
    (poison,) = send_all(queue, [{"end": "killed"}], ordering_key="ada")
    sent += send_all(queue, [{}] * 20, ordering_key="ada")
    others = send_all(queue, [{}] * 100, ordering_key="bob")
    worker = start_worker(queue, "--processes=3")
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.dead() == {poison: ("worker_died", 3)}
    assert database.attempts(poison) == [1, 2, 3]
    assert worker.output.count("Worker process died") == 3
    check_effects(database, dict.fromkeys(sent, "ada") | dict.fromkeys(others, "bob"))


def go_through(
    database: Database, send_all, workers: list[Worker], chance: random.Random
) -> tuple[dict[int, str], dict[int, int]]:
    """Send, and kill now and then, until all is handled.

    Returns the keys of the messages in the order in which they were sent, and when which process
    was killed.
    """
    sent: dict[int, str] = {}
    killed: dict[int, int] = {}
    started = next_kill = time.monotonic()
    with psycopg.connect(database.url, autocommit=True) as looking:
        while True:
            waiting, left = looking.execute(LEFT).fetchone()
            if len(sent) >= MESSAGES and not waiting and not left:
                return sent, killed
            assert time.monotonic() < started + PATIENCE, f"{waiting} wait\n{workers[0].output}"
            if len(sent) < MESSAGES and waiting < AHEAD:
                for _ in range(10):
                    key = f"key-{0 if chance.random() < HOT else chance.randrange(1, KEYS)}"
                    ids = send_all("keyed", bodies(chance), ordering_key=key)
                    sent |= dict.fromkeys(ids, key)
            else:
                time.sleep(LOOK_EVERY)
            if time.monotonic() >= next_kill:
                kill_one(database, workers, chance, killed)
                next_kill = time.monotonic() + chance.expovariate(1 / KILL_EVERY)


def bodies(chance: random.Random) -> list[dict[str, str]]:
    """Return what the next messages do: some fail at first, and are due soon or at once."""
    ends = chance.choices(
        ["", "retry", "fail once"], [1 - FAILING, FAILING / 2, FAILING / 2], k=BATCH
    )
    return [{"end": end} if end else {} for end in ends]


def kill_one(
    database: Database, workers: list[Worker], chance: random.Random, killed: dict[int, int]
) -> None:
    """Kill a process, every other time the one that was seen at work last, and note when."""
    children = [child for worker in workers for child in worker.children]
    at_work = last_process(database.journal)
    busy = [child for child in children if child.pid == at_work]
    victims = busy if busy and chance.random() < 0.5 else children
    if victims:
        victim = chance.choice(victims)
        killed[victim.pid] = time.monotonic_ns()
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            del killed[victim.pid]


def check_effects(database: Database, sent: dict[int, str]) -> None:
    """Each message took effect once, and those of a key in the order in which they were sent."""
    effects = [message for (message,) in database.rows(EFFECTS)]
    counts = Counter(effects)
    assert {message: counts[message] for message in sent if counts[message] != 1} == {}
    assert len(effects) == len(sent)
    wanted, found = by_key(sent, sent), by_key(effects, sent)
    assert [key for key in wanted if found[key] != wanted[key]] == []


def by_key(messages: Iterable[int], sent: dict[int, str]) -> dict[str, list[int]]:
    """Return the messages of each key, in the order given."""
    keys: defaultdict[str, list[int]] = defaultdict(list)
    for message in messages:
        keys[sent[message]].append(message)
    return keys


def runs_of(lines: list[Line]) -> Iterator[Run]:
    """Return the calls of handlers, by the two lines that each wrote."""
    running: dict[int, Line] = {}
    for line in lines:
        if line.what == "begins":
            assert line.process not in running, "a process handled two messages at a time"
            running[line.process] = line
        else:
            began = running.pop(line.process)
            yield Run(began.at, line.at, line.process, line.message)
    for line in running.values():
        yield Run(line.at, None, line.process, line.message)


def check_turns(runs: list[Run], sent: dict[int, str], killed: dict[int, int]) -> None:
    """No call began before the one of the same key before it had ended, or its process had."""
    last: dict[str, Run] = {}
    overlaps = []
    for run in sorted(runs, key=lambda run: run.begin):
        before = last.get(sent[run.message])
        if before is not None and run.begin < (before.end or killed[before.process]):
            overlaps.append((before, run))
        last[sent[run.message]] = run
    assert overlaps == []
