"""A message exists when the caller's transaction commits, and never did when it rolls back."""

from contextlib import suppress

import psycopg
import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DatabaseError, connection, connections, transaction
from senders import to_queue, to_topic

from messaging import (
    MessagingError,
    UnknownQueue,
    apublish,
    asend,
    publish_many,
    send,
    send_many,
)
from messaging.models import Delivery, Message, Scheduled

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]


def later(body, **options):
    return send("invoices", body, delay=60, **options)


def once(body, **options):
    return send("invoices", body, deduplication_id="a", **options)


def many(body, **options):
    return publish_many("orders.placed", [body] * 3, **options)


def hundreds(body, **options):
    return send_many("invoices", [body] * 600, **options)


SENDERS = [to_queue, to_topic, later, once, many, hundreds]
EACH = pytest.mark.parametrize("sender", SENDERS)


def waiting():
    """Return the bodies of the ready deliveries in the order of sending."""
    rows = Delivery.objects.select_related("message").order_by("id")
    return [row.message.body for row in rows]


def nothing_is_stored():
    return not any(model.objects.exists() for model in (Message, Delivery, Scheduled))


@pytest.fixture
def outside(transactional_db):
    """Return a function that counts the messages that another session sees."""
    with psycopg.connect(
        **{**connection.get_connection_params(), "cursor_factory": None}, autocommit=True
    ) as session:
        yield lambda: session.execute("SELECT count(*) FROM messaging_message").fetchone()[0]


@pytest.fixture(autouse=True, scope="module")
def second(django_db_setup):
    """Give the same database a second alias, and so each thread a second connection to it."""
    first = connections.settings["default"]
    entry = {**first, "TEST": {**first["TEST"], "MIRROR": "default"}}
    connections.settings["second"] = entry
    yield "second"
    connections["second"].close()
    del connections["second"], connections.settings["second"]


@pytest.mark.django_db(transaction=True)
class TestCommitting:
    def test_others_see_a_message_when_it_is_committed_and_not_before(self, invoices, outside):
        for sender in SENDERS:
            before = outside()
            with transaction.atomic():
                sender("x")
                assert outside() == before
            assert outside() == Message.objects.count() > before

    def test_a_message_that_is_rolled_back_never_was(self, invoices, outside):
        for sender in SENDERS:
            with suppress(LookupError), transaction.atomic():
                sender("x")
                assert Message.objects.exists()
                raise LookupError
            assert outside() == 0
            assert nothing_is_stored()

    def test_without_a_transaction_a_message_is_there_at_once(self, invoices, outside):
        for sender in SENDERS:
            before = outside()
            sender("x")
            assert outside() == Message.objects.count() > before

    def test_a_message_sent_after_the_commit_is_there(self, invoices, outside):
        with transaction.atomic():
            transaction.on_commit(lambda: send("invoices", "after"))
            send("invoices", "in")
        assert outside() == 2
        assert waiting() == ["in", "after"]

    def test_hundreds_are_stored_all_or_none_without_a_transaction_too(self, invoices, outside):
        def fail(execute, sql, params, many, context):
            if "messaging_delivery" in sql:
                raise ConnectionError
            return execute(sql, params, many, context)

        with pytest.raises(ConnectionError), connection.execute_wrapper(fail):
            hundreds("x")
        assert outside() == 0


class TestRollingBack:
    @EACH
    def test_a_savepoint_that_is_rolled_back_takes_its_messages_along(self, sender, invoices):
        with transaction.atomic():
            to_queue("before")
            with suppress(LookupError), transaction.atomic():
                sender("inside")
                raise LookupError
            to_queue("after")
        assert waiting() == ["before", "after"]
        assert Message.objects.count() == 2

    @EACH
    def test_an_aborted_transaction_is_told_at_once(self, sender, invoices):
        with suppress(LookupError), transaction.atomic():
            with pytest.raises(DatabaseError), connection.cursor() as cursor:
                cursor.execute("SELECT 1 / 0")
            with pytest.raises(MessagingError, match="aborted by an earlier database error"):
                sender("x")
            raise LookupError
        assert nothing_is_stored()

    @EACH
    def test_a_block_that_must_roll_back_is_told_at_once(self, sender, invoices):
        with suppress(LookupError), transaction.atomic():
            with suppress(KeyError), transaction.atomic(savepoint=False):
                raise KeyError
            with pytest.raises(transaction.TransactionManagementError, match="atomic"):
                sender("x")
            raise LookupError
        assert nothing_is_stored()

    @EACH
    def test_a_read_only_transaction_is_told_at_once(self, sender, invoices):
        with suppress(LookupError), transaction.atomic():
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL transaction_read_only = on")
            with pytest.raises(MessagingError, match="read-only"):
                sender("x")
            raise LookupError
        assert nothing_is_stored()

    def test_an_unknown_name_leaves_the_transaction_usable(self, invoices):
        with transaction.atomic():
            with pytest.raises(UnknownQueue):
                send_many("invoises", range(600))
            send("invoices", "after")
        assert waiting() == ["after"]


@pytest.mark.django_db(transaction=True, databases=["default", "second"])
class TestOtherDatabases:
    def test_a_message_joins_the_transaction_of_the_connection_named(self, invoices):
        for sender in SENDERS:
            with suppress(LookupError), transaction.atomic(using="second"):
                sender("x", using="second")
                raise LookupError
            assert nothing_is_stored()
        with transaction.atomic(using="second"):
            to_queue("x", using="second")
            assert nothing_is_stored()
        assert waiting() == ["x"]

    def test_an_unknown_name_is_told_there_too(self, invoices):
        with pytest.raises(UnknownQueue, match="Did you mean 'invoices'"):
            send("invoises", 1, using="second")

    def test_a_setting_names_the_database_that_is_used_by_default(self, invoices, settings):
        settings.MESSAGING = {"DATABASE": "second"}
        with transaction.atomic(using="second"):
            send("invoices", "x")
            assert nothing_is_stored()
        assert waiting() == ["x"]


@pytest.mark.django_db(transaction=True)
class TestAsync:
    @pytest.fixture(autouse=True)
    async def closing(self):
        """Close the connection of the thread in which asynchronous code asks the database."""
        yield
        await sync_to_async(connections.close_all)()

    async def test_async_code_sends_and_publishes(self, invoices):
        sent = await asend("invoices", {"n": 1}, headers={"a": "b"}, deduplication_id="a")
        again = await asend("invoices", {"n": 1}, deduplication_id="a")
        published = await apublish("orders.placed", {"n": 2}, priority=5)
        assert (sent.duplicate, again.duplicate, again) == (False, True, sent)
        rows = Message.objects.order_by("id").values_list("id", "body", "headers")
        assert [row async for row in rows] == [
            (sent, {"n": 1}, {"a": "b"}),
            (published, {"n": 2}, {}),
        ]

    async def test_errors_reach_async_code(self, invoices):
        with pytest.raises(UnknownQueue):
            await asend("invoises", 1)

    async def test_the_synchronous_calls_refuse_to_block_the_event_loop(self, invoices):
        for sender in SENDERS:
            with pytest.raises(SynchronousOnlyOperation, match="async context"):
                sender("x")
        assert await Message.objects.acount() == 0

    async def test_a_refusal_comes_before_the_database_is_asked(self, invoices):
        with pytest.raises(ValueError, match="nan is not JSON"):
            send("invoices", float("nan"))
