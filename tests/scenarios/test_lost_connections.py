"""Workers survive whatever happens to their connections and to their server."""

from contextlib import suppress

import psycopg
import pytest
from machinery import wait_until

RECONNECTED_WITHIN = 5  # seconds

TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


def test_nothing_is_lost_doubled_or_counted_while_connections_are_cut(
    database, send_all, start_worker
):
    sent = send_all("alone", [{}] * 500) + send_all("together", [{}] * 500)
    worker = start_worker("--processes=2")
    cuts = 0
    for handled in range(50, 1000, 100):
        # Each cut falls somewhere in the work, not before or after it.
        wait_until(lambda goal=handled: len(database.effects()) >= goal)
        cuts += database.value(TERMINATE)
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.effects() == dict.fromkeys(sent, 1)
    assert database.value("SELECT count(*) FROM messaging_attempt") == 0
    assert database.value("SELECT count(*) FROM messaging_deadletter") == 0
    assert "Worker process died" not in worker.output
    assert cuts >= 20


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_of_the_server_is_survived(database, send_all, start_worker, server, mode):
    worker = start_worker("--processes=2", ready=2)
    sent = send_all("alone", [{}] * 500) + send_all("together", [{}] * 500)
    processes = worker.children
    wait_until(lambda: len(database.effects()) > 50)
    server.stop(mode)
    server.start()
    before = len(database.effects())
    assert before < len(sent), "the restart came too late to disturb anything"
    wait_until(
        lambda: len(database.effects()) > before, RECONNECTED_WITHIN, report=lambda: worker.output
    )
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.effects() == dict.fromkeys(sent, 1)
    assert database.value("SELECT count(*) FROM messaging_attempt") == 0
    assert worker.children == processes


def test_a_worker_waits_for_a_server_that_is_away(database, send_all, start_worker, server):
    worker = start_worker("--processes=2", ready=2)
    processes = worker.children
    server.stop("fast")
    wait_until(lambda: worker.output.count("Worker reconnects") >= 4, report=lambda: worker.output)
    server.start()
    sent = send_all("alone", [{}] * 10)
    wait_until(
        lambda: database.effects() == dict.fromkeys(sent, 1),
        RECONNECTED_WITHIN,
        report=lambda: worker.output,
    )
    assert worker.children == processes


@pytest.mark.parametrize(
    "setting",
    ["idle_session_timeout = 300", "idle_in_transaction_session_timeout = 300"],
    ids=["idle", "idle in transaction"],
)
def test_sessions_that_the_server_ends_in_quiet_times_are_replaced(
    database, send_all, start_worker, server, setting
):
    server.execute(f"ALTER DATABASE {database.name} SET {setting}")
    worker = start_worker("--processes=2", ready=2)
    processes = worker.children
    for _ in range(2):
        sent = send_all("alone", [{"end": "linger"}])
        # Longer than the server waits: the listener, the housekeeping and the runners were idle.
        wait_until(
            lambda sent=sent: database.attempts(sent[0]) or sent[0] in database.effects(),
            report=lambda: worker.output,
        )
    assert worker.children == processes
    assert "Worker thread broke" not in worker.output
    assert "Worker process died" not in worker.output


def test_a_server_without_a_free_connection_is_waited_for(database, send_all, start_worker, server):
    worker = start_worker("--processes=2", ready=2)
    processes = worker.children
    before = worker.output.count("Worker reconnects")
    taken = []

    def is_felt():
        """Tell whether both processes, and a thread that handles messages, found no connection."""
        output = worker.output
        return output.count("too many clients") >= 2 and output.count("Worker reconnects") > before

    def take_all() -> bool:
        """Take what is free, and from the worker what it has; tell whether that is felt."""
        looking.execute(TERMINATE)
        with suppress(psycopg.OperationalError):
            while len(taken) <= 100:
                taken.append(psycopg.connect(server.url("postgres")))
        return is_felt()

    try:
        with psycopg.connect(database.url, autocommit=True) as looking:
            wait_until(take_all, report=lambda: worker.output)
    finally:
        for connection in taken:
            connection.close()
    sent = send_all("alone", [{}] * 10)
    wait_until(
        lambda: database.effects() == dict.fromkeys(sent, 1),
        RECONNECTED_WITHIN,
        report=lambda: worker.output,
    )
    assert worker.children == processes


def test_a_death_is_counted_when_the_server_is_back(
    database, send_all, start_worker, server, tmp_path
):
    gate = tmp_path / "gate"
    (sent,) = send_all("gated", [{"gate": str(gate)}])
    worker = start_worker("--processes=1", ready=1)
    wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
    (child,) = worker.children
    server.stop("immediate")
    child.kill()
    wait_until(lambda: "Casualties not counted yet" in worker.output, report=lambda: worker.output)
    server.start()
    wait_until(lambda: database.attempts(sent) == [1], report=lambda: worker.output)
