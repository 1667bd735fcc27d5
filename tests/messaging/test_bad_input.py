"""Bad input is refused by one clear error where it comes in, and harms nothing beside it."""

import datetime
import getpass
import math
from io import StringIO

import pytest
from django.core import checks
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import transaction
from effects import effects, execute, take_effect, waiting

from messaging import (
    DeduplicationConflict,
    InvalidMessage,
    InvalidName,
    MessagingError,
    PayloadTooLarge,
    Reject,
    Retry,
    UnknownQueue,
    UnknownTopic,
    consumer,
    control,
    declare_queue,
    declare_topic,
    publish,
    publish_many,
    receive,
    send,
    send_many,
)
from messaging.models import Deduplication, Delivery, Message, Queue, Topic
from messaging.testing import drain

pytestmark = pytest.mark.django_db

SECRET = "s3cret"

BAD_MESSAGES = {
    "NUL in a value": ({"a": f"{SECRET}\0"}, {}, InvalidMessage),
    "NUL in a key": ({"a\0": SECRET}, {}, InvalidMessage),
    "surrogate in a value": ({"a": f"{SECRET}\ud800"}, {}, InvalidMessage),
    "surrogate in a key": ({"\ud800": SECRET}, {}, InvalidMessage),
    "not a number": ({"a": math.nan, "b": SECRET}, {}, InvalidMessage),
    "infinite": ([SECRET, -math.inf], {}, InvalidMessage),
    "integer as a key": ({1: SECRET}, {}, InvalidMessage),
    "4,301 digits": ([SECRET, 10**4300], {}, InvalidMessage),
    "bytes": (SECRET.encode(), {}, InvalidMessage),
    "too large": (SECRET * 200_000, {}, PayloadTooLarge),
    "line break in a header": (1, {"headers": {"a": f"{SECRET}\r\nb"}}, InvalidMessage),
    "list as a header": (1, {"headers": {"a": [SECRET]}}, InvalidMessage),
    "reserved header": (1, {"headers": {"x-messaging-id": SECRET}}, InvalidMessage),
    "10,000 headers": (1, {"headers": {f"h{n}": SECRET for n in range(10_000)}}, PayloadTooLarge),
    "priority": (1, {"priority": 101}, InvalidMessage),
    "delay": (1, {"delay": math.nan}, InvalidMessage),
    "endless delay": (1, {"delay": datetime.timedelta.max}, InvalidMessage),
    "naive moment": (1, {"deliver_at": datetime.datetime(2030, 1, 1)}, InvalidMessage),
    "expired already": (1, {"expires_in": 0}, InvalidMessage),
    "NUL in an ordering key": (1, {"ordering_key": f"{SECRET}\0"}, InvalidMessage),
    "empty fairness key": (1, {"fairness_key": ""}, InvalidMessage),
    "reply to no name": (1, {"reply_to": "re ply"}, InvalidName),
    "correlation": (1, {"correlation_id": "c" * 201}, InvalidMessage),
}


@pytest.fixture
def destinations(bare, queue, topic, subscribe):
    """Have a queue and a topic that it subscribes to."""
    queue("invoices")
    topic("orders.placed")
    subscribe("orders.placed", "invoices")


