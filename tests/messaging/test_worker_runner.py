"""The runner: which messages share a transaction, when it stops, and what wakes it."""

from concurrent.futures import TimeoutError as StillWaiting

import pytest
from django.db import IntegrityError, transaction
from effects import (
    delivered,
    effects,
    execute,
    failures,
    take_effect,
    transaction_id,
    waiting,
)

from messaging import Retry, consumer, send, send_many
from messaging.models import Attempt, Delivery
from messaging.testing import drain
from messaging.worker.slots import Slots

pytestmark = pytest.mark.django_db(transaction=True)


class TestAHandlerWithoutSQL:
    def test_shares_its_transaction_with_more_and_more_others(self, declare):
        handled, commits = [], []

        def count_commits(message):
            handled.append(message.body)
            transaction.on_commit(lambda: commits.append(len(handled)))

        declare(count_commits)
        send_many("invoices", range(200))
        assert drain("invoices") == 200
        assert handled == list(range(200))
        ends = sorted(set(commits))
        sizes = [end - start for start, end in zip([0, *ends], ends, strict=False)]
        # Careful at first, then doubling, as the pace has it.
        assert sizes[:10] == [1] * 10
        assert sizes[10:14] == [2, 4, 8, 16]

    def test_that_fails_is_retried_and_its_neighbours_are_not_run_again(self, declare):
        handled = []

        def fail_sometimes(message):
            handled.append(message.body)
            if message.body % 50 == 7:
                raise ValueError

        declare(fail_sometimes, backoff_base=60)
        send_many("invoices", range(200))
        assert drain("invoices") == 200
        assert handled == list(range(200))
        assert waiting() == {"scheduled": 4}


class TestAHandlerWithSQL:
    def test_has_a_transaction_of_its_own(self, declare):
        transactions = []
        declare(lambda message: transactions.append(transaction_id()))
        send_many("invoices", range(30))
        drain("invoices")
        assert len(set(transactions)) == 30

    def test_shares_it_when_it_says_how_many(self, declare):
        transactions = []
        declare(lambda message: transactions.append(transaction_id()), transaction_size=7)
        send_many("invoices", range(20))
        drain("invoices")
        sizes = [transactions.count(each) for each in dict.fromkeys(transactions)]
        assert sizes == [7, 7, 6]

    def test_that_starts_to_use_sql_leaves_the_rest_as_it_was(self, declare):
        handled, transactions = [], []

        def use_sql_at_last(message):
            handled.append((message.body, message.delivery.id))
            if message.body >= 25:
                transactions.append(transaction_id())

        declare(use_sql_at_last)
        send_many("invoices", range(40))
        ids = list(Delivery.objects.order_by("id").values_list("id", flat=True))
        assert drain("invoices") == 40
        assert handled == list(zip(range(40), ids, strict=True))
        assert len(set(transactions)) == 15

    def test_waits_for_the_disk_unless_it_says_otherwise(self, declared):
        found = {}
        for name, durable in [("careful", True), ("quick", False)]:

            @consumer(name, durable=durable)
            def ask(message):
                ((found[message.queue],),) = execute("SHOW synchronous_commit")

        drain()
        send("careful", 1)
        send("quick", 1)
        drain()
        assert found == {"careful": "on", "quick": "off"}


class TestAHandlerWithEffectsElsewhere:
    def test_is_acknowledged_before_the_next(self, declare):
        handled, commits = [], []

        def act(message):
            handled.append(message.body)
            transaction.on_commit(lambda: commits.append(len(handled)))

        declare(act, external_effects=True)
        send_many("invoices", range(50))
        drain("invoices")
        assert commits == list(range(1, 51))


class TestARedeliveredMessage:
    def test_runs_alone(self, declare):
        transactions = {}

        def note(message):
            transactions.setdefault(transaction_id(), []).append(message.body)

        declare(note, transaction_size=10)
        send_many("invoices", range(5))
        execute(
            "UPDATE messaging_delivery SET attempt = 2"
            " WHERE id = (SELECT id FROM messaging_delivery ORDER BY id OFFSET 2 LIMIT 1)"
        )
        drain("invoices")
        assert list(transactions.values()) == [[0, 1], [2], [3, 4]]


