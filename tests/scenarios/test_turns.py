"""One worker alone consumes a queue, and another one takes over within five seconds."""

import signal
import time

import pytest
from machinery import wait_until

TAKEOVER = 5.0
ACTIVE = "SELECT worker FROM messaging_activeconsumer"


@pytest.fixture
def two_workers(database, send_all, start_worker, tmp_path):
    """Return the gate at which the active one's handler stands, that process, and both workers."""
    database.execute("UPDATE messaging_queue SET single_active_consumer = true")
    gate = tmp_path / "gate"
    workers = [start_worker("gated", "alone", "--processes=1", "--threads=2", ready=1)]
    wait_until(lambda: database.rows(ACTIVE), report=lambda: workers[0].output)
    workers.append(start_worker("gated", "alone", "--processes=1", "--threads=2"))
    wait_until(lambda: database.workers == 2, report=lambda: workers[1].output)
    send_all("gated", [{"gate": str(gate)}])
    wait_until(gate.with_suffix(".reached").exists, report=lambda: workers[0].output)
    return gate, workers[0].children[0], workers


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_another_takes_over_when_it_is_gone(database, send_all, two_workers, end):
    gate, active, workers = two_workers
    (active_name,) = {name for (name,) in database.rows(ACTIVE)}
    assert active_name.endswith(f"/{active.pid}")
    send_all("alone", [{}] * 3)
    wait_until(lambda: len(database.effects()) == 3, report=lambda: workers[0].output)
    if end == signal.SIGKILL:
        # Its supervisor as well, or a new process of the same worker would be one more candidate.
        workers[0].process.kill()
    active.send_signal(end)
    gone = time.monotonic()
    gate.touch()
    send_all("alone", [{}])
    wait_until(lambda: len(database.effects()) == 5, report=lambda: workers[1].output)
    assert time.monotonic() - gone < TAKEOVER
    assert {name for (name,) in database.rows(ACTIVE)} != {active_name}
    if end == signal.SIGSTOP:
        active.send_signal(signal.SIGCONT)
        wait_until(lambda: "reconnects" in workers[0].output, report=lambda: workers[0].output)
    assert set(database.effects().values()) == {1}


def test_another_takes_over_when_it_is_stopped_and_not_before_it_has_finished(
    database, two_workers
):
    gate, active, workers = two_workers
    workers[0].signal(signal.SIGTERM)
    since = database.value("SELECT statement_timestamp()")
    # It stays the active one for longer than a turn lasts.
    renewed = "SELECT min(until) > %s + interval '6 seconds' FROM messaging_activeconsumer"
    wait_until(lambda: database.value(renewed, since), report=lambda: workers[0].output)
    assert {name.rpartition("/")[2] for (name,) in database.rows(ACTIVE)} >= {str(active.pid)}
    gate.touch()
    assert workers[0].wait() == 0, workers[0].output
    assert len(database.effects()) == 1
    wait_until(
        lambda: f"/{active.pid}" not in str(database.rows(ACTIVE)),
        report=lambda: workers[1].output,
    )
