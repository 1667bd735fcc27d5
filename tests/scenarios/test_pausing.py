"""A worker that is told to wait claims nothing, and goes on when it is told to."""

import signal

import pytest
from machinery import wait_until

STATES = "SELECT array_agg(DISTINCT state) FROM messaging_worker"


@pytest.fixture
def paused(database, start_worker):
    """Return a worker with two processes that wait."""
    worker = start_worker("--processes=2", ready=2)
    worker.signal(signal.SIGTSTP)
    wait_until(lambda: database.value(STATES) == ["paused"], report=lambda: worker.output)
    return worker


def test_it_claims_nothing_until_it_goes_on(database, send_all, paused):
    sent = send_all("alone", [{}] * 5)
    # Its processes go on keeping house: they have come past this queue, and given a sign of it.
    seen = database.value("SELECT min(seen_at) FROM messaging_worker")
    wait_until(
        lambda: database.value("SELECT min(seen_at) > %s FROM messaging_worker", seen),
        report=lambda: paused.output,
    )
    assert database.effects() == {}
    assert database.value(STATES) == ["paused"]
    paused.signal(signal.SIGCONT)
    wait_until(lambda: not database.waiting, report=lambda: paused.output)
    assert database.effects() == dict.fromkeys(sent, 1)


def test_it_finishes_what_it_runs(database, send_all, start_worker, tmp_path):
    gate = tmp_path / "gate"
    send_all("gated", [{"gate": str(gate)}] * 3)
    worker = start_worker("--processes=1", ready=1)
    wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
    worker.signal(signal.SIGTSTP)
    wait_until(lambda: database.value(STATES) == ["paused"], report=lambda: worker.output)
    gate.touch()
    wait_until(lambda: database.effects(), report=lambda: worker.output)
    seen = database.value("SELECT min(seen_at) FROM messaging_worker")
    wait_until(lambda: database.value("SELECT min(seen_at) > %s FROM messaging_worker", seen))
    assert len(database.effects()) == 1
    assert database.ready == 2


def test_a_process_that_replaces_a_killed_one_waits_too(database, send_all, paused):
    before = paused.children
    send_all("alone", [{}])
    before[0].kill()
    wait_until(lambda: database.workers == 3, report=lambda: paused.output)
    assert database.value(STATES) == ["paused"]
    assert database.effects() == {}


def test_a_drain_waits_as_well(database, send_all, start_worker, tmp_path):
    gate = tmp_path / "gate"
    send_all("gated", [{"gate": str(gate)}] * 2)
    worker = start_worker("--processes=1", "--drain", ready=1)
    wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
    worker.signal(signal.SIGTSTP)
    wait_until(lambda: database.value(STATES) == ["paused"], report=lambda: worker.output)
    gate.touch()
    wait_until(lambda: database.effects(), report=lambda: worker.output)
    worker.signal(signal.SIGCONT)
    assert worker.wait() == 0, worker.output
    assert len(database.effects()) == 2


def test_it_can_be_stopped(paused):
    paused.signal(signal.SIGTERM)
    assert paused.wait(15) == 0, paused.output
    assert not paused.survivors


def test_a_supervisor_that_waits_still_counts_deaths(database, send_all, start_worker, tmp_path):
    gate = tmp_path / "gate"
    (sent,) = send_all("gated", [{"gate": str(gate)}])
    worker = start_worker("--processes=1", ready=1)
    wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
    worker.signal(signal.SIGTSTP)
    wait_until(lambda: database.value(STATES) == ["paused"], report=lambda: worker.output)
    worker.children[0].kill()
    wait_until(lambda: database.attempts(sent) == [1], report=lambda: worker.output)
