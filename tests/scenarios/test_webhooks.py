"""Webhooks are sent by real workers: as rows come and go, and again when a worker dies early."""

import json
import os
import signal

import psycopg
import pytest
from machinery import wait_until
from receiver import SECRET
from standardwebhooks import Webhook as Verifier

from messaging.models import Queue, Webhook

WAITS_FOR_A_LOCK = "SELECT count(*) FROM pg_locks WHERE NOT granted"


@pytest.fixture
def add_webhook(send_all, receiver, monkeypatch):
    """Return a function that adds a queue with a webhook to the database of the scenario."""
    settings = {"WEBHOOK_SECRETS": {"partner": SECRET}, "WEBHOOK_ALLOWED_HOSTS": ["127.0.0.1"]}
    monkeypatch.setenv("TRIALS_MESSAGING", json.dumps(settings))

    def add():
        queue = Queue.objects.using("scenario").create(
            name="hooks", backoff="fixed", backoff_base=0, jitter="none"
        )
        return Webhook.objects.using("scenario").create(
            name="partner", queue=queue, url=receiver.url(), secret="partner"
        )

    return add


def test_one_that_was_answered_is_sent_again_under_its_id_when_the_worker_dies_before_the_commit(
    database, add_webhook, send_all, start_worker, receiver
):
    add_webhook()
    receiver.opened.clear()
    worker = start_worker("hooks", "--processes=1", ready=1)
    (sent,) = send_all("hooks", [{"order_id": 7}])
    wait_until(lambda: receiver.requests, report=lambda: worker.output)
    with psycopg.connect(database.url) as other:
        other.execute("SELECT FROM messaging_lease FOR UPDATE")
        receiver.opened.set()
        # It has its 200, and waits for the row whose deletion would acknowledge it.
        wait_until(lambda: receiver.answered == 1, report=lambda: worker.output)
        wait_until(lambda: database.value(WAITS_FOR_A_LOCK), report=lambda: worker.output)
        (child,) = worker.children
        os.kill(child.pid, signal.SIGKILL)
        wait_until(lambda: child not in worker.children)
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == f"msg_{sent}"
    assert Verifier(SECRET).verify(second.body, second.headers)["data"] == {"order_id": 7}
    assert database.attempts(sent) == [1]


def test_one_is_served_from_when_it_is_added_as_its_row_says_until_it_is_disabled(
    database, add_webhook, send_all, start_worker, receiver
):
    worker = start_worker("--processes=2", ready=2)
    add_webhook()
    sent = send_all("hooks", [{"n": n} for n in range(100)])
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    ids = [request.headers["webhook-id"] for request in receiver.requests]
    assert sorted(ids) == sorted(f"msg_{each}" for each in sent)
    database.execute("UPDATE messaging_webhook SET url = %s", receiver.url(path="/moved"))

    def has_moved():
        send_all("hooks", [{"n": "moved"}])
        return receiver.requests[-1].path == "/moved"

    wait_until(has_moved, report=lambda: worker.output)
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    serving = "SELECT count(*) FROM messaging_worker WHERE queues @> '[\"hooks\"]'"
    wait_until(lambda: database.value(serving) == 2, report=lambda: worker.output)
    disabled = database.manage("webhooks", "disable", "partner")
    assert disabled.returncode == 0, disabled.stderr
    wait_until(lambda: not database.value(serving), report=lambda: worker.output)
    before = len(receiver.requests)
    send_all("hooks", [{"n": "later"}])
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.output
    assert database.ready == 1
    assert len(receiver.requests) == before


def test_a_drain_sends_what_waits_and_ends(database, add_webhook, send_all, start_worker, receiver):
    add_webhook()
    send_all("hooks", [{"n": n} for n in range(10)])
    worker = start_worker("hooks", "--processes=1", "--drain")
    assert worker.wait() == 0, worker.output
    assert database.waiting == 0
    assert len(receiver.requests) == 10
