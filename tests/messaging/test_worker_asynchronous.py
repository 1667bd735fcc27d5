"""Async consumers: many messages in flight in one event loop, each leased and settled by itself."""

import asyncio
import threading

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import connections, transaction
from effects import effects, execute, failures, let_leases_end, take_effect, waiting

from messaging import Reject, Retry, asend, send, send_many
from messaging.consuming import declarations
from messaging.models import DeadLetter, Message
from messaging.testing import drain
from messaging.worker.asynchronous import AsyncRunner
from messaging.worker.configuration import Configuration
from messaging.worker.heart import Heart
from messaging.worker.slots import Slots
from messaging.worker.tally import Tally

pytestmark = pytest.mark.django_db(transaction=True)


class Running:
    """An AsyncRunner of all consumers in a thread."""

    def __init__(self):
        consumers = list(declarations.consumers.values())
        configuration = Configuration(consumers, None)
        configuration.refresh()
        self.heart = Heart(None, "runner")
        self.tally = Tally()
        self.runner = AsyncRunner(
            consumers,
            configuration,
            name="runner",
            heart=self.heart,
            slots=Slots(1),
            slot=0,
            tally=self.tally,
        )
        self.thread = threading.Thread(target=self.runner.run)

    def start(self):
        self.heart.start()
        self.thread.start()
        return self

    def stop(self):
        self.runner.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.heart.stop()
        self.heart.join(10)


@pytest.fixture
def start():
    """Return a function that starts a runner; it is stopped at the end."""
    running = []

    def start():
        running.append(Running().start())
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture
def gate():
    """Return an event that handlers may wait for, in their loop, for a while."""
    opened = threading.Event()
    yield opened
    opened.set()


async def passed(gate):
    """Wait in an event loop until the gate is open."""
    async with asyncio.timeout(20):
        while not gate.is_set():
            await asyncio.sleep(0.005)


class TestDraining:
    def test_drain_runs_an_async_consumer(self, declare):
        async def handle(message):
            await Group.objects.acreate(name=str(message.body))

        declare(handle)
        send_many("invoices", [1, 2, 3])
        assert drain() == 3
        assert sorted(effects()) == ["1", "2", "3"]
        assert waiting() == {}

    def test_drain_runs_it_in_the_transaction_of_a_test(self, declare):
        async def handle(message):
            await Group.objects.acreate(name=str(message.body))

        declare(handle)
        with transaction.atomic():
            send("invoices", 1)
            assert drain() == 1
            assert effects() == ["1"]
            transaction.set_rollback(True)
        assert effects() == []

    def test_drain_has_as_many_in_flight_as_the_consumer_says(self, declare):
        most = [0]
        now = [0]

        async def handle(message):
            now[0] += 1
            most[0] = max(most[0], now[0])
            await asyncio.sleep(0)
            now[0] -= 1

        declare(handle, concurrency=4)
        send_many("invoices", range(20))
        assert drain() == 20
        assert most == [4]

    def test_drain_counts_a_handler_that_wants_to_end_the_process(self, declare):
        async def handle(message):
            if message.body:
                raise SystemExit

        declare(handle, backoff_base=60)
        send_many("invoices", [1, 0])
        assert drain() == 2
        assert waiting() == {"scheduled": 1}

    async def test_drain_can_be_called_from_a_test_that_is_async(self, declared):
        from messaging import consumer

        handled = []

        @consumer("invoices")
        async def handle(message):
            handled.append(message.body)

        await sync_to_async(drain)()
        await asend("invoices", 1)
        assert await sync_to_async(drain)() == 1
        assert handled == [1]


