"""What has expired reaches no handler: wherever it waited, and whatever kind of consumer it had."""

import time
from types import SimpleNamespace

import pytest
from django.db import connection
from effects import execute, let_leases_end, make_due, waiting

from messaging import Retry, handling, receive, send, send_many, signals
from messaging.models import DeadLetter, Queue, Stat
from messaging.store import lanes
from messaging.testing import drain
from messaging.worker.tally import Tally

pytestmark = pytest.mark.django_db

TABLES = ("messaging_delivery", "messaging_laneentry", "messaging_scheduled", "messaging_lease")
KEYS = [{}, {"ordering_key": "a"}, {"fairness_key": "a"}]


def let_expire(body):
    """Let a message be past its time, wherever it waits."""
    lanes.join_now(connection)
    for table in TABLES:
        execute(
            f"UPDATE {table} SET expires_at = statement_timestamp() WHERE message_id IN"
            " (SELECT id FROM messaging_message WHERE body = to_jsonb(%s::text))",
            body,
        )


def pass_the_hour():
    """Let everything be past its time that lives for an hour, and nothing else."""
    for table in TABLES:
        execute(f"UPDATE {table} SET expires_at = expires_at - interval '1 hour'")


@pytest.fixture(params=["plain", "batch", "leased", "async"])
def handled(request, declare):
    """Declare a consumer of each kind, and return the bodies that it handles."""
    bodies = []

    async def handle_in_a_loop(message):
        bodies.append(message.body)

    match request.param:
        case "plain":
            declare(lambda message: bodies.append(message.body), transaction_size=10)
        case "batch":
            declare(lambda messages: bodies.extend(m.body for m in messages), batch=10)
        case "leased":
            declare(lambda message: bodies.append(message.body), lease=30)
        case "async":
            declare(handle_in_a_loop)
    return bodies


class TestAnExpiredMessage:
    @pytest.mark.parametrize("kept", [False, True])
    @pytest.mark.parametrize(
        "options", [{}, {"delay": 60}, {"ordering_key": "a"}, {"fairness_key": "a"}], ids=str
    )
    def test_reaches_no_handler_and_the_next_one_does(self, handled, options, kept):
        Queue.objects.update(dead_letter_expired=kept)
        for body in ("gone", "next"):
            send("invoices", body, expires_in=3600, **options)
        let_expire("gone")
        make_due()
        drain("invoices")
        assert handled == ["next"]
        assert waiting() == ({"dead": 1} if kept else {})
        expected = [("gone", "expired", 0)] if kept else []
        assert list(DeadLetter.objects.values_list("body", "reason", "attempts")) == expected

    def test_is_told_to_observers_and_counted_as_expired(self, handled, runner):
        told = []
        tally = Tally()

        def tell(message, **kwargs):
            told.append(message.body)

        signals.message_expired.connect(tell)
        try:
            send_many("invoices", ["gone", "next"], expires_in=3600)
            let_expire("gone")
            runner(tally=tally).run_round()
            runner(tally=tally).run_round()
        finally:
            signals.message_expired.disconnect(tell)
        assert told == ["gone"]
        ((_, acknowledged, failed, dead, expired, _),) = tally.flush()
        assert (acknowledged, failed, dead, expired) == (1, 0, 0, 1)

    def test_is_not_received_and_counted_as_expired(self, queue):
        queue("letters", dead_letter_expired=False)
        send_many("letters", ["gone", "next"], expires_in=3600)
        let_expire("gone")
        assert [message.body for message in receive("letters", limit=10)] == ["next"]
        assert list(Stat.objects.values_list("queue__name", "expired")) == [("letters", 1)]

    @pytest.mark.parametrize("kept", [False, True])
    @pytest.mark.parametrize("options", KEYS, ids=str)
    def test_is_not_tried_again(self, declare, options, kept):
        attempts = []

        def fail(message):
            attempts.append(message.attempt)
            raise Retry(after=60)

        declare(fail, max_deliveries=3, dead_letter_expired=kept)
        send("invoices", "gone", expires_in=3600, **options)
        drain("invoices")
        pass_the_hour()
        make_due()
        drain("invoices")
        assert attempts == [1]
        assert waiting() == ({"dead": 1} if kept else {})
        expected = [("expired", 1)] if kept else []
        assert list(DeadLetter.objects.values_list("reason", "attempts")) == expected

    @pytest.mark.parametrize("options", KEYS, ids=str)
    @pytest.mark.parametrize("end", ["release", "release for later", "lapse"])
    def test_is_not_received_again(self, queue, end, options):
        queue()
        send("invoices", "gone", expires_in=3600, **options)
        lanes.join_now(connection)
        (message,) = receive("invoices")
        if end == "lapse":
            let_leases_end()
        else:
            message.release(after=60 if end == "release for later" else None)
        pass_the_hour()
        for _ in range(2):  # a lease that ended is followed by a back-off
            make_due()
            assert receive("invoices") == []
        assert waiting() == {}


def test_a_message_that_expires_while_those_before_it_run_reaches_no_handler(declare, monkeypatch):
    late = [0.0]
    handled = []

    def handle(message):
        handled.append(message.body)
        if message.body == "slow":
            late[0] = 60.0

    declare(handle, transaction_size=10)
    clock = SimpleNamespace(
        monotonic=lambda: time.monotonic() + late[0], perf_counter=time.perf_counter
    )
    monkeypatch.setattr(handling, "time", clock)
    send("invoices", "slow")
    send("invoices", "late", expires_in=30)
    send("invoices", "next")
    drain("invoices")
    assert handled == ["slow", "next"]
    assert waiting() == {}
