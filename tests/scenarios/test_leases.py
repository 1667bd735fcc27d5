"""What is held under a lease survives its worker, and is handled once whatever happens to that."""

import os
import signal

import pytest
from machinery import wait_until

QUEUES = pytest.mark.parametrize("queue", ["leased", "looped"])
LEASES = "SELECT count(*) FROM messaging_lease"


@QUEUES
def test_messages_that_kill_their_worker_die_and_their_neighbours_are_handled_once(
    database, send_all, start_worker, queue
):
    sent = send_all(queue, [{}] * 20)
    poison = send_all(queue, [{"end": "killed"}, {"end": "exit"}])
    sent += send_all(queue, [{}] * 20)
    worker = start_worker(queue, "--processes=2")
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.effects() == dict.fromkeys(sent, 1)
    assert database.dead() == dict.fromkeys(poison, ("worker_died", 3))
    for message_id in poison:
        assert database.attempts(message_id) == [1, 2, 3]
    assert worker.is_running


@QUEUES
def test_a_killed_worker_counts_at_once_and_not_when_the_lease_ends(
    database, send_all, start_worker, tmp_path, queue
):
    gate = tmp_path / "gate"
    (sent,) = send_all(queue, [{"gate": str(gate)}])
    worker = start_worker(queue, "--processes=1", ready=1)
    wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
    database.execute("UPDATE messaging_lease SET leased_until = leased_until + interval '1 hour'")
    (child,) = worker.children
    os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: database.attempts(sent) == [1], report=lambda: worker.output)
    gate.touch()
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.rows("SELECT message_id, attempt FROM trials_effect") == [(sent, 2)]
    assert database.attempts(sent) == [1]


@QUEUES
def test_a_handler_outlives_its_lease_many_times_over(
    database, send_all, start_worker, tmp_path, queue
):
    gate = tmp_path / "gate"
    (sent,) = send_all(queue, [{"gate": str(gate)}])
    worker = start_worker(queue, "--processes=2", ready=2)
    wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
    held = "SELECT statement_timestamp() > leased_at + interval '5 seconds' FROM messaging_lease"
    wait_until(lambda: database.value(held), report=lambda: worker.output)
    gate.touch()
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.rows("SELECT message_id, attempt FROM trials_effect") == [(sent, 1)]


@QUEUES
def test_a_worker_that_was_stopped_past_its_lease_commits_nothing_and_lives_on(
    database, send_all, start_worker, tmp_path, queue
):
    gate = tmp_path / "gate"
    (sent,) = send_all(queue, [{"gate": str(gate)}])
    worker = start_worker(queue, "--processes=1", ready=1)
    wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
    (zombie,) = worker.children
    os.kill(zombie.pid, signal.SIGSTOP)
    gate.touch()
    other = start_worker(queue, "--processes=1")
    wait_until(lambda: database.effects() == {sent: 1}, report=lambda: other.output)
    os.kill(zombie.pid, signal.SIGCONT)
    wait_until(lambda: f"lost its lease and is not settled id={sent}" in worker.output)
    assert database.rows("SELECT message_id, attempt FROM trials_effect") == [(sent, 2)]
    assert database.attempts(sent) == [1]
    assert worker.children == [zombie]


@QUEUES
def test_what_a_stopping_worker_cannot_finish_is_released_uncounted(
    database, send_all, start_worker, tmp_path, queue
):
    gate = tmp_path / "gate"
    (sent,) = send_all(queue, [{"gate": str(gate)}])
    worker = start_worker(queue, "--processes=1", "--grace=0.2", ready=1)
    wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert database.rows("SELECT message_id, attempt FROM messaging_delivery") == [(sent, 1)]
    assert (database.value(LEASES), database.attempts(sent), database.effects()) == (0, [], {})


@QUEUES
def test_what_a_worker_holds_that_is_told_twice_to_stop_is_released_uncounted(
    database, send_all, start_worker, tmp_path, queue
):
    gate = tmp_path / "gate"
    (sent,) = send_all(queue, [{"gate": str(gate)}])
    worker = start_worker(queue, "--processes=1", ready=1)
    wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
    worker.signal(signal.SIGTERM)
    worker.signal(signal.SIGINT)
    assert worker.wait() == 0
    assert database.rows("SELECT message_id, attempt FROM messaging_delivery") == [(sent, 1)]
    assert (database.value(LEASES), database.attempts(sent), database.effects()) == (0, [], {})


@QUEUES
def test_a_drain_handles_leased_messages_and_ends(database, send_all, start_worker, queue):
    sent = send_all(queue, [{}] * 30)
    worker = start_worker(queue, "--drain")
    assert worker.wait() == 0
    assert database.effects() == dict.fromkeys(sent, 1)
    assert database.waiting == 0
