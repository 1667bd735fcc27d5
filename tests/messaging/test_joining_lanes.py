"""What a transaction sends with keys joins its lanes in one run, however much it is."""

import pytest
from django.db import connection, transaction

from messaging import consumer, send, send_many
from messaging.models import Lane, LaneEntry
from messaging.store import lanes
from messaging.testing import drain

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare", "declared")]

# Of the transaction that asks: of the table itself and of its index.
SCANS = """
    SELECT pg_stat_get_xact_numscans('messaging_arrival'::regclass)
        + pg_stat_get_xact_numscans('messaging_arrival_transaction'::regclass)
"""


@pytest.fixture
def handled(queue):
    """Return the bodies that a consumer of invoices has handled."""
    queue()
    bodies = []

    @consumer("invoices")
    def handle(message):
        bodies.append(message.body)

    return bodies


def scans():
    with connection.cursor() as cursor:
        cursor.execute(SCANS)
        return cursor.fetchone()[0]


def test_many_messages_are_looked_for_once_and_not_once_each(queue):
    queue()
    send_many("invoices", range(1_000), ordering_key="a")
    before = scans()
    lanes.join_now(connection)
    assert scans() - before == 1
    assert LaneEntry.objects.count() == 1_000


def test_what_is_sent_after_a_run_joins_in_the_next(handled):
    for body in range(3):
        send("invoices", body, ordering_key="a")
        lanes.join_now(connection)
    assert LaneEntry.objects.count() == 3
    drain("invoices")
    assert handled == [0, 1, 2]


def test_what_joined_and_was_rolled_back_does_not_keep_later_ones_out(handled):
    send("invoices", "first", ordering_key="a")
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        send_many("invoices", ["never"] * 10, ordering_key="a")
        lanes.join_now(connection)
        raise ZeroDivisionError
    send("invoices", "second", ordering_key="a")
    drain("invoices")
    assert handled == ["first", "second"]


def test_each_key_of_many_gets_a_lane_and_its_own_messages(handled):
    for body in range(40):
        send("invoices", body, ordering_key=f"key-{body % 20}")
    lanes.join_now(connection)
    assert Lane.objects.count() == 20
    drain("invoices")
    assert len(handled) == 40
    for key in range(20):
        assert [body for body in handled if body % 20 == key] == [key, key + 20]
