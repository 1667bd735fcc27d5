"""The supervisor answers for its processes: their health, size, time and name."""

import json
import signal
import socket
import urllib.error
import urllib.request

import psycopg
import pytest
from machinery import wait_until


@pytest.fixture
def port():
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, path="/healthz", method="GET"):
    """Return status and facts of an answer, or 0 when there is none."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")
    except OSError:
        return 0, {}


class TestHealth:
    def test_is_good_while_every_process_lives(self, start_worker, port):
        worker = start_worker("--processes=2", f"--health-port={port}", ready=2)
        status, facts = ask(port)
        assert status == 200, worker.output
        assert facts["healthy"] is True
        assert facts["state"] == "running"
        assert len(facts["processes"]) == 2
        assert ask(port, method="HEAD") == (200, {})
        assert ask(port, "/")[0] == 404
        assert ask(port, method="POST")[0] == 405

    def test_is_bad_when_a_process_is_silent(self, start_worker, port):
        worker = start_worker("--processes=2", f"--health-port={port}", ready=2)
        child = worker.children[0]
        child.send_signal(signal.SIGSTOP)
        wait_until(lambda: ask(port)[0] == 503, 30, report=lambda: worker.output)
        child.send_signal(signal.SIGCONT)
        wait_until(lambda: ask(port)[0] == 200, 30, report=lambda: worker.output)

    def test_names_the_messages_that_run(self, send_all, start_worker, port, tmp_path):
        gate = tmp_path / "gate"
        (sent,) = send_all("gated", [{"gate": str(gate)}])
        worker = start_worker("--processes=1", f"--health-port={port}", ready=1)
        wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
        assert ask(port)[1]["processes"][0]["messages"] == [sent]
        worker.signal(signal.SIGUSR1)
        wait_until(lambda: f"'messages': [{sent}]" in worker.output)
        gate.touch()

    def test_of_a_port_in_use_is_refused(self, database, port):
        with socket.create_server(("127.0.0.1", port)):
            done = database.manage("runworker", f"--health-port={port}")
        assert done.returncode == 1
        assert f"port {port}: Address already in use" in done.stderr
        assert "Traceback" not in done.stderr

    def test_is_given_to_others_beside_one_that_says_nothing(self, start_worker, port):
        start_worker("--processes=1", f"--health-port={port}", ready=1)
        with socket.create_connection(("127.0.0.1", port)) as silent:
            silent.sendall(b"GET /heal")
            assert ask(port)[0] == 200


def test_a_process_that_grows_too_large_is_replaced_and_nothing_is_counted(
    database, send_all, start_worker
):
    worker = start_worker("--processes=1", "--max-memory=300", ready=1)
    sent = []
    for number in (1, 2):
        sent += send_all("hungry", [{"mib": 300}])
        wait_until(
            lambda number=number: worker.output.count("Worker process retires") == number,
            report=lambda: worker.output,
        )
    sent += send_all("hungry", [{"mib": 0}])
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.effects() == dict.fromkeys(sent, 1)
    assert database.value("SELECT count(DISTINCT worker) FROM trials_effect") == 3
    assert database.value("SELECT count(*) FROM messaging_attempt") == 0
    assert "Worker process died" not in worker.output


def test_a_handler_past_its_hard_timeout_is_killed_and_dies_of_it(database, send_all, start_worker):
    (late,) = send_all("hurried", [{}])
    sent = send_all("alone", [{}] * 20)
    worker = start_worker("--processes=1")
    wait_until(lambda: database.dead(), report=lambda: worker.output)
    assert database.dead() == {late: ("timeout", 2)}
    assert database.value("SELECT error FROM messaging_deadletter") == "HandlerTimeout"
    assert database.attempts(late) == [1, 2]
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.effects() == dict.fromkeys(sent, 1)


def test_messages_beside_one_past_its_hard_timeout_are_not_counted(
    database, send_all, start_worker, tmp_path
):
    gate = tmp_path / "gate"
    (beside,) = send_all("gated", [{"gate": str(gate)}])
    worker = start_worker("--processes=1", "--threads=2", ready=1)
    wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
    (late,) = send_all("hurried", [{}])
    wait_until(lambda: database.dead(), report=lambda: worker.output)
    gate.touch()
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.dead() == {late: ("timeout", 2)}
    assert database.attempts(beside) == []
    assert database.effects() == {beside: 1}


class TestAName:
    def test_is_that_of_its_processes(self, database, start_worker):
        worker = start_worker("--processes=2", "--name=front", ready=2)
        wait_until(
            lambda: (
                database.rows("SELECT split_part(name, '/', 1) FROM messaging_worker")
                == [("front",), ("front",)]
            ),
            report=lambda: worker.output,
        )

    def test_of_a_living_worker_is_refused(self, database, start_worker):
        start_worker("--processes=1", "--name=front", ready=1)
        done = database.manage("runworker", "--name=front")
        assert done.returncode == 1
        assert "Another worker named 'front' is alive: process" in done.stderr
        assert "Traceback" not in done.stderr
        other = start_worker("--processes=1", "--name=front2")
        wait_until(lambda: database.workers >= 2, report=lambda: other.output)

    def test_of_a_killed_worker_is_free_when_its_heartbeat_is_old(self, database, start_worker):
        worker = start_worker("--processes=1", "--name=front", ready=1)
        (child,) = worker.children
        worker.signal(signal.SIGKILL)
        child.kill()
        worker.wait()
        database.execute("UPDATE messaging_worker SET seen_at = seen_at - interval '12 seconds'")
        start_worker("--processes=1", "--name=front", "--drain").wait()

    def test_of_a_worker_that_ended_is_free_at_once(self, database, start_worker):
        for _ in range(2):
            worker = start_worker("--processes=1", "--name=front", "--drain")
            assert worker.wait(10) == 0, worker.output
        assert database.workers == 0


def test_the_stacks_of_all_processes_are_printed(send_all, start_worker, tmp_path):
    gate = tmp_path / "gate"
    send_all("gated", [{"gate": str(gate)}])
    worker = start_worker("--processes=2", ready=2)
    wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
    worker.signal(signal.SIGQUIT)
    wait_until(
        lambda: worker.output.count("in _run_child") == 2,
        report=lambda: worker.output,
    )
    assert "in handle_when_opened" in worker.output
    assert worker.is_running
    gate.touch()


def test_a_stop_during_the_start_ends_well(server, database, start_worker):
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with psycopg.connect(database.url) as lock:
        lock.execute("LOCK TABLE messaging_queue")
        worker = start_worker("--processes=1")
        wait_until(lambda: database.value(blocked), report=lambda: worker.output)
        worker.signal(signal.SIGTERM)
        assert worker.wait(10) == 0, worker.output
    assert "Traceback" not in worker.output
