"""A handler that takes its process with it is counted, and harms nobody else."""

import os
import signal

import pytest
from machinery import wait_until

ENDS = ["exit", "exit well", "segfault", "killed"]


@pytest.mark.parametrize("threads", [1, 2])
def test_messages_that_kill_their_worker_die_and_their_neighbours_are_handled_once(
    database, send_all, start_worker, threads
):
    sent, poison = [], []
    for end in ENDS:
        sent += send_all("alone", [{}] * 20)
        poison += send_all("alone", [{"end": end}])
    sent += send_all("alone", [{}] * 20)
    worker = start_worker("--processes=2", f"--threads={threads}")
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.effects() == dict.fromkeys(sent, 1)
    assert database.dead() == dict.fromkeys(poison, ("worker_died", 3))
    for message_id in poison:
        assert database.attempts(message_id) == [1, 2, 3]
    assert worker.is_running


def test_a_death_in_a_shared_transaction_is_counted_against_its_message_alone(
    database, send_all, start_worker
):
    sent = send_all("together", [{}] * 30)
    (poison,) = send_all("together", [{"end": "segfault"}])
    sent += send_all("together", [{}] * 30)
    worker = start_worker("--processes=2")
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.effects() == dict.fromkeys(sent, 1)
    assert database.dead() == {poison: ("worker_died", 3)}
    assert database.value("SELECT count(*) FROM messaging_attempt") == 3


def test_messages_beside_one_that_kills_their_process_are_not_taken_for_guilty(
    database, send_all, start_worker
):
    bystanders = send_all("alone", [{"end": "linger"}] * 3)
    (poison,) = send_all("alone", [{"end": "exit"}])
    worker = start_worker("--processes=1", "--threads=4")
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.dead() == {poison: ("worker_died", 3)}
    assert database.effects() == dict.fromkeys(bystanders, 1)
    # Beside the poison once, and after that alone.
    assert all(len(database.attempts(message_id)) <= 1 for message_id in bystanders)


def test_the_dead_letter_says_how_the_process_died(database, send_all, start_worker):
    send_all("alone", [{"end": "killed"}, {"end": "exit"}])
    worker = start_worker("--processes=1")
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    said = database.rows("SELECT error, description FROM messaging_deadletter ORDER BY message_id")
    assert [error for error, _ in said] == ["WorkerDied", "WorkerDied"]
    assert "signal 9 (SIGKILL)" in said[0][1]
    assert "exit code 3" in said[1][1]


def test_a_message_is_delivered_again_when_its_worker_is_killed(
    database, send_all, start_worker, tmp_path
):
    gate = tmp_path / "gate"
    (sent,) = send_all("gated", [{"gate": str(gate)}])
    worker = start_worker("--processes=1", ready=1)
    wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
    (child,) = worker.children
    os.kill(child.pid, signal.SIGKILL)
    wait_until(lambda: database.attempts(sent) == [1], report=lambda: worker.output)
    gate.touch()
    database.execute("UPDATE messaging_scheduled SET due_at = statement_timestamp()")
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.rows("SELECT message_id, attempt FROM trials_effect") == [(sent, 2)]


def test_an_idle_process_that_is_killed_is_replaced(database, send_all, start_worker):
    worker = start_worker("--processes=2", ready=2)
    before = set(worker.children)
    for child in before:
        child.kill()
    wait_until(
        lambda: len(worker.children) == 2 and not before.intersection(worker.children),
        report=lambda: worker.output,
    )
    sent = send_all("alone", [{}] * 10)
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.effects() == dict.fromkeys(sent, 1)
