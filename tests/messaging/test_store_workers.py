"""Workers leave a heartbeat while they live, and what they did to each queue."""

import json

import pytest
from django.db import connection

from messaging.models import Stat, Worker
from messaging.store import workers

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]


def heartbeat(**changes):
    return {
        "name": "host/1",
        "host": "host",
        "pid": 1,
        "version": "1.0",
        "queues": json.dumps(["invoices"]),
        "threads": 2,
        "running": json.dumps({}),
        "handled": 0,
        "failed": 0,
        "state": "running",
        **changes,
    }


def test_the_first_heartbeat_tells_of_a_worker_and_the_next_what_it_does():
    workers.beat(connection, heartbeat())
    first = Worker.objects.get()
    assert (first.name, first.queues, first.threads) == ("host/1", ["invoices"], 2)
    workers.beat(
        connection,
        heartbeat(running=json.dumps({"invoices": 3}), handled=7, failed=1, state="stopping"),
    )
    second = Worker.objects.get()
    assert (second.running, second.handled, second.failed) == ({"invoices": 3}, 7, 1)
    assert (second.state, second.started_at) == ("stopping", first.started_at)
    assert second.seen_at > first.seen_at


def test_a_worker_that_ends_is_gone_and_the_others_stay():
    workers.beat(connection, heartbeat())
    workers.beat(connection, heartbeat(name="host/2"))
    workers.sign_off(connection, "host/1")
    assert [worker.name for worker in Worker.objects.all()] == ["host/2"]


def test_what_was_done_is_one_row_a_queue(queue):
    first, second = queue("first"), queue("second")
    done = [(first.pk, 5, 1, 0, 3, 0.25), (second.pk, 0, 2, 1, 0, 0.5)]
    workers.record(connection, "host/1", done)
    names = ("published", "acknowledged", "failed", "dead", "expired", "busy")
    rows = Stat.objects.values_list("process", "queue__name", *names)
    assert sorted(rows) == [
        ("host/1", "first", 0, 5, 1, 0, 3, 0.25),
        ("host/1", "second", 0, 0, 2, 1, 0, 0.5),
    ]


def test_heartbeats_are_not_written_ahead():
    with connection.cursor() as cursor:
        cursor.execute("SELECT relpersistence FROM pg_class WHERE relname = 'messaging_worker'")
        assert cursor.fetchone()[0] in ("u", b"u")