class TestPausing:
    def test_a_queue_takes_effect_with_the_next_look_at_its_row(self, declare, runner):
        declare(lambda message: take_effect(message.body))
        send("invoices", 1)
        a_runner = runner()
        for paused_at, expected in [("statement_timestamp()", []), ("NULL", ["1"])]:
            execute(f"UPDATE messaging_queue SET paused_at = {paused_at}")
            a_runner._configuration.refresh()
            a_runner.run_round()
            assert effects() == expected


class TestStopping:
    def test_in_the_middle_of_a_batch_gives_the_rest_back_as_it_was(self, declare, runner):
        def stop_at_three(message):
            take_effect(message.body)
            if message.body == 3:
                a_runner.stop()

        declare(stop_at_three, transaction_size=10)
        send_many("invoices", range(1, 7))
        before = list(Delivery.objects.order_by("id").values_list("id", "message_id", "attempt"))
        a_runner = runner()
        a_runner.run()
        assert effects() == ["1", "2", "3"]
        after = list(Delivery.objects.order_by("id").values_list("id", "message_id", "attempt"))
        assert after == before[3:]
        assert failures() == []


class TestWhatAnotherProcessWasRunning:
    def test_waits_until_its_death_is_counted_and_others_go_on(self, declare, runner, until):
        declare(lambda message: take_effect(message.body), transaction_size=10)
        send_many("invoices", ["a", "held", "b"])
        held = Delivery.objects.order_by("id")[1]
        slots = Slots(2)
        a_runner = runner(slots=slots, slot=0)
        slots.start(1, delivered(held))
        a_runner.run_round()
        a_runner.run_round()
        assert effects() == ["a", "b"]
        slots.clear(1)
        until(lambda: a_runner.run_round().settled)
        assert effects() == ["a", "b", "held"]

    def test_ones_own_slot_is_free_after_each_transaction(self, declare, runner):
        seen = []
        slots = Slots(1)
        declare(lambda message: seen.append(slots.running(0).message_id))
        sent = send("invoices", 1)
        runner(slots=slots).run_round()
        assert seen == [sent]
        assert slots.running(0) is None


@pytest.mark.direct("a pooler lets the runner and the test take turns in one session")
class TestWaiting:
    HAS_LOOKED = """
        SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND pid <> pg_backend_pid() AND state = 'idle' AND query = 'COMMIT'
    """

    @pytest.fixture
    def waiting_runner(self, declare, runner, elsewhere, until):
        """Return a function that starts a runner which has looked once, and found nothing."""
        started = []

        def start():
            declare(lambda message: take_effect(message.body))
            a_runner = runner()
            started.append((a_runner, elsewhere(a_runner.run)))
            until(lambda: execute(self.HAS_LOOKED) == [(1,)])
            return a_runner

        yield start
        for a_runner, running in started:
            a_runner.stop()
            try:
                running.result(timeout=10)
            except StillWaiting:
                pytest.fail("stop() does not end the wait")

    def test_ends_at_once_with_a_wake_up(self, waiting_runner, until, monkeypatch):
        monkeypatch.setattr("messaging.worker.runner.FIRST_WAIT", 600)
        a_runner = waiting_runner()
        send("invoices", 1)
        a_runner.notice([])
        until(effects)

    def test_finds_by_polling_what_nobody_announced(self, waiting_runner, until):
        waiting_runner()
        send("invoices", 1, priority=77)
        until(effects)


def test_every_queue_gets_its_turn(declared):
    handled = []
    for name in ("first", "second"):
        consumer(name)(lambda message: handled.append(message.queue))
    drain()
    for name in ("first", "second"):
        send_many(name, range(3))
    drain()
    assert handled == ["first", "second"] * 3


def test_a_handler_that_fails_for_good_holds_up_nobody(declare):
    def fail(message):
        if message.body == "odd":
            raise Retry(after=60)
        take_effect(message.body)

    declare(fail)
    send_many("invoices", ["odd", "a", "b"])
    drain("invoices")
    assert effects() == ["a", "b"]


def test_a_unique_violation_of_two_messages_fails_the_second_only(declare):
    declare(lambda message: take_effect("same"), transaction_size=10, backoff_base=60)
    first, second = send_many("invoices", [1, 2])
    drain("invoices")
    assert effects() == ["same"]
    assert failures() == [(second, f"django.db.utils.{IntegrityError.__name__}")]
    assert Attempt.objects.filter(message_id=first).count() == 0
