"""A commit that is cut off is uncertain; asking tells, and sending again stores nothing twice."""

import uuid
from contextlib import suppress

import pytest
from asgiref.sync import sync_to_async
from cutting import Cut, another_way
from django.db import DatabaseError, OperationalError, connection, connections, transaction

from messaging import (
    EngineUnavailable,
    InvalidMessage,
    MessagingError,
    PublishUncertain,
    aconfirm,
    confirm,
    confirming,
    new_message_id,
    publish,
    publish_many,
    send,
    send_many,
)
from messaging.models import DeadLetter, Deduplication, Delivery, Message

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "far"]),
    pytest.mark.usefixtures("bare"),
]

# A server that dies while it commits: the last that a transaction does is to end its own session.
DIE_AT_COMMIT = """
    CREATE FUNCTION die_at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER die_at_commit AFTER INSERT ON messaging_message
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die_at_commit();
"""


def execute(sql):
    with connection.cursor() as cursor:
        cursor.execute(sql)


@pytest.fixture(autouse=True, scope="module")
def far(django_db_setup):
    """Give the same database a second alias, `far`, on a way that can be cut."""
    with another_way("far") as way:
        yield way


@pytest.fixture
def way(far, invoices):
    """Return the way to the database under the alias `far`."""
    yield far
    connections["far"].close()


@pytest.fixture
def dying(invoices):
    """Have every session end when it commits a message."""
    execute(DIE_AT_COMMIT)
    yield
    connection.close()
    execute("DROP FUNCTION die_at_commit() CASCADE")


def stored():
    return list(Message.objects.order_by("id").values_list("id", flat=True))


class TestCommits:
    """The COMMIT of an `atomic()` block is Django's; what it leaves uncertain is named."""

    @pytest.mark.parametrize("cut", Cut)
    def test_a_commit_that_is_cut_off_names_the_messages_and_asking_tells(self, cut, way):
        with pytest.raises(PublishUncertain) as uncertain, transaction.atomic(using="far"):
            ids = [
                send("invoices", 1, using="far"),
                *publish_many("orders.placed", [2, 3], using="far"),
                *send_many("invoices", range(600), using="far"),
            ]
            way.cut(cut, "COMMIT")
        assert uncertain.value.ids == ids
        committed = cut is Cut.AFTER
        assert confirm(ids) == dict.fromkeys(ids, committed)
        assert stored() == (ids if committed else [])

    @pytest.mark.parametrize("cut", Cut)
    def test_sending_again_under_the_same_id_stores_nothing_twice(self, cut, way):
        own = new_message_id()
        uncertainly = pytest.raises(PublishUncertain, match=str(own))
        with uncertainly as uncertain, transaction.atomic(using="far"):
            send("invoices", "x", message_id=own, using="far")
            way.cut(cut, "COMMIT")
        assert uncertain.value.ids == [str(own)]
        committed = cut is Cut.AFTER
        assert confirm(uncertain.value.ids) == {str(own): committed}
        again = send("invoices", "x", message_id=own, using="far")
        assert again.duplicate == committed
        assert stored() == [again]
        assert Delivery.objects.count() == 1
        assert confirm([own]) == {own: True}

    def test_a_server_that_dies_in_the_commit_leaves_it_uncertain(self, dying):
        with pytest.raises(PublishUncertain) as uncertain, transaction.atomic():
            sent = send("invoices", 1)
        assert uncertain.value.ids == [sent]
        assert confirm([sent]) == {sent: False}
        assert stored() == []

    def test_those_who_catch_djangos_error_still_see_it(self, dying):
        with pytest.raises(OperationalError) as error, transaction.atomic():
            send("invoices", 1)
        assert isinstance(error.value, MessagingError)
        # A pooler says it too, and psycopg finds one answer too many.
        assert isinstance(error.value.__cause__, DatabaseError)

    def test_what_a_savepoint_took_back_is_not_uncertain(self, way):
        with pytest.raises(PublishUncertain) as uncertain, transaction.atomic(using="far"):
            kept = send("invoices", 1, using="far")
            with suppress(LookupError), transaction.atomic(using="far"):
                send("invoices", 2, using="far")
                raise LookupError
            way.cut(Cut.AFTER, "COMMIT")
        assert uncertain.value.ids == [kept]

    def test_a_transaction_without_messages_keeps_its_own_error(self, way):
        with transaction.atomic(using="far"):
            send("invoices", 1, using="far")
        with suppress(LookupError), transaction.atomic(using="far"):
            send("invoices", 2, using="far")
            raise LookupError
        with pytest.raises(OperationalError) as error, transaction.atomic(using="far"):
            with connections["far"].cursor() as cursor:
                cursor.execute("CREATE TEMPORARY TABLE anything ()")
            way.cut(Cut.BEFORE, "COMMIT")
        assert not isinstance(error.value, PublishUncertain)

    def test_a_commit_that_the_server_refuses_is_certain(self, invoices):
        execute(
            DIE_AT_COMMIT.replace(
                "PERFORM pg_terminate_backend(pg_backend_pid())", "RAISE serialization_failure"
            )
        )
        try:
            with pytest.raises(OperationalError) as error, transaction.atomic():
                send("invoices", 1)
        finally:
            execute("DROP FUNCTION die_at_commit() CASCADE")
        assert not isinstance(error.value, PublishUncertain)
        assert stored() == []

    def test_a_connection_is_as_django_made_it_after_the_commit(self, invoices):
        for _ in range(2):
            with transaction.atomic():
                send("invoices", 1)
            assert "_commit" not in connection.__dict__