class TestInFlight:
    def test_many_messages_are_in_flight_in_one_event_loop(self, declare, start, until, gate):
        begun, loops = [], set()

        async def handle(message):
            loops.add(asyncio.get_running_loop())
            begun.append(message.body)
            await passed(gate)

        declare(handle)
        running = start()
        send_many("invoices", range(100))
        until(lambda: len(begun) == 100)
        assert len(loops) == 1
        assert waiting() == {"leased": 100}
        assert running.tally.running() == {"invoices": 100}
        gate.set()
        until(lambda: waiting() == {})
        assert running.tally.handled == 100

    def test_no_more_than_the_consumer_allows(self, declare, start, until, gate):
        begun = []

        async def handle(message):
            begun.append(message.body)
            await passed(gate)

        declare(handle, concurrency=3)
        start()
        send_many("invoices", range(10))
        until(lambda: len(begun) == 3)
        assert waiting() == {"leased": 3, "ready": 7}
        gate.set()
        until(lambda: waiting() == {})

    def test_one_that_ends_is_settled_while_others_run(self, declare, start, until, gate):
        async def handle(message):
            if message.body:
                await passed(gate)

        declare(handle)
        start()
        send_many("invoices", [1, 0, 1])
        until(lambda: waiting() == {"leased": 2})
        gate.set()

    def test_leases_last_as_long_as_the_handlers(self, declare, start, until, gate):
        attempts = []

        async def handle(message):
            attempts.append(message.attempt)
            await passed(gate)

        declare(handle, lease=1)
        start()
        send("invoices", 1)
        until(lambda: attempts)
        ((first,),) = execute("SELECT leased_until FROM messaging_lease")
        until(
            lambda: (
                execute(
                    "SELECT leased_until > %s + interval '1 second' FROM messaging_lease", first
                )
                == [(True,)]
            )
        )
        gate.set()
        until(lambda: waiting() == {})
        assert (attempts, failures()) == ([1], [])

    def test_messages_of_one_key_come_one_after_another(self, declare, start, until):
        handled, inside = [], []

        async def handle(message):
            inside.append(message.body)
            assert len(inside) == 1
            await asyncio.sleep(0.001)
            inside.clear()
            handled.append(message.body)

        declare(handle)
        start()
        send_many("invoices", range(10), ordering_key="customer-1")
        until(lambda: len(handled) == 10)
        assert (handled, failures()) == (list(range(10)), [])


class TestOutcomes:
    def test_failures_retries_and_rejections_come_to_what_they_always_do(
        self, declare, start, until
    ):
        async def handle(message):
            match message.body:
                case "fail":
                    raise ValueError
                case "retry":
                    raise Retry(after=60, counts=False)
                case "reject":
                    raise Reject("No.")

        declare(handle, backoff_base=60)
        start()
        send_many("invoices", ["fail", "retry", "reject", "handle"])
        until(lambda: waiting() == {"scheduled": 2, "dead": 1})
        assert sorted(execute("SELECT attempt FROM messaging_scheduled")) == [(1,), (2,)]
        assert DeadLetter.objects.get().description == "No."

    @pytest.mark.parametrize(
        "error", [SystemExit, KeyboardInterrupt, asyncio.CancelledError, GeneratorExit]
    )
    def test_no_exception_ends_the_loop_or_its_neighbours(self, declare, start, until, error):
        async def handle(message):
            if message.body:
                raise error

        declare(handle, backoff_base=60)
        running = start()
        send_many("invoices", [1, 0])
        until(lambda: waiting() == {"scheduled": 1})
        send("invoices", 0)
        until(lambda: waiting() == {"scheduled": 1})
        assert running.thread.is_alive()

    def test_a_handler_that_takes_too_long_is_cancelled(self, declare, start, until):
        cancelled = []

        async def handle(message):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                cancelled.append(message.body)
                raise

        declare(handle, timeout=0.05, max_deliveries=1)
        start()
        send("invoices", 1)
        until(lambda: waiting() == {"dead": 1})
        assert cancelled == [1]
        dead = DeadLetter.objects.get()
        assert (dead.reason, dead.error) == ("timeout", "HandlerTimeout")

    def test_an_error_of_the_handlers_own_is_no_timeout(self, declare, start, until):
        async def handle(message):
            raise TimeoutError("The carrier does not answer.")

        declare(handle, timeout=10, max_deliveries=1)
        start()
        send("invoices", 1)
        until(lambda: waiting() == {"dead": 1})
        assert DeadLetter.objects.get().error == "TimeoutError"

    def test_a_message_sent_by_a_handler_knows_its_cause(self, declare, start, until, queue):
        queue("emails")

        async def handle(message):
            await asend("emails", message.body)

        declare(handle)
        start()
        sent = send_many("invoices", range(5))
        emails = Message.objects.filter(queue__name="emails")
        until(lambda: emails.count() == 5)
        causes = emails.values_list("body", "causation_id")
        assert sorted(causes) == list(enumerate(sent))


