"""Limits: a second, at once, by key, and one worker only, over all workers of a queue."""

import threading
import time

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from effects import effects, execute, failures, take_effect, waiting

from messaging import consumer, maintenance, receive, send, send_many
from messaging.limits import Limits
from messaging.models import ActiveConsumer, Queue, RateLimit
from messaging.store.limits import take_permits
from messaging.testing import drain

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def worker(runner):
    """Return a function that makes a runner which keeps to the limits, as a worker of that name."""

    def make(name="one", **options):
        return runner(limits=Limits(name), **options)

    return make


def record(message):
    take_effect(message.body)


def let_pass(seconds):
    """Have buckets and schedules see so much more time."""
    execute(f"UPDATE messaging_ratelimit SET filled_at = filled_at - interval '{seconds} second'")
    execute(f"UPDATE messaging_scheduled SET due_at = due_at - interval '{seconds} second'")
    maintenance.promote_due()


class TestTheRate:
    def test_lets_so_many_through_a_second(self, declare, worker):
        declare(record, rate_limit=0.5)
        send_many("invoices", range(4))
        a_worker = worker()
        handled = []
        for _ in range(3):
            a_worker.run_round()
            a_worker.run_round()
            handled.append(len(effects()))
            let_pass(2)
            a_worker._works["invoices"].close(0)
        assert handled == [1, 2, 3]

    def test_saves_up_one_second_at_most(self, declare, worker):
        declare(record, rate_limit=3, transaction_size=50)
        send_many("invoices", range(20))
        a_worker = worker()
        a_worker.run_round()
        assert len(effects()) == 3
        let_pass(3600)
        a_worker._works["invoices"].close(0)
        a_worker.run_round()
        assert len(effects()) == 6

    def test_is_that_of_all_workers_together(self, queue, elsewhere):
        invoices = queue()
        started = time.monotonic()

        def ask():
            granted = 0
            for _ in range(60):
                connection.ensure_connection()
                granted += take_permits(connection, invoices.pk, 50, {"": 3})[""].granted
            return granted

        granted = sum(asking.result() for asking in [elsewhere(ask) for _ in range(4)])
        assert 50 <= granted <= 50 + 50 * (time.monotonic() - started)

    def test_is_not_used_up_by_looking_in_vain(self, declare, worker):
        declare(record, rate_limit=0.001, transaction_size=10)
        a_worker = worker()
        for _ in range(3):
            a_worker.run_round()
        send("invoices", "a")
        a_worker.run_round()
        assert effects() == ["a"]

    def test_is_no_lock_while_a_handler_runs(self, declare, worker, elsewhere):
        look = "SELECT 1 FROM messaging_ratelimit FOR UPDATE NOWAIT"
        seen = []
        declare(lambda m: seen.append(elsewhere(execute, look).result()), rate_limit=10)
        send("invoices", "a")
        worker().run_round()
        assert seen == [[(1,)]]

    def test_holds_up_no_other_queue(self, declared, worker):
        for name, policies in [("slow", {"rate_limit": 0.001}), ("free", {})]:
            consumer(name, **policies)(lambda message: take_effect(message.body))
        drain()
        send_many("slow", ["s1", "s2"])
        send_many("free", ["f1", "f2", "f3"])
        a_worker = worker()
        for _ in range(4):
            a_worker.run_round()
        assert effects() == ["s1", "f1", "f2", "f3"]

    def test_is_waited_for_by_a_worker_that_drains(self, declare, worker):
        declare(record, rate_limit=20)
        send_many("invoices", range(26))
        worker(drain=True).run()
        assert len(effects()) == 26

    def test_does_not_slow_down_a_test(self, declare):
        declare(record, rate_limit=0.001, key_rate_limit=0.001, concurrency_limit=1)
        send_many("invoices", range(5))
        assert drain("invoices") == 5

    def test_that_was_lifted_lets_all_through(self, declare, worker):
        declare(record, rate_limit=0.001)
        send_many("invoices", range(5))
        a_worker = worker()
        a_worker.run_round()
        Queue.objects.update(rate_limit=None)
        a_worker._configuration.refresh()
        for _ in range(5):
            a_worker.run_round()
        assert len(effects()) == 5


