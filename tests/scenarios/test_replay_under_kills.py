"""Real orders go through the shop while its workers are killed: to the cent, and in order."""

import random
import time

import psutil
from machinery import Worker, wait_until
from replaying import PATIENCE, check_messages, check_order, check_shop, replay

KILL_EVERY = 2  # seconds
ENOUGH_KILLS = 5


def test_every_real_order_is_processed_once_and_in_order_while_processes_are_killed(
    database, start_worker, tmp_path, record_property
):
    worker = start_worker("--processes=2", ready=2)
    kills = 0
    with replay(database, tmp_path / "replay.log") as replaying:
        deadline = time.monotonic() + PATIENCE
        while replaying.poll() is None or database.waiting:
            assert time.monotonic() < deadline, worker.output
            next_kill = time.monotonic() + KILL_EVERY
            wait_until(lambda at=next_kill: time.monotonic() >= at)
            kills += kill_one(worker)
    check_shop(database)
    check_order(database)
    check_messages(database)
    interrupted = database.value(
        "SELECT count(*) FROM messaging_attempt WHERE error = 'WorkerDied'"
    )
    record_property("kills", kills)
    record_property("interrupted messages", interrupted)
    print(f"{kills} processes killed, {interrupted} of them in the middle of a message")
    assert kills >= ENOUGH_KILLS
    assert interrupted >= 1
    assert worker.is_running


def kill_one(worker: Worker) -> bool:
    """Kill one of the worker processes; return whether there was one to kill."""
    children = worker.children
    if not children:
        return False
    victim = random.choice(children)
    try:
        victim.kill()
    except psutil.NoSuchProcess:
        return False
    return True
