"""The runner: what a transaction that was lost comes to, and whom that is blamed on."""

import threading

import pytest
from django.contrib.auth.models import Group
from django.db import OperationalError, connection
from effects import (
    break_the_commit,
    effects,
    execute,
    failures,
    make_due,
    take_effect,
    waiting,
)

from messaging import send, send_many
from messaging.models import DeadLetter, Delivery
from messaging.testing import drain

pytestmark = pytest.mark.django_db(transaction=True)


class TestAConflict:
    """Two handlers lock the same two rows in opposite orders, and the database ends one."""

    @pytest.fixture
    def collide(self, declare, elsewhere, until):
        """Return a function that has two sessions deadlock once, and returns the attempts seen."""
        attempts = []
        met = threading.Barrier(2, timeout=10)

        def lock_both(message):
            attempts.append((message.body["locks"][0], message.attempt))
            first, second = message.body["locks"]
            Group.objects.select_for_update().get(name=first)
            if len(attempts) <= 2:
                met.wait()
            Group.objects.select_for_update().get(name=second)
            Group.objects.create(name=f"locked {first} first")

        def run():
            declare(lock_both)
            Group.objects.bulk_create([Group(name="a"), Group(name="b")])
            send("invoices", {"locks": ["a", "b"]})
            send("invoices", {"locks": ["b", "a"]})
            other = elsewhere(drain, "invoices")
            drain("invoices")
            other.result(timeout=20)
            # Whoever found the other's message locked has ended before it came back.
            drain("invoices")
            return attempts

        return run

    def test_is_tried_again_at_once_and_not_counted(self, collide):
        attempts = collide()
        assert len(attempts) == 3
        assert {attempt for _, attempt in attempts} == {1}
        assert sorted(effects()) == ["a", "b", "locked a first", "locked b first"]
        assert failures() == []
        assert waiting() == {}

    def test_is_counted_when_it_goes_on(self, declare):
        calls = []

        def always_lose(message):
            calls.append(message.attempt)
            execute("DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40P01'; END $$")

        declare(always_lose, max_deliveries=2, backoff_base=60)
        send("invoices", 1)
        drain("invoices")
        assert calls == [1, 1, 1]
        assert len(failures()) == 1
        make_due()
        drain("invoices")
        assert waiting() == {"dead": 1}

    def test_that_was_won_in_the_end_is_forgotten(self, declare, runner):
        lost = [True]

        def lose_once(message):
            if lost:
                lost.pop()
                execute("DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END $$")

        declare(lose_once)
        send("invoices", 1)
        a_runner = runner(drain=True)
        while Delivery.objects.exists():
            a_runner.run_round()
        assert not a_runner._works["invoices"].losses


class TestAFailingCommit:
    def handler(self, message):
        take_effect(message.body)
        if message.body == "odd":
            break_the_commit()

    @pytest.mark.parametrize("size", [None, 10])
    def test_is_counted_against_its_message_alone(self, declare, size):
        declare(self.handler, transaction_size=size, backoff_base=60)
        send_many("invoices", ["a", "odd", "b"])
        odd = execute("SELECT id FROM messaging_message ORDER BY id OFFSET 1 LIMIT 1")[0][0]
        assert drain("invoices") == 3
        assert effects() == ["a", "b"]
        assert failures() == [(odd, "django.db.utils.IntegrityError")]
        assert waiting() == {"scheduled": 1}

    def test_ends_in_the_dead_letters(self, declare):
        declare(self.handler, max_deliveries=3, backoff_base=60)
        send("invoices", "odd")
        for _ in range(3):
            drain("invoices")
            make_due()
        dead = DeadLetter.objects.get()
        assert (dead.reason, dead.attempts) == ("max_deliveries", 3)
        assert "foreign key" in dead.description


class TestALostConnection:
    TERMINATE = "SELECT pg_terminate_backend(pg_backend_pid())"

    def test_is_not_counted_and_the_message_comes_again(self, declare, runner):
        lost = [True, True]

        def lose_it(message):
            take_effect(message.body)
            if lost:
                lost.pop()
                execute(self.TERMINATE)

        declare(lose_it)
        send_many("invoices", ["a", "b"])
        runner(drain=True).run()
        assert effects() == ["a", "b"]
        assert failures() == []

    def test_does_not_break_the_runner_when_the_handler_hides_it(self, declare, runner):
        lost = [True]

        def hide_it(message):
            if lost:
                lost.pop()
                try:
                    execute(self.TERMINATE)
                except OperationalError as error:
                    raise ValueError("something went wrong") from error
            take_effect(message.body)

        declare(hide_it)
        send("invoices", "a")
        runner(drain=True).run()
        assert effects() == ["a"]
        assert failures() == []

    def test_between_handler_and_commit_is_not_counted(self, declare, runner, elsewhere):
        lost = [True]

        def lose_it_afterwards(message):
            take_effect(message.body)
            if lost:
                lost.pop()
                pid = connection.connection.info.backend_pid
                # The second argument: return when it is gone.
                assert elsewhere(execute, "SELECT pg_terminate_backend(%s, 5000)", pid).result()

        declare(lose_it_afterwards)
        send_many("invoices", ["a", "b"])
        runner(drain=True).run()
        assert effects() == ["a", "b"]
        assert failures() == []

    def test_that_comes_back_with_the_same_message_is_counted(self, declare, runner):
        calls = []

        def always_lose_it(message):
            calls.append(message.attempt)
            execute(self.TERMINATE)

        declare(always_lose_it, max_deliveries=1)
        send("invoices", "a")
        runner(drain=True).run()
        assert calls == [1, 1, 1]
        assert waiting() == {"dead": 1}


class TestACommitPastDjango:
    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_loses_no_message_of_its_transaction(self, declare, end):
        def handle(message):
            if message.body == "ending":
                if message.attempt == 1:
                    getattr(connection.connection, end)()
                return
            take_effect(message.body)
            if message.body == "failing":
                raise ValueError(message.body)

        declare(handle, transaction_size=10, max_deliveries=2)
        send_many("invoices", ["first", "failing", "ending", "last"])
        drain("invoices")
        make_due()
        drain("invoices")
        assert waiting() == {"dead": 1}
        assert DeadLetter.objects.get().body == "failing"
        assert {"first", "last"} <= set(effects())
        assert "failing" not in effects()
