"""A worker of a developer starts again when code changes, and ends when it is told."""

import shutil
import signal

import machinery
import psutil
import pytest
from machinery import wait_until

NEW = """

@consumer("fresh")
def handle_fresh(message: Message) -> None:
    take_effect(message)
"""


@pytest.fixture
def consumers(tmp_path, monkeypatch):
    """Return the file of the consumers in a project that a test may change."""
    project = shutil.copytree(machinery.PROJECT, tmp_path / "project")
    monkeypatch.setattr(machinery, "PROJECT", project)
    return project / "trials" / "consumers.py"


def test_changed_code_is_taken_up_and_a_mistake_in_it_survived(
    database, send_all, start_worker, consumers
):
    worker = start_worker("--autoreload", "--processes=1")
    wait_until(lambda: database.workers == 1, report=lambda: worker.output)
    code = consumers.read_text()
    consumers.write_text(code + NEW)
    wait_until(
        lambda: database.value("SELECT count(*) FROM messaging_queue WHERE name = 'fresh'"),
        report=lambda: worker.output,
    )
    first = send_all("fresh", [{}])
    wait_until(lambda: not database.waiting, report=lambda: worker.output)

    consumers.write_text(code + NEW + "\n\ndef broken(:\n")
    wait_until(lambda: "waits for code to change" in worker.output, report=lambda: worker.output)
    second = send_all("fresh", [{}])
    assert worker.is_running
    consumers.write_text(code + NEW)
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.effects() == dict.fromkeys(first + second, 1)

    everybody = psutil.Process(worker.process.pid).children(recursive=True)
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == 0, worker.output
    assert not [process for process in everybody if machinery.lives(process)]
    assert database.workers == 0


def test_a_message_is_finished_before_changed_code_is_taken_up(
    database, send_all, start_worker, consumers, tmp_path
):
    gate = tmp_path / "gate"
    (sent,) = send_all("gated", [{"gate": str(gate)}])
    worker = start_worker("--autoreload", "--processes=1")
    wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
    consumers.write_text(consumers.read_text() + NEW)
    wait_until(lambda: database.value("SELECT state FROM messaging_worker") == "stopping")
    gate.touch()
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.effects() == {sent: 1}
    assert database.attempts(sent) == []
    wait_until(lambda: worker.output.count("Worker process started") == 2)


def test_a_worker_that_is_done_is_not_started_again(database, send_all, start_worker, consumers):
    sent = send_all("alone", [{}])
    worker = start_worker("--autoreload", "--processes=1", "--drain")
    assert worker.wait(30) == 0, worker.output
    assert database.effects() == dict.fromkeys(sent, 1)
