"""Handle: a failing handler is undone alone, however it fails and whatever it touched."""

import os

import psycopg
import pytest
from django.contrib.auth.models import Group
from django.db import IntegrityError, OperationalError, connection, transaction
from effects import effects, execute, failures, take_effect, waiting

from messaging import consumer, once, send, send_many
from messaging.models import Attempt, Delivery
from messaging.testing import drain

pytestmark = pytest.mark.django_db


@pytest.fixture
def handle(declared):
    """Return a function that handles bodies, all in one transaction, and returns the calls.

    What it is given does the work of the handler for the body ``odd``; the others take effect.
    """

    def run(odd_one, *, bodies=("a", "b", "odd", "c", "d"), size=10):
        calls = []

        @consumer("invoices", transaction_size=size, backoff_base=60)
        def invoice(message):
            calls.append(message.body)
            take_effect(message.body)
            if message.body == "odd":
                odd_one(message)

        drain("invoices")
        send_many("invoices", bodies)
        drain("invoices")
        return calls

    return run


def fail(message):
    raise ValueError("odd")


class TestAFailingHandler:
    def test_is_undone_alone_and_its_neighbours_are_not_run_again(self, handle):
        assert handle(fail) == ["a", "b", "odd", "c", "d"]
        assert effects() == ["a", "b", "c", "d"]
        assert waiting() == {"scheduled": 1}
        assert [error for _, error in failures()] == ["ValueError"]

    def test_is_one_that_only_makes_a_coroutine(self, declared):
        async def deliver(message):
            raise AssertionError("nobody awaits this")

        consumer("parcels", backoff_base=60)(lambda message: deliver(message))
        drain("parcels")
        send("parcels", 1)
        drain("parcels")
        assert [error for _, error in failures()] == ["TypeError"]

    def test_takes_the_messages_that_it_sent_with_it(self, handle, queue):
        queue("others")

        def send_and_fail(message):
            send("others", "of the odd one")
            fail(message)

        handle(send_and_fail)
        assert not Delivery.objects.exists()
        assert waiting() == {"scheduled": 1}
        assert execute("SELECT count(*) FROM messaging_message WHERE body = %s", '"odd"')

    def test_takes_what_it_did_once_with_it(self, handle):
        def act_once(message):
            with once("test", "key") as first:
                assert first
            fail(message)

        handle(act_once)
        with once("test", "key") as first:
            assert first

    @pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, MemoryError])
    def test_cannot_end_its_worker(self, handle, error):
        def end(message):
            raise error

        assert handle(end) == ["a", "b", "odd", "c", "d"]
        assert effects() == ["a", "b", "c", "d"]
        assert [name for _, name in failures()] == [error.__name__]

    def test_that_fails_in_its_own_atomic_block_is_undone_as_well(self, handle):
        def fail_inside(message):
            with transaction.atomic():
                take_effect("inner")
                fail(message)

        handle(fail_inside)
        assert effects() == ["a", "b", "c", "d"]

    def test_loses_what_it_wrote_past_django(self, handle):
        def copy_and_fail(message):
            with (
                connection.cursor() as cursor,
                cursor.copy("COPY auth_group (name) FROM STDIN") as c,
            ):
                c.write_row(("copied",))
            connection.connection.execute("INSERT INTO auth_group (name) VALUES ('raw')")
            fail(message)

        handle(copy_and_fail)
        assert effects() == ["a", "b", "c", "d"]

    def test_that_only_wrote_past_django_is_undone_as_well(self, declared):
        @consumer("invoices")
        def copy_and_fail(message):
            with (
                connection.cursor() as cursor,
                cursor.copy("COPY auth_group (name) FROM STDIN") as c,
            ):
                c.write_row(("copied",))
            fail(message)

        drain("invoices")
        send("invoices", 1)
        drain("invoices")
        assert effects() == []
        assert waiting() == {"scheduled": 1}


class TestADatabaseError:
    def swallow(self, message):
        with pytest.raises(IntegrityError):
            Group.objects.bulk_create([Group(name="a")])

    def test_that_is_swallowed_fails_that_message_and_says_what_to_do(self, handle):
        assert handle(self.swallow) == ["a", "b", "odd", "c", "d"]
        assert effects() == ["a", "b", "c", "d"]
        assert "own atomic() block" in Attempt.objects.get().description

    def test_that_a_savepoint_contains_fails_nothing(self, handle):
        def contain(message):
            with pytest.raises(IntegrityError), transaction.atomic():
                take_effect("a")
            take_effect("after")

        handle(contain)
        assert effects() == ["a", "b", "odd", "after", "c", "d"]
        assert waiting() == {}

    def test_that_is_raised_fails_that_message(self, handle):
        handle(lambda message: take_effect("a"))
        assert effects() == ["a", "b", "c", "d"]
        assert [error for _, error in failures()] == ["django.db.utils.IntegrityError"]