class TestSending:
    @pytest.mark.parametrize("way", ["send", "publish", "send_many", "publish_many"])
    @pytest.mark.parametrize(("body", "options", "error"), BAD_MESSAGES.values(), ids=BAD_MESSAGES)
    def test_a_bad_message_is_one_error_and_its_transaction_goes_on(
        self, destinations, way, body, options, error
    ):
        ways = {
            "send": lambda: send("invoices", body, **options),
            "publish": lambda: publish("orders.placed", body, **options),
            "send_many": lambda: send_many("invoices", ["good", body], **options),
            "publish_many": lambda: publish_many("orders.placed", ["good", body], **options),
        }
        with transaction.atomic():
            send("invoices", "before")
            with pytest.raises(error) as refused:
                ways[way]()
            send("invoices", "after")
        assert isinstance(refused.value, MessagingError)
        assert isinstance(refused.value, ValueError)
        assert len(str(refused.value)) < 500
        if "key" not in refused.value.__dict__.get("path", ""):
            assert SECRET not in str(refused.value)
        assert list(Message.objects.order_by("pk").values_list("body", flat=True)) == [
            "before", "after",
        ]  # fmt: skip
        assert not Deduplication.objects.exists()

    @pytest.mark.parametrize(
        "name", ["", "two words", "../x", "a\n", "a\0", "a\u202eb", "\u017f", "📦"]
    )
    def test_what_cannot_be_a_name_is_no_unknown_one(self, destinations, name):
        for call in (send, publish, send_many, publish_many):
            with pytest.raises(InvalidName, match="pattern"):
                call(name, ["x"])
        with pytest.raises(InvalidName, match="pattern"):
            receive(name)
        assert waiting() == {}

    def test_a_typo_creates_neither_queue_nor_topic(self, destinations):
        for call in (send, send_many):
            with pytest.raises(UnknownQueue, match="Did you mean 'invoices'"):
                call("invocies", ["x"])
        for call in (publish, publish_many):
            with pytest.raises(UnknownTopic, match=r"Did you mean 'orders\.placed'"):
                call("orders.plcaed", ["x"])
        assert Queue.objects.count() == 1
        assert Topic.objects.count() == 1

    def test_upper_case_is_another_name(self, destinations):
        with pytest.raises(UnknownQueue, match="'Invoices'"):
            send("Invoices", "x")

    @pytest.mark.parametrize("year", [1, 1600, 1969])
    def test_a_moment_before_1970_means_now(self, destinations, year):
        send("invoices", "x", deliver_at=datetime.datetime(year, 1, 1, tzinfo=datetime.UTC))
        assert waiting() == {"ready": 1}

    def test_a_deduplication_id_with_another_body_stores_nothing(self, destinations):
        first = send("invoices", {"n": 1}, deduplication_id="a")
        assert send("invoices", {"n": 1}, deduplication_id="a").duplicate
        with pytest.raises(DeduplicationConflict) as refused:
            send("invoices", {"n": 2}, deduplication_id="a")
        assert refused.value.original == first
        assert Delivery.objects.count() == 1

    def test_in_a_hook_of_the_commit_it_is_stored(
        self, destinations, django_capture_on_commit_callbacks
    ):
        with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
            transaction.on_commit(lambda: send("invoices", "from the hook"))
            assert waiting() == {}
        assert waiting() == {"ready": 1}

    @pytest.mark.django_db(transaction=True)  # a setting of the session, as a replica has it
    @pytest.mark.parametrize("many", [1, 600])
    def test_a_session_that_may_only_read_is_told_at_once(self, destinations, many):
        execute("SET default_transaction_read_only = on")
        try:
            for call, name in ((send_many, "invoices"), (publish_many, "orders.placed")):
                with pytest.raises(MessagingError, match="read-only"):
                    call(name, ["x"] * many)
            with pytest.raises(MessagingError, match="read-only"):
                send("invoices", "x")
        finally:
            execute("SET default_transaction_read_only = off")
        assert waiting() == {}

    @pytest.mark.django_db(transaction=True)  # the live page shows what is committed
    def test_a_large_integer_reaches_the_browser_as_its_digits(self, destinations, admin_client):
        message_id = send("invoices", {"n": 2**53 + 1})
        page = admin_client.get(f"/admin/messaging/message/{message_id}/change/")
        assert str(2**53 + 1) in page.content.decode()
        publish("orders.placed", {"n": 2**53 + 1})
        assert str(2**53 + 1) in admin_client.get("/messaging/").content.decode()


class TestHandling:
    @pytest.mark.parametrize(
        "result",
        [object(), {1, 2}, math.nan, "\0", lambda: None, ValueError("returned")],
        ids=lambda result: type(result).__name__,
    )
    def test_what_a_handler_returns_is_ignored_and_its_effect_kept(self, declare, result):
        def handle(message):
            take_effect(message.body)
            return result

        declare(handle)
        send("invoices", "a")
        assert drain() == 1
        assert (effects(), waiting()) == (["a"], {})

    def test_a_huge_result_is_dropped(self, declare):
        def handle(message):
            take_effect(message.body)
            return "x" * 100_000_000

        declare(handle)
        send("invoices", "a")
        assert drain() == 1
        assert (effects(), waiting()) == (["a"], {})

    def test_two_lambdas_for_one_queue_are_refused_with_both_places(self, declared):
        consumer("invoices")(lambda message: None)
        with pytest.raises(ValueError, match=r"test_bad_input\.py:\d+.*test_bad_input\.py:\d+"):
            consumer("invoices")(
                lambda message: None  # on a line of its own, so that it is another one
            )

    @pytest.mark.parametrize("after", [-1, math.nan, math.inf, 10**12], ids=repr)
    def test_a_retry_at_no_time_fails_in_the_handler_that_asks_for_it(self, declare, after):
        def handle(message):
            raise Retry(after=after)

        declare(handle, max_deliveries=1)
        send("invoices", "a")
        drain()
        assert waiting() == {"dead": 1}

    @pytest.mark.parametrize("reason", ["", "\0", "\ud800", "x" * 100_000, None, 5], ids=ascii)
    def test_any_reason_to_reject_is_stored(self, declare, reason):
        def handle(message):
            raise Reject(reason)

        declare(handle)
        send("invoices", "a")
        drain()
        assert waiting() == {"dead": 1}


