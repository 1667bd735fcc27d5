"""A key with much behind it costs the other keys nothing."""

import pytest
from django.db import connection

from messaging import Retry, consumer, send, send_many
from messaging.models import LaneEntry
from messaging.testing import drain

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare", "declared")]

BEHIND = 5_000


def scans_of_the_whole():
    """Return how often this transaction has read all that waits in lanes, of whatever key."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_get_xact_numscans('messaging_laneentry'::regclass)")
        return cursor.fetchone()[0]


def test_other_keys_are_claimed_without_a_look_at_what_waits_behind_a_blocked_one(queue):
    queue()
    handled = []

    @consumer("invoices")
    def handle(message):
        if message.ordering_key == "blocked":
            raise Retry(after=3600)
        handled.append(message.body)

    send_many("invoices", range(BEHIND), ordering_key="blocked")
    drain("invoices")
    with connection.cursor() as cursor:
        # The planner knows then of one key alone, and expects to find it at once wherever it looks.
        cursor.execute("ANALYZE messaging_laneentry")
    for body in range(30):
        send("invoices", body, ordering_key=f"key-{body % 10}")
    before = scans_of_the_whole()
    drain("invoices")
    assert sorted(handled) == list(range(30))
    assert scans_of_the_whole() == before
    assert LaneEntry.objects.count() == BEHIND