class TestAHandlerThatEndsItsTransaction:
    @pytest.mark.parametrize(
        "sql",
        ["COMMIT", " rollback", "END", "abort; ", "Prepare  Transaction 'x'", "ROLLBACK WORK"],
    )
    def test_is_stopped_from_it_and_fails_alone(self, handle, sql):
        assert handle(lambda message: execute(sql)) == ["a", "b", "odd", "c", "d"]
        assert effects() == ["a", "b", "c", "d"]
        assert waiting() == {"scheduled": 1}
        assert "return to commit, raise to roll back" in Attempt.objects.get().description

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize("end", ["commit", "rollback"])
    def test_past_django_loses_nothing_of_the_others(self, handle, end):
        calls = handle(lambda message: getattr(connection.connection, end)())
        # Whether this one counts as done is its own affair.
        assert set(effects()) >= {"a", "b", "c", "d"}
        assert len(set(calls)) == 5
        assert Delivery.objects.count() == 0


@pytest.mark.django_db(transaction=True)
class TestAHandlerThatLosesItsConnection:
    def test_by_closing_it_fails_alone(self, handle):
        handle(lambda message: connection.close())
        assert sorted(effects()) == ["a", "b", "c", "d"]
        assert waiting() == {"scheduled": 1}
        assert "closed the database connection" in Attempt.objects.get().description

    def test_by_closing_it_past_django_harms_nobody(self, handle):
        closed = []

        def close_once(message):
            if not closed:
                closed.append(True)
                connection.connection.close()

        with pytest.raises(OperationalError):
            handle(close_once)
        connection.close()
        drain("invoices")
        assert sorted(effects()) == ["a", "b", "c", "d", "odd"]


# Tests have threads where the supervisor has none, and fork with care.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.django_db(transaction=True)
class TestAForkInAHandler:
    def test_does_not_settle_in_the_child(self, handle):
        statuses = []

        def fork(message):
            child = os.fork()
            if child == 0:
                raise ValueError("in the child")
            statuses.append(os.waitpid(child, 0)[1])

        handle(fork)
        assert statuses != [0]
        assert effects() == ["a", "b", "odd", "c", "d"]
        assert failures() == []


@pytest.mark.django_db(transaction=True)
class TestHooks:
    def test_of_a_failing_handler_are_dropped_and_of_others_run_after_the_commit(self, declared):
        ran = []

        @consumer("invoices", transaction_size=10)
        def invoice(message):
            take_effect(message.body)
            transaction.on_commit(lambda: ran.append((message.body, connection.in_atomic_block)))
            if message.body == "odd":
                fail(message)

        drain("invoices")
        send_many("invoices", ["a", "odd", "b"])
        drain("invoices")
        assert ran == [("a", False), ("b", False)]

    def test_that_raise_harm_neither_the_message_nor_other_hooks(self, declared):
        ran = []

        @consumer("invoices", transaction_size=10)
        def invoice(message):
            take_effect(message.body)
            transaction.on_commit(lambda: ran.append(message.body) or 1 / (message.body != "odd"))

        drain("invoices")
        send_many("invoices", ["a", "odd", "b"])
        assert drain("invoices") == 3
        assert ran == ["a", "odd", "b"]
        assert effects() == ["a", "odd", "b"]
        assert failures() == []


class TestTheSavepoint:
    @pytest.fixture
    def statements(self, monkeypatch):
        """Return the list of all SQL that goes to the server, with its parameters left out."""
        seen = []
        execute = psycopg.Cursor.execute

        def record(cursor, query, *args, **kwargs):
            seen.append(query if isinstance(query, str) else str(query))
            return execute(cursor, query, *args, **kwargs)

        monkeypatch.setattr(psycopg.Cursor, "execute", record)
        return seen

    def opened(self, statements):
        return sum("messaging_handler" in sql and sql.startswith("SAVEPOINT") for sql in statements)

    @pytest.fixture
    def three_messages(self, declared):
        """Return a function that has three messages handled by what it is given."""

        def run(function, **options):
            consumer("invoices", **options)(function)
            drain("invoices")
            send_many("invoices", [1, 2, 3])
            return drain("invoices")

        return run

    def test_costs_a_handler_without_sql_nothing(self, three_messages, statements):
        assert three_messages(lambda message: None) == 3
        assert self.opened(statements) == 0

    def test_costs_a_failing_handler_without_sql_nothing(self, three_messages, statements):
        assert three_messages(fail) == 3
        assert self.opened(statements) == 0

    def test_is_opened_once_however_much_sql_a_handler_runs(self, three_messages, statements):
        def write(message):
            take_effect(message.body)
            take_effect(-message.body)

        assert three_messages(write, transaction_size=3) == 3
        assert self.opened(statements) == 3

    def test_is_opened_before_the_first_statement(self, three_messages, statements):
        three_messages(lambda message: take_effect(message.body))
        savepoint = next(i for i, sql in enumerate(statements) if "messaging_handler" in sql)
        effect = next(i for i, sql in enumerate(statements) if "auth_group" in sql)
        assert savepoint < effect
