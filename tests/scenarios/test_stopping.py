"""A worker that is stopped finishes what it runs, gives back the rest, and counts nothing."""

import signal

import pytest
from machinery import wait_until


@pytest.fixture
def gate(tmp_path):
    """Return the path whose creation lets the handlers of gated messages end."""
    return tmp_path / "gate"


@pytest.fixture
def busy(send_all, start_worker, gate):
    """Return a worker that is in the middle of a message; nine more are ready."""

    def start(*arguments):
        send_all("gated", [{"gate": str(gate)}] * 10)
        worker = start_worker("--processes=1", *arguments, ready=1)
        wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
        return worker

    return start


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_worker_finishes_the_message_it_runs(database, busy, gate, number):
    worker = busy()
    (child,) = worker.children
    worker.signal(number)
    # It has understood, and waits for the handler.
    wait_until(lambda: database.value("SELECT state FROM messaging_worker") == "stopping")
    assert child.is_running()
    gate.touch()
    assert worker.wait() == 0, worker.output
    assert not worker.survivors
    assert sum(database.effects().values()) == 1
    assert database.ready == 9
    assert database.value("SELECT count(*) FROM messaging_attempt") == 0
    assert database.workers == 0


def test_a_service_manager_that_signals_every_process_does_not_cut_the_message_short(
    database, busy, gate
):
    worker = busy()
    (child,) = worker.children
    child.send_signal(signal.SIGTERM)
    worker.signal(signal.SIGTERM)
    wait_until(lambda: database.value("SELECT state FROM messaging_worker") == "stopping")
    gate.touch()
    assert worker.wait() == 0, worker.output
    assert sum(database.effects().values()) == 1
    assert database.ready == 9


def test_a_second_signal_ends_the_worker_now_and_counts_nothing(database, busy):
    worker = busy()
    worker.signal(signal.SIGTERM)
    wait_until(lambda: database.value("SELECT state FROM messaging_worker") == "stopping")
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 0, worker.output
    assert not worker.survivors
    assert_nothing_happened(database)


def test_a_handler_that_outlasts_the_grace_is_undone_and_not_counted(database, busy):
    worker = busy("--grace=0.5")
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 0, worker.output
    assert "abandons" in worker.output
    assert not worker.survivors
    assert_nothing_happened(database)


def test_the_processes_of_a_killed_supervisor_end_by_themselves(database, busy, gate):
    worker = busy()
    assert len(worker.children) == 1
    worker.signal(signal.SIGKILL)
    worker.wait()
    wait_until(lambda: database.value("SELECT state FROM messaging_worker") == "stopping")
    gate.touch()
    wait_until(lambda: not worker.survivors, 10, report=lambda: worker.output)
    assert sum(database.effects().values()) == 1
    assert database.ready == 9
    assert database.value("SELECT count(*) FROM messaging_attempt") == 0


def test_idle_processes_of_a_killed_supervisor_end_by_themselves(database, start_worker):
    worker = start_worker("--processes=2", ready=2)
    worker.signal(signal.SIGKILL)
    wait_until(lambda: not worker.survivors, 10, report=lambda: worker.output)


def test_a_worker_stopped_while_it_starts_ends_as_well(start_worker):
    worker = start_worker("--processes=2")
    # The first process has been forked, its handlers may not be in place.
    wait_until(lambda: "Worker process started" in worker.output)
    worker.signal(signal.SIGTERM)
    assert worker.wait(15) == 0, worker.output
    assert not worker.survivors


def assert_nothing_happened(database):
    """Every message is ready for its first delivery, as if no worker had been there."""
    wait_until(lambda: database.ready == 10)
    assert database.rows("SELECT DISTINCT attempt FROM messaging_delivery") == [(1,)]
    assert database.effects() == {}
    assert database.value("SELECT count(*) FROM messaging_attempt") == 0
    assert database.value("SELECT count(*) FROM messaging_scheduled") == 0