class TestDeclaring:
    @pytest.mark.parametrize("retention", [-1, "7d", 1.5, True, 2**31, math.inf], ids=repr)
    def test_a_retention_that_is_none_is_refused(self, declared, retention):
        with pytest.raises(ValueError, match=r"retention=.*, use 0 to 2147483647"):
            declare_queue("invoices", retention=retention)
        assert declared.queues == {}

    @pytest.mark.parametrize("retention", [-1, "7d"], ids=repr)
    def test_a_topics_retention_that_is_none_is_an_error_of_the_check(self, declared, retention):
        declare_topic("orders.placed", retention=retention)
        (error,) = [found for found in checks.run_checks() if found.id == "messaging.E008"]
        assert f"retention={retention!r}" in error.msg
        assert "'orders.placed'" in error.msg

    def test_a_retention_of_0_is_no_mistake(self, declare):
        declare(lambda message: None, retention=0)
        send("invoices", "a")
        drain()
        assert not Message.objects.exists()


class TestDeadLetters:
    def test_a_redrive_of_what_is_none_moves_nothing(self, destinations):
        assert control.redrive([0, -1, 2**63 - 1]) == 0

    def test_a_circle_of_dead_letter_queues_is_refused_when_it_is_made(self, queue):
        first, second = queue("first"), queue("second")
        first.dead_letter_queue = second
        first.save()
        second.dead_letter_queue = first
        with pytest.raises(ValidationError, match="round in a circle"):
            second.full_clean()


class TestCommands:
    @pytest.mark.parametrize("names", ["", ",", "emails,,invoices", " , "], ids=repr)
    def test_an_empty_name_in_a_list_of_queues_is_a_wrong_argument(self, declare, names):
        declare(lambda message: None)
        with pytest.raises(CommandError, match="name is empty") as refused:
            call_command("runworker", f"--queues={names}")
        assert refused.value.returncode == 2

    def test_an_unknown_queue_lists_those_that_there_are(self, declare):
        declare(lambda message: None)
        with pytest.raises(CommandError, match=r"have a consumer: invoices\.") as refused:
            call_command("runworker", "nosuch")
        assert refused.value.returncode == 2
        assert "--wait-for-queue" in str(refused.value)

    def test_a_purge_without_yes_changes_nothing(self, destinations):
        send("invoices", "a")
        with pytest.raises(CommandError) as refused:
            call_command("purge", "invoices", stdout=StringIO(), stderr=StringIO())
        assert refused.value.returncode == 2
        assert "--yes" in str(refused.value)
        assert waiting() == {"ready": 1}

    def test_a_redrive_of_all_without_yes_changes_nothing(self, declare):
        def handle(message):
            raise Reject("no")

        declare(handle)
        send("invoices", "a")
        drain()
        with pytest.raises(CommandError) as refused:
            call_command("redrive", "--all", stdout=StringIO(), stderr=StringIO())
        assert refused.value.returncode == 2
        assert "--yes" in str(refused.value)
        assert waiting() == {"dead": 1}

    def test_a_purge_and_a_redrive_are_on_record_with_who_did_them(self, declare, caplog):
        def handle(message):
            raise Reject("no")

        declare(handle)
        send_many("invoices", ["a", "b"])
        drain()
        with caplog.at_level("INFO", "messaging"):
            call_command("redrive", "--all", "--yes", stdout=StringIO())
            call_command("purge", "invoices", "--yes", stdout=StringIO())
        who = f"by={getpass.getuser()} (manage.py)"
        assert f"Dead letters redriven count=2 {who}" in caplog.messages
        assert f"Queue purged queue=invoices count=2 {who}" in caplog.messages
