"""Receive within limits: those who receive share the limits of a queue with its workers."""

import threading
import time

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from effects import execute, let_leases_end, make_due

from messaging import leasing, maintenance, receive, send, send_many
from messaging.limits import Limits
from messaging.models import ActiveConsumer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def seen():
    """Return the bodies that handlers have seen."""
    return []


@pytest.fixture
def worker(declare, runner, seen):
    """Return a function that makes a worker of the queue invoices, which has these limits."""

    def make(function=lambda message: None, **limits):
        def handle(message):
            seen.append(message.body)
            function(message)

        declare(handle, **limits)
        return lambda name="worker": runner(limits=Limits(name))

    return make


@pytest.fixture
def gate():
    """Return an event at which handlers wait, opened at the end whatever happens."""
    gate = threading.Event()
    yield gate
    gate.set()


def bodies(messages):
    return [message.body for message in messages]


def listeners():
    """Return how many sessions wait for notifications."""
    return execute(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query = 'LISTEN messaging'"
    )[0][0]


def let_pass(seconds):
    """Have buckets see so much more time."""
    execute(f"UPDATE messaging_ratelimit SET filled_at = filled_at - interval '{seconds} second'")


class TestTheRate:
    def test_lets_so_many_be_received_a_second(self, queue):
        queue(rate_limit=3)
        send_many("invoices", range(10))
        assert bodies(receive("invoices", limit=10)) == [0, 1, 2]
        let_pass(1)
        assert bodies(receive("invoices", limit=2)) == [3, 4]
        assert len(receive("invoices", limit=10)) == 1

    def test_is_that_of_workers_and_receivers_together(self, worker, seen):
        make = worker(rate_limit=0.001)
        send_many("invoices", range(3))
        make().run_round()
        assert seen == [0]
        assert receive("invoices") == []
        let_pass(1000)
        assert bodies(receive("invoices", limit=2)) == [1]
        make().run_round()
        assert seen == [0]

    def test_is_not_used_up_by_looking_in_vain(self, queue):
        queue(rate_limit=0.001)
        for _ in range(3):
            assert receive("invoices", limit=10) == []
        send("invoices", 1)
        assert bodies(receive("invoices")) == [1]

    def test_is_waited_for(self, queue, settings):
        settings.MESSAGING = {"POLL_INTERVAL": 30}
        queue(rate_limit=4)
        send_many("invoices", range(5))
        assert len(receive("invoices", limit=4)) == 4
        started = time.monotonic()
        assert bodies(receive("invoices", wait=20)) == [4]
        assert time.monotonic() - started < 10


class TestTheRateOfAKey:
    def test_holds_back_that_key_alone(self, queue):
        queue(key_rate_limit=0.001)
        for body in ("a1", "a2", "b1", "b2"):
            send("invoices", body, ordering_key=body[0])
        for message in receive("invoices", limit=2):
            message.acknowledge()
        # Behind both of them.
        send("invoices", "c1", ordering_key="c")
        assert bodies(receive("invoices")) == ["c1"]
        assert receive("invoices", limit=10) == []
        let_pass(1000)
        make_due()
        assert bodies(receive("invoices", limit=10)) == ["a2", "b2"]


class TestTheConcurrencyLimit:
    def test_is_how_many_may_be_held(self, queue):
        queue(concurrency_limit=3)
        send_many("invoices", range(5))
        held = receive("invoices", limit=2) + receive("invoices", limit=10)
        assert bodies(held) == [0, 1, 2]
        assert receive("invoices") == []
        held[1].acknowledge()
        assert bodies(receive("invoices", limit=10)) == [3]

    def test_counts_what_workers_are_handling(self, worker, seen, gate, elsewhere, until):
        make = worker(lambda message: gate.wait(15), concurrency_limit=1)
        send_many("invoices", ["a", "b"])
        running = elsewhere(make().run_round)
        until(lambda: seen == ["a"])
        assert receive("invoices") == []
        gate.set()
        assert running.result(15).settled == 1
        assert bodies(receive("invoices")) == ["b"]

    def test_counts_them_whatever_places_they_have(self, worker, seen, elsewhere, until):
        gates = {"a": threading.Event(), "b": threading.Event()}
        make = worker(lambda message: gates[message.body].wait(15), concurrency_limit=2)
        send_many("invoices", ["a", "b", "c", "d"])
        first = elsewhere(make().run_round)
        until(lambda: seen == ["a"])
        second = elsewhere(make().run_round)
        until(lambda: seen == ["a", "b"])
        gates["a"].set()
        first.result(15)
        assert bodies(receive("invoices")) == ["c"]
        assert receive("invoices") == []
        gates["b"].set()
        second.result(15)
        assert bodies(receive("invoices")) == ["d"]

    def test_holds_however_workers_and_receivers_meet(self, worker, elsewhere):
        lock, in_flight, most, done = threading.Lock(), [0], [0], [0]

        def add(number):
            with lock:
                in_flight[0] += number
                most[0] = max(most[0], in_flight[0])
                done[0] += max(0, number)

        def handle(message):
            add(1)
            execute("SELECT pg_sleep(0.002)")
            add(-1)

        make = worker(handle, concurrency_limit=3)
        send_many("invoices", range(120))
        deadline = time.monotonic() + 60

        def work(runner):
            while done[0] < 120 and time.monotonic() < deadline:
                runner.run_round()

        def pull():
            while done[0] < 120 and time.monotonic() < deadline:
                held = receive("invoices", limit=2)
                add(len(held))
                execute("SELECT pg_sleep(0.002)")
                add(-len(held))
                for message in held:
                    message.acknowledge()

        all_of_them = [elsewhere(work, make(f"worker {n}")) for n in range(3)]
        all_of_them += [elsewhere(pull) for _ in range(3)]
        for each in all_of_them:
            each.result(90)
        assert done[0] == 120
        assert most[0] <= 3

    @pytest.mark.usefixtures("way_past_a_pooler")
    def test_is_waited_for(self, queue, settings, elsewhere, until):
        settings.MESSAGING = {"POLL_INTERVAL": 30}
        queue(concurrency_limit=1)
        send_many("invoices", ["a", "b"])
        (held,) = receive("invoices")
        receiving = elsewhere(receive, "invoices", wait=20)
        until(lambda: listeners() == 1)
        held.acknowledge()
        assert bodies(receiving.result(10)) == ["b"]