class TestTheRateOfAKey:
    def test_holds_back_that_key_alone_and_in_order(self, declare, worker):
        declare(record, key_rate_limit=0.01, transaction_size=10)
        for body in ["a1", "a2", "b1", "a3", "c1"]:
            send("invoices", body, ordering_key=body[0])
        send("invoices", "free")
        a_worker = worker()
        for _ in range(4):
            a_worker.run_round()
        assert sorted(effects()) == ["a1", "b1", "c1", "free"]
        for expected in ("a2", "a3"):
            let_pass(101)
            a_worker.run_round()
            a_worker.run_round()
            assert effects()[-1] == expected
        assert execute("SELECT count(*) FROM messaging_laneentry") == [(0,)]

    def test_is_full_again_for_a_key_that_was_forgotten(self, declare, worker):
        declare(record, key_rate_limit=0.01)
        send("invoices", "a1", ordering_key="a")
        a_worker = worker()
        a_worker.run_round()
        assert RateLimit.objects.filter(key="a").exists()
        maintenance.prune()
        assert RateLimit.objects.filter(key="a").exists()
        let_pass(3601)
        maintenance.prune()
        assert not RateLimit.objects.filter(key="a").exists()

    def test_waits_no_less_when_its_message_fails(self, declare, worker):
        def fail(message):
            raise ValueError

        declare(fail, key_rate_limit=1, backoff="fixed", backoff_base=60, jitter="none")
        send("invoices", "a1", ordering_key="a")
        worker().run_round()
        ((seconds,),) = execute(
            "SELECT extract(epoch FROM due_at - statement_timestamp()) FROM messaging_scheduled"
        )
        assert 50 < seconds <= 60


class TestTheConcurrencyLimit:
    @pytest.fixture
    def gate(self):
        """Return an event at which handlers wait, opened at the end whatever happens."""
        gate = threading.Event()
        yield gate
        gate.set()

    def test_is_how_many_are_in_flight_over_all_workers(
        self, declare, worker, elsewhere, until, gate
    ):
        inside = []

        def wait(message):
            inside.append(message.body)
            assert gate.wait(15)

        declare(wait, concurrency_limit=2)
        send_many("invoices", range(6))
        running = [elsewhere(worker().run_round) for _ in range(2)]
        until(lambda: len(inside) == 2)
        done = worker().run_round()
        assert (done.settled, done.unsettled) == (0, False)
        assert done.closed_for is not None
        gate.set()
        assert [each.result(timeout=10).settled for each in running] == [1, 1]
        assert worker().run_round().settled == 1

    def test_is_free_again_when_a_worker_was_cut_off(self, declare, worker, elsewhere):
        lost = []

        def lose(message):
            if not lost:
                lost.append(True)
                execute("SELECT pg_terminate_backend(pg_backend_pid())")
            take_effect(message.body)

        declare(lose, concurrency_limit=1)
        send("invoices", "a")
        with pytest.raises(OperationalError):
            elsewhere(worker().run_round).result(timeout=10)
        assert worker().run_round().settled == 1

    def test_counts_the_messages_of_a_batch(self, declare, worker):
        sizes = []
        declare(lambda messages: sizes.append(len(messages)), batch=10, concurrency_limit=3)
        send_many("invoices", range(7))
        a_worker = worker()
        for _ in range(4):
            a_worker.run_round()
        assert sizes == [3, 3, 1]

    def test_counts_what_is_held_under_a_lease(self, declare, worker):
        declare(record, concurrency_limit=1)
        send_many("invoices", ["a", "b"])
        (held,) = receive("invoices")
        assert worker().run_round().settled == 0
        held.acknowledge()
        assert worker().run_round().settled == 1
        assert effects() == ["b"]