class TestAutocommit:
    """Without a transaction the statement itself commits."""

    @pytest.mark.parametrize("cut", Cut)
    @pytest.mark.parametrize("count", [1, 600])
    def test_a_statement_that_is_cut_off_is_uncertain(self, cut, count, way):
        send("invoices", "before", using="far")
        way.cut(cut, "the one" if count == 1 else "COMMIT")
        with pytest.raises(PublishUncertain) as uncertain:
            send_many("invoices", ["the one"] * count, using="far")
        committed = cut is Cut.AFTER
        assert Message.objects.count() == 1 + count * committed
        if count == 1:  # nobody has told its id
            assert uncertain.value.ids == []
            assert "message_id=new_message_id()" in str(uncertain.value)
        else:
            assert set(confirm(uncertain.value.ids).values()) == {committed}
            assert len(uncertain.value.ids) == count

    @pytest.mark.parametrize("cut", Cut)
    def test_sending_again_on_the_same_connection_stores_nothing_twice(self, cut, way):
        own = new_message_id()
        send("invoices", "before", using="far")
        way.cut(cut, str(own))
        with pytest.raises(PublishUncertain) as uncertain:
            send("invoices", "x", message_id=own, using="far")
        assert uncertain.value.ids == [str(own)]
        again = send("invoices", "x", message_id=own, using="far")
        assert again.duplicate == (cut is Cut.AFTER)
        assert Message.objects.count() == 2

    def test_a_statement_cut_off_in_a_block_stored_nothing(self, way):
        certainly = pytest.raises(EngineUnavailable, match="nothing of this transaction is stored")
        with certainly, transaction.atomic(using="far"):
            send("invoices", 1, using="far")
            way.cut(Cut.AFTER, "the one")
            send("invoices", "the one", using="far")
        assert stored() == []

    def test_many_cut_off_before_their_commit_are_not_stored(self, way):
        send("invoices", "before", using="far")
        way.cut(Cut.AFTER, "COPY messaging_message")
        with pytest.raises(EngineUnavailable, match="nothing"):
            send_many("invoices", range(600), using="far")
        assert Message.objects.count() == 1

    def test_a_server_that_cannot_be_reached_stored_nothing(self, way, monkeypatch):
        monkeypatch.setitem(connections["far"].settings_dict, "PORT", "1")
        with pytest.raises(EngineUnavailable, match="cannot be reached") as error:
            send("invoices", 1, using="far")
        assert isinstance(error.value, OperationalError)

    def test_a_session_that_was_ended_in_between_is_replaced(self, way):
        send("invoices", 1, using="far")
        connections["far"].connection.close()
        send("invoices", 2, using="far")
        assert Message.objects.count() == 2


class TestConfirm:
    def test_tells_what_is_stored_by_either_kind_of_id(self, invoices):
        own, unknown = new_message_id(), new_message_id()
        sent = [send("invoices", 1), publish("orders.placed", 2), send("invoices", 3, delay=60)]
        send("invoices", 4, message_id=own)
        missing = max(stored()) + 1
        expected = {**dict.fromkeys(sent, True), own: True, unknown: False, missing: False}
        assert confirm(expected) == expected
        assert confirm([str(own)]) == {str(own): True}
        assert confirm([]) == {}
        assert Message.objects.count() == 4
        assert Deduplication.objects.count() == 1

    def test_a_dead_letter_that_the_log_has_forgotten_was_stored(self, invoices):
        sent = send("invoices", 1)
        DeadLetter.objects.create(
            message_id=sent, queue=invoices, origin=invoices, priority=0, headers={}, body=1,
            published_at="2026-01-01T00:00:00Z", attempts=1, reason="rejected", fingerprint="",
        )  # fmt: skip
        Message.objects.all().delete()
        assert confirm([sent]) == {sent: True}

    def test_a_senders_own_id_is_known_though_the_message_is_handled_and_gone(self, invoices):
        own = new_message_id()
        send("invoices", 1, message_id=own)
        Message.objects.all().delete()
        assert confirm([own]) == {own: True}

    @pytest.mark.parametrize("commits", [True, False])
    def test_waits_for_a_transaction_that_has_not_ended(
        self, commits, invoices, elsewhere, until, waiters
    ):
        own = new_message_id()
        with suppress(LookupError), transaction.atomic():
            sent = send("invoices", 1, message_id=own)
            calls = [elsewhere(confirm, [sent]), elsewhere(confirm, [own])]
            until(lambda: waiters() == 2)
            if not commits:
                raise LookupError
        assert [call.result(15) for call in calls] == [{sent: commits}, {own: commits}]

    def test_a_transaction_that_goes_on_and_on_stays_uncertain(
        self, invoices, elsewhere, monkeypatch
    ):
        monkeypatch.setattr(confirming, "WAIT", 0.05)
        with transaction.atomic():
            sent = send("invoices", 1)
            with pytest.raises(PublishUncertain) as uncertain:
                elsewhere(confirm, [sent]).result(15)
        assert uncertain.value.ids == [sent]
        assert confirm([sent]) == {sent: True}

    def test_leaves_the_callers_transaction_as_it_was(self, invoices):
        own = new_message_id()
        with transaction.atomic():
            sent = send("invoices", 1, message_id=own)
            assert confirm([sent, own, sent + 1]) == {sent: True, own: True, sent + 1: False}
            send("invoices", 2)
        assert Message.objects.count() == 2
        assert not connection.needs_rollback

    @pytest.mark.parametrize(
        "value", ["x", None, 1.5, uuid.UUID("5e0c7f4e-8d1b-4a57-9c39-2b7a1c4f6d10")], ids=repr
    )
    def test_refuses_what_is_no_id(self, value):
        with pytest.raises(InvalidMessage, match="use a UUID of version 7"):
            confirm([value])

    async def test_async_code_asks_too(self):
        assert await aconfirm([1]) == {1: False}
        await sync_to_async(connections.close_all)()
