"""Diagnosing: what is wrong is told with the fix, and nothing else is."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from control_rows import bury
from django.db import connection
from django.db.utils import OperationalError

from messaging import consumer, consuming, control, declare_topic, send
from messaging.control import Level
from messaging.control import diagnosing as module
from messaging.models import Message, Queue
from messaging.store import doctoring

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the round trip of a notification to the tests of the command."""
    monkeypatch.setattr(doctoring, "hears", lambda connection, seconds: True)
    yield


def told(what: str) -> list[tuple[Level, str]]:
    return [
        (each.level, f"{each.text} {each.fix}") for each in control.diagnose() if each.what == what
    ]


def sql(text: str, *params: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(text, params or None)


def test_what_is_declared_and_missing_is_an_error(declared: consuming.Declarations) -> None:
    assert told("declarations") == []
    declare_topic("parcels.sent")
    ((level, text),) = told("declarations")
    assert level is Level.ERROR
    assert "topic parcels.sent. Run manage.py sync_messaging" in text


def test_a_queue_that_nobody_serves_is_an_error_where_code_has_a_consumer(
    queue: Queue, declared: consuming.Declarations
) -> None:
    send("letters", 1)
    ((level, _),) = told("consumers")
    assert (level, told("workers")) == (Level.WARNING, [])
    consumer("letters")(print)
    ((level, text),) = told("workers")
    assert level is Level.ERROR
    assert "runworker letters" in text
    sql(
        """INSERT INTO messaging_worker (name, host, pid, version, queues, threads, running,
            handled, failed, state, started_at, seen_at)
        VALUES ('w', 'h', 1, '', '["letters"]', 1, '{}', 0, 0, 'running', now(),
            statement_timestamp())"""
    )
    assert told("workers") == []
    sql("UPDATE messaging_message SET published_at = now() - interval '2 hours'")
    assert "waits for 2.0 hours" in told("age")[0][1]


def test_a_queue_that_is_paused_for_long_is_a_warning(queue: Queue) -> None:
    send("letters", 1)
    control.pause("letters")
    assert told("paused") == []
    Queue.objects.filter(pk=queue.pk).update(paused_at="2026-01-01T00:00Z")
    ((level, text),) = told("paused")
    assert level is Level.WARNING
    assert "queues resume letters" in text
    assert told("consumers") == []


def test_dead_letters_of_the_last_hour_are_a_warning(queue: Queue) -> None:
    bury(queue, 2)
    assert "2 messages died" in told("dead letters")[0][1]
    sql("UPDATE messaging_deadletter SET died_at = now() - interval '2 hours'")
    assert told("dead letters") == []


def test_pruning_that_is_behind_is_a_warning(queue: Queue) -> None:
    Message.objects.create(queue=queue, headers={}, body=1, published_at="2026-01-01T00:00Z")
    assert "1 of the oldest messages" in told("retention")[0][1]
    send("letters", 1)
    sql("DELETE FROM messaging_message WHERE published_at < '2026-01-02'")
    sql("UPDATE messaging_message SET published_at = '2026-01-01'")
    assert told("retention") == []


def test_dead_rows_old_transactions_connections_and_clocks_are_warnings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = doctoring.server(connection)
    wrong = server._replace(sessions=90, most_sessions=97, clock=server.clock - 60)
    monkeypatch.setattr(doctoring, "server", lambda connection: wrong)
    monkeypatch.setattr(doctoring, "dead_rows", lambda *args: [("messaging_lease", 2_000_000)])
    monkeypatch.setattr(doctoring, "oldest_transaction", lambda *args: (7, "psql", "idle", 400.0))
    assert "90 of 97 connections" in told("connections")[0][1]
    assert "differ by" in told("clock")[0][1]
    assert "VACUUM messaging_lease" in told("vacuum")[0][1]
    assert "pg_terminate_backend(7)" in told("transaction")[0][1]
    monkeypatch.setattr(doctoring, "server", lambda connection: server._replace(autovacuum=False))
    assert (Level.ERROR, "autovacuum is off: tables only grow. Set autovacuum = on.") in told(
        "vacuum"
    )


@pytest.mark.parametrize("kind", ["deaf", "refused"])
def test_a_notification_that_is_not_heard_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def hears(connection: object, seconds: float) -> bool:
        if kind == "refused":
            raise OperationalError("no way")
        return False

    monkeypatch.setattr(doctoring, "hears", hears)
    ((level, text),) = told("wake-up")
    assert level is Level.WARNING
    assert "LISTEN_URL" in text


def test_tables_that_are_not_up_to_date_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_migrated", lambda using: False)
    assert told("migrations")[0][0] is Level.ERROR
    assert told("wake-up") == []


def test_a_database_that_is_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(connection: object) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(doctoring, "server", away)
    ((level, text),) = told("database")
    assert level is Level.ERROR
    assert "connection refused" in text


def test_what_the_settings_lack_is_told_too(settings: Any) -> None:
    settings.MESSAGING = {"COLOUR": "red"}
    assert told("messaging.E001")[0][0] is Level.ERROR


def test_a_transaction_that_is_open_elsewhere_is_seen(
    elsewhere: Callable[..., Any], until: Callable[..., None]
) -> None:
    import threading

    from django.db import transaction

    may_end = threading.Event()

    def hold() -> None:
        with transaction.atomic():
            Queue.objects.create(name="held")
            may_end.wait(30)

    held = elsewhere(hold)
    try:
        until(lambda: doctoring.oldest_transaction(connection) is not None)
    finally:
        may_end.set()
        held.result(30)
