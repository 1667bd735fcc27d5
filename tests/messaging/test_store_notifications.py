"""Notifications travel on an autocommit connection of their own, within PostgreSQL's limits."""

from types import SimpleNamespace

import psycopg
import pytest
from django.db import connection
from psycopg.conninfo import make_conninfo

from messaging.models import Stat
from messaging.store import notifications

pytestmark = pytest.mark.django_db


@pytest.fixture
def connect():
    """Return a function that opens a connection, which the test need not close."""
    opened = []

    def open_one():
        opened.append(notifications.connect(connection))
        return opened[-1]

    yield open_one
    for raw in opened:
        raw.close()


def value(raw, expression):
    return raw.execute(f"SELECT {expression}").fetchone()[0]


def test_a_connection_is_another_session_of_the_same_database(connect):
    connection.ensure_connection()
    raw = connect()
    assert value(raw, "current_database()") == connection.settings_dict["NAME"]
    assert raw.info.backend_pid != connection.connection.info.backend_pid
    assert raw.autocommit
    assert value(raw, "current_setting('application_name')") == "messaging wake-up"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "send",
    [
        lambda raw, number: notifications.notify(raw, f"{number}:0:1"),
        lambda raw, number: notifications.record_published(raw, "web-1", {number: 3}),
    ],
    ids=["notify", "record_published"],
)
def test_its_commits_do_not_wait_for_the_disk_and_the_session_is_left_as_it_was(
    connect, send, queue
):
    raw = connect()
    with raw.transaction():
        send(raw, queue("invoices").pk)
        assert value(raw, "current_setting('synchronous_commit')") == "off"
    # Behind a pooler the session is somebody else's now, who waits for the disk.
    assert value(raw, "current_setting('synchronous_commit')") == "on"


class Pooled:
    """A connection as a pooler gives it: its key is none of the server's."""

    def __init__(self, raw):
        self._raw = raw
        self.info = SimpleNamespace(backend_pid=raw.info.backend_pid + 1)

    def __getattr__(self, name):
        return getattr(self._raw, name)


class TestBehindAPooler:
    def test_nothing_is_listened_to(self, connect):
        raw = connect()
        with pytest.raises(psycopg.NotSupportedError, match="LISTEN_URL"):
            notifications.start_listening(Pooled(raw))
        assert raw.execute("SELECT pg_listening_channels()").fetchall() == []

    @pytest.mark.usefixtures("way_past_a_pooler")
    def test_a_url_is_trusted(self, connect, settings):
        raw = connect()
        settings.MESSAGING = {"LISTEN_URL": "postgresql://session-pooled/"}
        notifications.start_listening(Pooled(raw))
        assert raw.execute("SELECT pg_listening_channels()").fetchall() == [("messaging",)]


@pytest.mark.parametrize(
    ("named", "name"), [({"application_name": "direct"}, "direct"), ({}, "messaging wake-up")]
)
def test_a_url_leads_past_a_pooler(connect, settings, named, name):
    found = connection.settings_dict
    settings.MESSAGING = {
        "LISTEN_URL": make_conninfo(
            dbname=found["NAME"],
            host=found["HOST"],
            port=found["PORT"],
            user=found["USER"],
            password=found["PASSWORD"],
            **named,
        )
    }
    assert value(connect(), "current_setting('application_name')") == name


@pytest.mark.usefixtures("way_past_a_pooler")
def test_who_listens_hears_what_others_notify(connect):
    listener, sender = connect(), connect()
    notifications.start_listening(listener)
    largest = "x" * notifications.MAX_PAYLOAD
    notifications.notify(sender, "first")
    notifications.notify(sender, largest)
    heard = []
    for payload in notifications.listen(listener, 15):
        heard.append(payload)
        if len(heard) == 2:
            break
    assert heard == ["first", largest]
    assert list(notifications.listen(listener, 0)) == []


def test_postgresql_refuses_a_little_more_than_our_limit(connect):
    assert notifications.MAX_PAYLOAD < 8000
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        notifications.notify(connect(), "x" * 8000)


@pytest.mark.django_db(transaction=True)
def test_what_was_published_is_one_row_a_queue_in_one_statement(connect, queue):
    first, second = queue("first"), queue("second")
    notifications.record_published(connect(), "web-1", {first.pk: 3, second.pk: 5})
    rows = Stat.objects.filter(process="web-1")
    assert sorted(rows.values_list("queue__name", "published", "acknowledged")) == [
        ("first", 3, 0),
        ("second", 5, 0),
    ]


@pytest.mark.django_db(transaction=True)
def test_what_was_published_to_a_queue_that_is_gone_is_not_recorded(connect, queue):
    there, gone = queue("there"), queue("gone")
    number = gone.pk
    gone.delete()
    notifications.record_published(connect(), "web-1", {there.pk: 3, number: 5})
    assert list(Stat.objects.values_list("queue_id", "published")) == [(there.pk, 3)]
