"""PostgreSQL does what any engine must, for several sessions at once, and finds what comes late."""

import threading

import pytest
from django.db import connection, transaction

from messaging import maintenance, send, send_many
from messaging.engines import engine as default_engine
from messaging.engines.postgresql import ENGINE
from messaging.models import Delivery, Queue
from messaging.policies import QueuePolicy
from messaging.store import lanes

from .contract import EngineContract, delivered


@pytest.mark.django_db
class TestPostgreSQL(EngineContract):
    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch):
        """Have the position follow each claim at once, so that what lies behind it shows."""
        monkeypatch.setattr("messaging.engines.hints.TRAIL", 0.0)

    @pytest.fixture
    def engine(self):
        return ENGINE

    def make_due(self):
        maintenance.promote_due()

    def arrive(self):
        lanes.join_now(connection)

    def test_it_is_the_engine_by_default(self, engine):
        assert default_engine() is engine

    def test_a_claim_is_one_statement_a_priority(self, store, source, django_assert_num_queries):
        store("a", "b", "c")
        source.claim(1, thorough=True)
        with django_assert_num_queries(1):
            assert len(source.claim(2)) == 2

    def test_settling_acknowledged_messages_is_no_statement(
        self, source, django_assert_num_queries
    ):
        with django_assert_num_queries(0):
            source.settle([], [], "worker")


@pytest.fixture
def source(db):
    """Return a reader of a queue in which two messages wait."""
    row = Queue.objects.create(name="invoices")
    send_many("invoices", ["first", "second"])
    return ENGINE.source(QueuePolicy(id=row.pk, name=row.name), None)


@pytest.mark.django_db(transaction=True)
class TestSessions:
    def claim_elsewhere(self, policy):
        with transaction.atomic():
            rows = ENGINE.source(policy, None).claim(10, thorough=True)
        return [row.body for row in rows]

    def test_what_one_session_has_claimed_another_passes_over_without_waiting(
        self, source, elsewhere
    ):
        with transaction.atomic():
            assert [row.body for row in source.claim(1)] == ['"first"']
            other = elsewhere(self.claim_elsewhere, source.policy)
            assert other.result(15) == ['"second"']
        assert source.claim(10, thorough=True) == []

    def test_a_lost_delivery_that_somebody_holds_is_neither_taken_nor_waited_for(
        self, source, elsewhere
    ):
        with transaction.atomic():
            (row,) = source.claim(1)
            call = elsewhere(ENGINE.take_lost, delivered(row), None)
            assert call.result(15) == (None, True)
        assert elsewhere(ENGINE.take_lost, delivered(row), None).result(15) == (None, False)

    def test_what_commits_late_behind_the_position_is_found(
        self, source, elsewhere, until, monkeypatch
    ):
        monkeypatch.setattr("messaging.engines.hints.TRAIL", 0.0)
        sent, commit = threading.Event(), threading.Event()

        def send_late():
            with transaction.atomic():
                late = send("invoices", "late")
                sent.set()
                assert commit.wait(15)
            return late

        late = elsewhere(send_late)
        assert sent.wait(15)
        send("invoices", "early")
        assert [row.body for row in source.claim(10)] == ['"first"', '"second"', '"early"']
        commit.set()
        late.result(15)
        (delivery,) = Delivery.objects.all()
        assert source._hints.position(0) > delivery.pk
        found = []
        until(lambda: found.extend(source.claim(10)) or found)
        assert [row.id for row in found] == [delivery.pk]
