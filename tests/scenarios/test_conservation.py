"""Nothing disappears: at every moment each message is in exactly one state, whatever happens."""

import random
import time

import psutil
import psycopg
from machinery import Database, Worker

MESSAGES = 1_500
SEED = 20261124
PATIENCE = 240  # seconds
LAST_KILL = 8  # seconds after the start
# How many of a hundred messages end in each way; the others are simply handled.
ENDS = {
    "raise": 8,
    "fail twice": 12,
    "retry": 10,
    "reject": 6,
    "exit": 1,
    "segfault": 1,
    "killed": 2,
}
BODIES: list[dict[str, str]] = [{"end": end} for end, share in ENDS.items() for _ in range(share)]
BODIES += [{}] * (100 - len(BODIES))

# What each may die of; faults count as deliveries, so three of them can end any message.
REASONS = {
    "raise": {"max_deliveries", "worker_died"},
    "fail twice": {"max_deliveries", "worker_died"},
    "reject": {"rejected", "worker_died"},
}

# One statement, so one snapshot: what a worker has claimed and not committed still counts as ready.
STATES = """
    SELECT (SELECT count(*) FROM messaging_message),
        (SELECT count(DISTINCT message_id) FROM trials_effect),
        (SELECT count(*) FROM messaging_delivery),
        (SELECT count(*) FROM messaging_scheduled),
        (SELECT count(*) FROM messaging_deadletter)
"""
TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
    ORDER BY random() LIMIT 1
"""


def test_every_message_is_in_exactly_one_state_at_every_moment(database, send_all, start_worker):
    chance = random.Random(SEED)
    worker = start_worker("--processes=2", "--threads=2", ready=2)
    sent = {}
    started = time.monotonic()
    faults = looks = 0
    while len(sent) < MESSAGES or database.waiting:
        assert time.monotonic() < started + PATIENCE, worker.output
        if len(sent) < MESSAGES:
            bodies = chance.choices(BODIES, k=100)
            queue = chance.choice(["alone", "together"])
            sent |= dict(zip(send_all(queue, bodies), bodies, strict=True))
        if time.monotonic() < started + LAST_KILL and chance.random() < 0.5:
            faults += disturb(database, worker, chance)
        looks += check_conservation(database, len(sent))
    check_endings(database, sent)
    assert faults >= 10
    assert looks >= 20
    assert worker.is_running


def disturb(database: Database, worker: Worker, chance: random.Random) -> int:
    """Kill a process, or cut a connection; return how many faults that were."""
    if chance.random() < 0.5:
        return len(database.rows(TERMINATE))
    children = worker.children
    if not children:
        return 0
    try:
        chance.choice(children).kill()
    except psutil.NoSuchProcess:
        return 0
    return 1


def check_conservation(database: Database, sent: int) -> int:
    """Look once: every message that was sent is handled, ready, scheduled or dead."""
    try:
        published, handled, ready, scheduled, dead = database.rows(STATES)[0]
    except psycopg.OperationalError:  # the look itself was cut
        return 0
    assert published == sent
    assert handled + ready + scheduled + dead == published
    return 1


def check_endings(database: Database, sent: dict[int, dict[str, str]]) -> None:
    """Look at the end: handled exactly once or dead for a reason that the body explains."""
    effects, dead = database.effects(), database.dead()
    assert set(effects.values()) == {1}
    assert effects.keys() | dead.keys() == sent.keys()
    assert not effects.keys() & dead.keys()
    for message_id, (reason, _) in dead.items():
        assert reason in REASONS.get(sent[message_id].get("end"), {"worker_died"})
    never = {"raise", "reject", "exit", "segfault", "killed"}
    assert not never & {sent[message_id].get("end") for message_id in effects}
