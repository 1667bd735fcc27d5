"""The listener: hears what arrives, and hears again after its connection was cut."""

import psycopg
import pytest
from django.db import OperationalError
from effects import execute

from messaging import send
from messaging.engines.wakeup import EVERYTHING
from messaging.models import Delivery
from messaging.store import notifications
from messaging.worker import listener as module
from messaging.worker.listener import Listener

pytestmark = pytest.mark.django_db(transaction=True)

LISTENERS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND query LIKE 'LISTEN%%' AND pid <> pg_backend_pid()
"""


class Heard:
    def __init__(self):
        self.arrivals = []
        self.changes = 0

    def arrived(self, arrivals):
        self.arrivals.extend(arrivals)

    def changed(self):
        self.changes += 1


@pytest.fixture
def heard():
    return Heard()


@pytest.fixture(autouse=True)
def _quick_to_stop(way_past_a_pooler, monkeypatch):
    monkeypatch.setattr(module, "SLICE", 0.05)


@pytest.fixture
def listening(heard, until):
    """Return a listener that listens."""
    listener = Listener(None, heard.arrived, heard.changed)
    listener.start()
    until(lambda: heard.changes)
    yield listener
    listener.stop()
    listener.join(10)
    assert not listener.is_alive()


def notify(payload):
    execute("SELECT pg_notify(%s, %s)", notifications.CHANNEL, payload)


def test_what_arrives_is_passed_on(listening, heard, until, queue):
    invoices = queue("invoices")
    send("invoices", 1, priority=4)
    until(lambda: heard.arrivals)
    (arrival,) = heard.arrivals
    assert (arrival.queue_id, arrival.priority) == (invoices.pk, 4)
    assert arrival.first == Delivery.objects.get().pk


def test_a_change_of_configuration_is_passed_on(listening, heard, until):
    before = heard.changes
    notify(EVERYTHING)
    until(lambda: heard.changes == before + 1)


def test_what_it_does_not_understand_means_look_at_everything(listening, heard, until):
    for payload in ["nonsense", "", "1:2", "1:2:3:4", "a:b:c"]:
        before = heard.changes
        notify(payload)
        until(lambda before=before: heard.changes == before + 1)
    assert listening.is_alive()


def test_a_cut_connection_is_replaced_and_everything_looked_at(listening, heard, until):
    before = heard.changes
    (pid,) = execute(LISTENERS)[0]
    execute("SELECT pg_terminate_backend(%s)", pid)
    # What came while it was deaf was not heard.
    until(lambda: heard.changes > before)
    notify("7:0:1")
    until(lambda: heard.arrivals)


def test_it_goes_on_trying_while_the_server_is_away(heard, until, monkeypatch):
    tries = []
    connect = notifications.connect

    def refuse_twice(connection):
        tries.append(True)
        if len(tries) == 1:
            raise psycopg.OperationalError("the server is away")
        if len(tries) == 2:
            raise OperationalError("the server is away, as Django says it")
        return connect(connection)

    monkeypatch.setattr(module.notifications, "connect", refuse_twice)
    monkeypatch.setattr(module.random, "uniform", lambda least, most: 0.0)
    listener = Listener(None, heard.arrived, heard.changed)
    listener.start()
    until(lambda: heard.changes)
    listener.stop()
    listener.join(10)
    assert len(tries) == 3


def test_behind_a_pooler_it_says_that_it_polls_and_does_not_try_again(
    heard, monkeypatch, caplog, settings
):
    settings.MESSAGING = {"LISTEN_URL": None}
    monkeypatch.setattr(notifications, "is_pooled", lambda raw, backend: True)
    listener = Listener(None, heard.arrived, heard.changed)
    listener.start()
    listener.join(10)
    assert not listener.is_alive()
    assert caplog.text.count("Worker polls every=1.0 reason=") == 1
    assert "LISTEN_URL" in caplog.text
    assert execute(LISTENERS) == []
