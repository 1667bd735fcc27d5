"""Statements run prepared on the caller's connection, where its watchers see them."""

import psycopg
import pytest
from django.db import (
    InternalError,
    OperationalError,
    ProgrammingError,
    connection,
    connections,
    reset_queries,
    transaction,
)

from messaging import send
from messaging.store import connection as module
from messaging.store.connection import connection_for, run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]

SHARED = "PgBouncer before 1.21 cannot keep what is prepared for whom"
ANSWER = "SELECT %(n)s::int AS answer"


def prepared():
    """Return the statements that the server holds prepared for this session."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement FROM pg_prepared_statements")
        return " ".join(statement for (statement,) in cursor.fetchall())


class TestRunning:
    def test_rows_come_back_and_none_where_there_are_none(self):
        assert run(connection, ANSWER, {"n": 42}) == [(42,)]
        assert run(connection, "SET LOCAL work_mem = '4MB'") == []
        assert run(connection, "SELECT WHERE false") == []

    def test_it_runs_in_the_callers_transaction(self, queue):
        with transaction.atomic():
            run(connection, "SELECT set_config('messaging.seen', 'yes', true)")
            with connection.cursor() as cursor:
                cursor.execute("SELECT current_setting('messaging.seen')")
                assert cursor.fetchone() == ("yes",)

    def test_errors_are_those_of_django_with_those_of_the_driver_beneath(self):
        with pytest.raises(ProgrammingError) as raised, transaction.atomic():
            run(connection, "SELECT FROM nowhere")
        assert isinstance(raised.value.__cause__, psycopg.errors.UndefinedTable)
        with pytest.raises(InternalError), transaction.atomic():
            with pytest.raises(ProgrammingError):
                run(connection, "SELECT FROM nowhere")
            run(connection, ANSWER, {"n": 1})

    def test_a_block_that_must_roll_back_runs_nothing(self):
        with transaction.atomic():
            transaction.set_rollback(True)
            with pytest.raises(transaction.TransactionManagementError):
                run(connection, ANSWER, {"n": 1})
            transaction.set_rollback(False)


class TestPreparing:
    @pytest.fixture(autouse=True)
    def anew(self):
        """Start with nothing prepared; the driver knows what it has prepared."""
        connection.ensure_connection()
        raw = connection.connection
        raw.execute("DEALLOCATE ALL")
        module._direct.clear()
        yield
        raw.prepare_threshold = None
        module._direct.clear()

    @pytest.mark.direct(SHARED)
    def test_hot_statements_are_prepared_and_those_of_the_project_are_not(self, queue):
        for n in range(10):
            queue(f"queue-{n}")
        send("queue-1", 1)
        assert "INSERT INTO messaging_message" in prepared()
        assert "messaging_queue" in prepared()
        assert '"messaging_queue"' not in prepared()

    def test_binding_on_the_server_prepares_nothing_else(self):
        run(connection, ANSWER, {"n": 1})
        with psycopg.Cursor(connection.connection) as cursor:
            for _ in range(10):
                cursor.execute("SELECT 'of the project'")
        assert "of the project" not in prepared()

    @pytest.mark.direct(SHARED)
    def test_a_statement_that_is_prepared_is_sent_by_its_name(self, queue, monkeypatch):
        queue()
        send("invoices", 1)
        monkeypatch.setattr(psycopg, "RawCursor", None)
        assert send("invoices", 2)

    def test_what_a_rollback_to_a_savepoint_took_is_prepared_again(self, queue):
        queue()
        run(connection, ANSWER, {"n": 1})
        send("invoices", 1)
        with transaction.atomic():
            send("invoices", 2)
            transaction.set_rollback(True)
        assert "INSERT INTO messaging_message" not in prepared()
        assert send("invoices", 3)

    @pytest.mark.direct(SHARED)
    @pytest.mark.parametrize(
        ("chosen", "pooled", "expected"),
        [(None, False, True), (None, True, False), (True, True, True), (False, False, False)],
    )
    def test_behind_a_pooler_nothing_is_prepared_unless_it_is_asked_for(
        self, queue, settings, monkeypatch, chosen, pooled, expected
    ):
        settings.MESSAGING = {"PREPARE_STATEMENTS": chosen}
        monkeypatch.setattr(module, "is_pooled", lambda raw, backend: pooled)
        queue()
        for body in range(3):
            send("invoices", body)
        assert ("INSERT INTO messaging_message" in prepared()) == expected

    def test_a_connection_is_asked_once_whether_it_is_pooled(self, queue, monkeypatch):
        asked = []
        monkeypatch.setattr(module, "is_pooled", lambda raw, backend: asked.append(raw) or True)
        queue()
        for body in range(3):
            send("invoices", body)
        assert asked == [connection.connection]

    def test_a_project_that_prepares_keeps_its_own_threshold(self):
        connection.connection.prepare_threshold = 3
        run(connection, ANSWER, {"n": 1})
        assert connection.connection.prepare_threshold == 3


class TestWatching:
    def test_execute_wrappers_see_each_statement_and_may_refuse_it(self):
        seen = []

        def watch(execute, sql, params, many, context):
            seen.append((sql, params, many, context["connection"]))
            return execute(sql, params, many, context)

        def refuse(execute, sql, params, many, context):
            raise PermissionError(sql)

        with connection.execute_wrapper(watch):
            assert run(connection, ANSWER, {"n": 1}) == [(1,)]
            with pytest.raises(PermissionError), connection.execute_wrapper(refuse):
                run(connection, ANSWER, {"n": 2})
        assert run(connection, ANSWER, {"n": 3}) == [(3,)]
        assert seen == [(ANSWER, {"n": n}, False, connection) for n in (1, 2)]

    def test_wrappers_are_called_from_the_outermost_as_in_django(self):
        called = []

        def wrapper(name):
            def wrap(execute, *args):
                called.append(name)
                return execute(*args)

            return wrap

        outer, inner = wrapper("outer"), wrapper("inner")
        with connection.execute_wrapper(outer), connection.execute_wrapper(inner):
            run(connection, ANSWER, {"n": 1})
            ours, called[:] = list(called), []
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        assert ours == called

    def test_the_query_log_holds_each_statement_even_one_that_fails(self, settings):
        settings.DEBUG = True
        reset_queries()
        run(connection, ANSWER, {"n": 1})
        with pytest.raises(ProgrammingError), transaction.atomic():
            run(connection, "SELECT FROM nowhere")
        logged = [query["sql"] for query in connection.queries]
        assert ANSWER in logged
        assert "SELECT FROM nowhere" in logged


class TestConnections:
    def test_the_setting_names_the_database_and_an_alias_goes_before_it(self, settings):
        assert connection_for() is connections["default"]
        settings.MESSAGING = {"DATABASE": "elsewhere"}
        assert connection_for("default") is connections["default"]


@pytest.mark.django_db(transaction=True)
class TestLostConnections:
    @pytest.fixture
    def lost(self, queue):
        """Have the server end the connection behind its back."""
        queue()
        pid = connection.connection.info.backend_pid
        with psycopg.connect(
            **{**connection.get_connection_params(), "cursor_factory": None}, autocommit=True
        ) as other:
            other.execute("SELECT pg_terminate_backend(%s, 15000)", [pid])
        yield
        connection.close()

    def test_a_project_that_checks_its_connections_sends_on_a_new_one(self, lost):
        connection.health_check_enabled = True
        connection.health_check_done = False
        try:
            assert send("invoices", 1)
        finally:
            connection.health_check_enabled = False

    @pytest.mark.direct("a pooler gives the next statement another session, and no error comes")
    def test_without_the_check_the_error_is_djangos(self, lost):
        with pytest.raises(OperationalError):
            send("invoices", 1)