class TestAcknowledgingItself:
    def test_a_handler_acknowledges_in_the_transaction_of_its_effects(
        self, declare, start, until, caplog
    ):
        def pay(message):
            with transaction.atomic():
                take_effect(message.body)
                message.acknowledge()

        async def handle(message):
            await sync_to_async(pay)(message)

        declare(handle)
        running = start()
        send("invoices", 1)
        until(lambda: waiting() == {})
        running.stop()
        assert effects() == ["1"]
        assert "lost its lease" not in caplog.text

    def test_a_handler_that_is_too_late_leaves_no_effect(self, declare, start, until):
        def pay(message):
            let_leases_end()
            with transaction.atomic():
                take_effect(message.body)
                message.acknowledge()

        async def handle(message):
            await sync_to_async(pay)(message)

        declare(handle)
        running = start()
        send("invoices", 1)
        until(lambda: running.tally.running() == {} and waiting() == {"leased": 1})
        assert effects() == []

    def test_without_that_its_effects_are_at_least_once(self, declare, start, until, caplog):
        async def handle(message):
            await Group.objects.acreate(name=str(message.attempt))
            await sync_to_async(let_leases_end)()

        declare(handle)
        running = start()
        send("invoices", 1)
        until(lambda: effects() == ["1"] and running.tally.running() == {})
        assert waiting() == {"leased": 1}
        running.stop()
        assert "Message lost its lease and is not settled" in caplog.text


class TestStopping:
    def test_what_is_in_flight_ends_and_nothing_more_is_claimed(self, declare, start, until, gate):
        begun = []

        async def handle(message):
            begun.append(message.body)
            await passed(gate)

        declare(handle, concurrency=2)
        running = start()
        send_many("invoices", range(5))
        until(lambda: len(begun) == 2)
        running.runner.stop()
        gate.set()
        running.stop()
        assert (len(begun), waiting()) == (2, {"ready": 3})

    def test_a_runner_without_work_stops_at_once(self, declare, start):
        async def handle(message):
            pass

        declare(handle)
        start().stop()


class TestSuspects:
    def suspect(self, sent):
        """Have a message's process have died while it handled it."""
        execute("UPDATE messaging_delivery SET attempt = 2 WHERE message_id = %s", sent)
        execute(
            "INSERT INTO messaging_attempt (message_id, queue_id, attempt, outcome, error,"
            " description, traceback, worker, duration)"
            " SELECT %s, id, 1, 'retry', 'WorkerDied', '', '', '', 0 FROM messaging_queue"
            " WHERE name = 'invoices'",
            sent,
        )

    def test_a_message_whose_process_died_before_runs_alone(self, declare, start, until, gate):
        begun = []

        async def handle(message):
            begun.append(message.body)
            await passed(gate)

        declare(handle)
        (sent, _) = send_many("invoices", ["suspect", "other"])
        self.suspect(sent)
        start()
        until(lambda: begun == ["other"])
        assert waiting() == {"leased": 2}
        gate.set()
        until(lambda: begun == ["other", "suspect"])
        until(lambda: waiting() == {})

    def test_nothing_is_started_beside_it(self, declare, start, until, gate, monkeypatch):
        begun, turns = [], []
        take_turn = AsyncRunner._take_turn
        monkeypatch.setattr(
            AsyncRunner, "_take_turn", lambda runner: turns.append(1) or take_turn(runner)
        )

        async def handle(message):
            begun.append(message.body)
            await passed(gate)

        declare(handle)
        self.suspect(send("invoices", "suspect"))
        running = start()
        until(lambda: begun == ["suspect"])
        send("invoices", "late")
        for number in (1, 2):
            before = len(turns)
            running.runner.notice([])
            until(lambda before=before, number=number: len(turns) > before + number)
        assert begun == ["suspect"]
        assert waiting() == {"leased": 1, "ready": 1}
        gate.set()
        until(lambda: waiting() == {})
        assert begun == ["suspect", "late"]


class TestLostConnections:
    @pytest.mark.direct("behind a pooler none of the server's sessions is the worker's own")
    def test_sessions_that_are_ended_cost_a_reconnect_and_no_attempt(
        self, declare, start, until, gate
    ):
        begun = []

        async def handle(message):
            begun.append(message.attempt)
            await passed(gate)
            await Group.objects.acreate(name=str(message.body))

        declare(handle)
        ((before,),) = execute("SELECT clock_timestamp()")
        start()
        send_many("invoices", range(10))
        until(lambda: len(begun) == 10)
        ended = execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_start > %s",
            before,
        )
        assert ended
        gate.set()
        until(lambda: waiting() == {})
        assert (sorted(begun), failures()) == ([1] * 10, [])
        send("invoices", 10)
        until(lambda: len(effects()) == 11 and waiting() == {})
        assert connections["default"].is_usable()
