"""Workers do all they do behind PgBouncer in transaction mode, with fewer sessions than clients."""

import os

import pytest
from machinery import wait_until
from pooler import PROGRAM, PooledDatabase, Pooler

SESSIONS = 4
RECONNECTED_WITHIN = 5  # seconds
TERMINATE = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""

pytestmark = pytest.mark.skipif(
    not PROGRAM and not os.environ.get("CI"), reason="apt install pgbouncer"
)


@pytest.fixture(scope="module")
def pooler(server):
    pooler = Pooler(server, size=SESSIONS)
    pooler.start()
    yield pooler
    pooler.remove()


@pytest.fixture
def database(database, pooler):
    return PooledDatabase(database, pooler)


def everything(send_all):
    """Send to consumers of every kind, and return the ids."""
    return [
        *send_all("alone", [{}, {"end": "fail twice"}] * 100),
        *send_all("together", [{}, {"end": "retry"}] * 100),
        *send_all("leased", [{}] * 50),
        *send_all("looped", [{}] * 50),
        *(id for key in "abcde" for id in send_all("keyed", [{}] * 40, ordering_key=key)),
    ]


def test_everything_is_handled_once_and_what_cannot_be_heard_is_polled(
    database, send_all, start_worker
):
    worker = start_worker("--processes=4", ready=4)
    sent = everything(send_all)
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.effects() == dict.fromkeys(sent, 1)
    assert database.dead() == {}
    assert database.listeners == 0
    assert worker.output.count("Worker polls every=1.0 reason=") == 4
    assert "Traceback" not in worker.output


def test_a_url_past_it_brings_the_wake_ups(database, send_all, start_worker):
    database.messaging = {"LISTEN_URL": database.url, "POLL_INTERVAL": 300}
    worker = start_worker("--processes=2", ready=2)
    wait_until(lambda: database.listeners == 2)
    for round in range(1, 6):
        sent = send_all("alone", [{}])
        wait_until(lambda sent=sent: database.effects().keys() >= {*sent})
        assert len(database.effects()) == round
    assert "Worker polls" not in worker.output


def test_sessions_that_are_ended_behind_it_cost_nothing_but_a_reconnect(
    database, send_all, start_worker
):
    sent = send_all("alone", [{}] * 500) + send_all("together", [{}] * 500)
    worker = start_worker("--processes=2")
    cuts = 0
    for handled in range(50, 1000, 100):
        wait_until(lambda goal=handled: len(database.effects()) >= goal)
        cuts += database.value(TERMINATE)
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.effects() == dict.fromkeys(sent, 1)
    assert database.value("SELECT count(*) FROM messaging_attempt") == 0
    assert "Worker process died" not in worker.output
    assert cuts >= 10


def test_its_own_death_is_survived(database, send_all, start_worker, pooler):
    worker = start_worker("--processes=2", ready=2)
    processes = worker.children
    sent = send_all("alone", [{}] * 500) + send_all("together", [{}] * 500)
    wait_until(lambda: len(database.effects()) > 50)
    pooler.kill()
    pooler.start()
    before = len(database.effects())
    assert before < len(sent), "it came too late to disturb anything"
    wait_until(
        lambda: len(database.effects()) > before, RECONNECTED_WITHIN, report=lambda: worker.output
    )
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.effects() == dict.fromkeys(sent, 1)
    assert database.value("SELECT count(*) FROM messaging_attempt") == 0
    assert worker.children == processes