class TestTheSingleActiveConsumer:
    @pytest.fixture
    def as_process(self, monkeypatch):
        """Return a function that receives under the name of a process."""

        def receive_as(name, **options):
            with monkeypatch.context() as patch:
                patch.setattr(leasing, "holder", lambda: name)
                return receive("invoices", **options)

        return receive_as

    def end_the_turn(self):
        execute("UPDATE messaging_activeconsumer SET until = statement_timestamp()")

    def test_is_no_receiver_while_a_worker_is(self, worker):
        make = worker(single_active_consumer=True)
        send("invoices", "a")
        policy = make()._configuration.policy("invoices")
        limits = Limits("worker")
        limits.renew([policy])
        assert receive("invoices") == []
        limits.resign()
        assert bodies(receive("invoices")) == ["a"]

    def test_is_one_of_two_processes_that_receive(self, queue, as_process):
        queue(single_active_consumer=True)
        send_many("invoices", range(4))
        assert bodies(as_process("one")) == [0]
        assert as_process("two") == []
        assert bodies(as_process("one")) == [1]
        assert ActiveConsumer.objects.get().worker == "one"

    def test_keeps_the_queue_as_long_as_it_holds_messages(self, worker, seen, as_process):
        make = worker(single_active_consumer=True)
        send_many("invoices", ["a", "b"])
        (held,) = as_process("receiver")
        self.end_the_turn()
        a_worker = make("worker")
        assert a_worker._limits.renew([a_worker._configuration.policy("invoices")])
        a_worker.run_round()
        self.end_the_turn()
        assert as_process("another") == []
        assert seen == []
        held.acknowledge()
        assert bodies(as_process("another")) == ["b"]

    def test_is_another_when_its_leases_have_ended(self, worker, seen, as_process):
        make = worker(single_active_consumer=True, backoff_base=0)
        send("invoices", "a")
        as_process("receiver")
        self.end_the_turn()
        let_leases_end()
        leasing.sweep_expired()
        make_due()
        maintenance.promote_due()
        a_worker = make("worker")
        a_worker._limits.renew([a_worker._configuration.policy("invoices")])
        a_worker.run_round()
        assert seen == ["a"]

    def test_never_receives_beside_a_handler_of_one_that_was_active(
        self, worker, seen, gate, elsewhere, until
    ):
        make = worker(lambda message: gate.wait(15), single_active_consumer=True)
        send_many("invoices", ["a", "b"])
        a_worker = make("worker")
        policy = a_worker._configuration.policy("invoices")
        a_worker._limits.renew([policy])
        running = elsewhere(a_worker.run_round)
        until(lambda: seen == ["a"])
        # As one finds it that was stopped after it had looked whose turn it is.
        execute("UPDATE messaging_activeconsumer SET worker = %s", leasing.holder())
        assert receive("invoices") == []
        gate.set()
        running.result(15)
        assert bodies(receive("invoices")) == ["b"]

    def test_takes_over_soon_and_keeps_its_turn_while_it_waits(
        self, queue, settings, elsewhere, until
    ):
        settings.MESSAGING = {"POLL_INTERVAL": 30}
        queue(single_active_consumer=True)
        execute(
            "INSERT INTO messaging_activeconsumer (queue_id, worker, until)"
            " SELECT id, 'dead', statement_timestamp() + interval '1 second' FROM messaging_queue"
            " WHERE name = 'invoices'"
        )
        receiving = elsewhere(receive, "invoices", wait=25)
        until(lambda: ActiveConsumer.objects.get().worker == leasing.holder(), seconds=5)
        until(lambda: execute(
            "SELECT until > statement_timestamp() + interval '2 second'"
            " FROM messaging_activeconsumer") == [(True,)])  # fmt: skip
        execute("UPDATE messaging_activeconsumer SET until = statement_timestamp()")
        until(lambda: execute(
            "SELECT until > statement_timestamp() FROM messaging_activeconsumer"
        ) == [(True,)], seconds=5)  # fmt: skip
        send("invoices", "a")
        assert bodies(receiving.result(15)) == ["a"]


def test_a_queue_without_limits_costs_no_statement(queue):
    queue()
    receive("invoices")
    send("invoices", "a")
    with CaptureQueriesContext(connection) as captured:
        assert bodies(receive("invoices")) == ["a"]
    statements = " ".join(query["sql"] for query in captured)
    assert "DELETE FROM messaging_delivery" in statements
    for word in ("ratelimit", "advisory", "activeconsumer"):
        assert word not in statements