class TestTheSingleActiveConsumer:
    @pytest.fixture
    def policy(self, declare, worker):
        """Declare the consumer, and return the policy of its queue."""

        def make(function=record):
            declare(function, single_active_consumer=True)
            return worker()._configuration.policy("invoices")

        return make

    def end_the_turn(self):
        execute("UPDATE messaging_activeconsumer SET until = statement_timestamp()")

    def test_is_the_one_that_came_first(self, policy, runner):
        invoices = policy()
        first, second = Limits("first"), Limits("second")
        assert first.renew([invoices])
        assert not second.renew([invoices])
        send_many("invoices", ["a", "b"])
        assert runner(limits=second).run_round().settled == 0
        assert runner(limits=first).run_round().settled == 1
        assert not first.renew([invoices]), "it was active already"
        assert ActiveConsumer.objects.get().worker == "first"

    def test_is_another_one_when_its_time_is_over(self, policy, runner):
        invoices = policy()
        first, second = Limits("first"), Limits("second")
        first.renew([invoices])
        self.end_the_turn()
        assert second.renew([invoices])
        first.renew([invoices])
        send_many("invoices", ["a", "b"])
        assert runner(limits=first).run_round().settled == 0
        assert runner(limits=second).run_round().settled == 1

    def test_is_another_one_at_once_when_it_resigns(self, policy):
        invoices = policy()
        first, second = Limits("first"), Limits("second")
        first.renew([invoices])
        first.resign()
        assert not first.is_active(invoices)
        assert second.renew([invoices])

    def test_that_is_stuck_loses_its_transaction_to_its_successor(
        self, policy, runner, elsewhere, until
    ):
        """As after SIGSTOP, or the loss of its machine, with the transaction still open."""
        inside, go_on = threading.Event(), threading.Event()

        def stick(message):
            take_effect(message.body)
            if not inside.is_set():
                inside.set()
                assert go_on.wait(15)
                take_effect("zombie")

        invoices = policy(stick)
        send_many("invoices", ["a", "b"])
        first, second = Limits("first"), Limits("second")
        first.renew([invoices])
        stuck = elsewhere(runner(limits=first).run_round)
        assert inside.wait(10)
        self.end_the_turn()
        assert second.renew([invoices])
        successor = runner(limits=second, drain=True)
        until(lambda: successor.run_round() and effects() == ["a", "b"])
        go_on.set()
        with pytest.raises(OperationalError):
            stuck.result(timeout=10)
        assert effects() == ["a", "b"]
        assert failures() == []
        assert waiting() == {}

    def test_never_runs_beside_one_that_was_active_and_does_not_know_better(
        self, policy, runner, elsewhere
    ):
        inside, go_on = threading.Event(), threading.Event()

        def wait(message):
            inside.set()
            assert go_on.wait(15)

        invoices = policy(wait)
        send_many("invoices", ["a", "b"])
        first, second = Limits("first"), Limits("second")
        first.renew([invoices])
        running = elsewhere(runner(limits=first).run_round)
        assert inside.wait(10)
        first._active_until[invoices.id] = second._active_until[invoices.id] = time.monotonic() + 99
        assert runner(limits=second).run_round().settled == 0
        go_on.set()
        assert running.result(timeout=10).settled == 1


def test_a_queue_without_limits_costs_no_statement(declare, worker):
    declare(record)
    a_worker = worker()
    a_worker.run_round()
    send("invoices", "a")
    with CaptureQueriesContext(connection) as captured:
        a_worker.run_round()
    assert effects() == ["a"]
    statements = " ".join(query["sql"] for query in captured)
    assert "DELETE FROM messaging_delivery" in statements
    for word in ("ratelimit", "advisory", "activeconsumer"):
        assert word not in statements
