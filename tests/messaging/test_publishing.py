"""Messages are stored as they were given, or refused with the place of the fault."""

import datetime
import decimal
import uuid

import pytest
from django.db import connection
from django.utils import timezone
from django.utils.translation import gettext_lazy
from senders import hundreds_to_queue, to_queue, to_topic

from messaging import (
    InvalidMessage,
    InvalidName,
    PayloadTooLarge,
    UnknownQueue,
    UnknownTopic,
    consumer,
    publish,
    publish_many,
    send,
    send_many,
)
from messaging.models import Delivery, Message, Queue, Scheduled, Topic
from messaging.testing import drain

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]


def many_to_queue(body, **options):
    return send_many("invoices", [body], **options)[0]


def many_to_topic(body, **options):
    return publish_many("orders.placed", [body], **options)[0]


EACH = pytest.mark.parametrize("sender", [to_queue, to_topic, many_to_queue, many_to_topic])
ALL = pytest.mark.parametrize(
    "sender", [to_queue, to_topic, many_to_queue, many_to_topic, hundreds_to_queue]
)


@pytest.fixture
def receive(declared, invoices):
    """Return a function that handles what is ready and returns the messages."""
    messages = []
    consumer("invoices")(messages.append)

    def handled():
        messages.clear()
        drain()
        return list(messages)

    return handled


def waiting():
    """Return the bodies of the ready deliveries in the order in which they will be claimed."""
    rows = Delivery.objects.select_related("message").order_by("-priority", "id")
    return [row.message.body for row in rows]


def nothing_is_stored():
    return not any(model.objects.exists() for model in (Message, Delivery, Scheduled))


class TestBodies:
    @EACH
    def test_every_json_value_arrives_as_it_was_sent(self, sender, receive):
        sent = [None, 0, "", False, {}, [], True, 1.5, -1, "ü😀\\\t\n\"'", {"a": [1, {"b": None}]}]
        for body in sent:
            sender(body)
        arrived = [message.body for message in receive()]
        assert arrived == sent
        assert [type(body) for body in arrived] == [type(body) for body in sent]

    def test_dates_decimals_uuids_and_lazy_texts_arrive_as_django_encodes_them(self, receive):
        send(
            "invoices",
            {
                "at": datetime.datetime(2026, 11, 24, 9, 30, tzinfo=datetime.UTC),
                "on": datetime.date(2026, 11, 24),
                "price": decimal.Decimal("9.90"),
                "id": uuid.UUID(int=1),
                "label": gettext_lazy("Yes"),
                "pair": (1, 2),
            },
        )
        assert receive()[0].body == {
            "at": "2026-11-24T09:30:00Z",
            "on": "2026-11-24",
            "price": "9.90",
            "id": "00000000-0000-0000-0000-000000000001",
            "label": "Yes",
            "pair": [1, 2],
        }

    @pytest.mark.parametrize(
        "number", [2**53 + 1, -(2**64), pytest.param(10**4300 - 1, id="4300-digits"), 0.1, 5e-324]
    )
    @EACH
    def test_numbers_arrive_exactly(self, sender, number, receive):
        sender({"number": number})
        assert receive()[0].body == {"number": number}

    @pytest.mark.parametrize(
        "body",
        ["\0", "\ud800", float("nan"), [10**4300], {1: 2}, object()],
        ids=["nul", "surrogate", "nan", "digits", "key", "object"],
    )
    @ALL
    def test_a_bad_body_is_refused_before_any_sql(
        self, sender, body, invoices, django_assert_num_queries
    ):
        with django_assert_num_queries(0), pytest.raises(InvalidMessage):
            sender(body)

    @EACH
    def test_a_body_at_the_limit_arrives_and_one_over_it_is_refused(
        self, sender, invoices, settings
    ):
        settings.MESSAGING = {"MAX_BODY_BYTES": 100}
        sender("x" * 98)
        with pytest.raises(PayloadTooLarge):
            sender("x" * 99)
        assert waiting() == ["x" * 98]


class TestHeaders:
    @ALL
    def test_headers_arrive_as_they_were_sent(self, sender, receive):
        headers = {"trace": "a\\\tb", "n": 2**60, "ok": True, "none": None, "ü": "€"}
        sender("x", headers=headers)
        sender("x")
        arrived = [message.headers for message in receive()]
        assert {str(sorted(each)) for each in arrived} == {str(sorted(headers)), "[]"}
        assert arrived[0] == headers

    @ALL
    def test_bad_headers_are_refused_and_nothing_is_stored(self, sender, invoices):
        for headers in ({"a": "x\r\ny"}, {"x-messaging-id": "1"}, {"a": []}, {"a": "\0"}, "text"):
            with pytest.raises(InvalidMessage):
                sender("x", headers=headers)
        with pytest.raises(PayloadTooLarge):
            sender("x", headers={f"{n}": n for n in range(10_000)})
        assert nothing_is_stored()


class TestBatches:
    @pytest.mark.parametrize("count", [1, 2, 499, 500, 1200])
    @pytest.mark.parametrize("many", [send_many, publish_many])
    def test_bodies_keep_their_order_and_ids_come_back_in_it(self, many, count, invoices):
        name = "invoices" if many is send_many else "orders.placed"
        bodies = [{"n": n} for n in range(count)]
        ids = many(name, bodies)
        stored = Message.objects.in_bulk(ids)
        assert [stored[each].body for each in ids] == bodies
        assert ids == sorted(ids)
        assert waiting() == bodies

    @pytest.mark.parametrize("count", [3, 600])
    @pytest.mark.parametrize("many", [send_many, publish_many])
    def test_every_message_of_a_batch_gets_the_options(self, many, count, invoices):
        name = "invoices" if many is send_many else "orders.placed"
        headers = {"trace": "a\tb"}
        many(name, ["\\N"] * count, headers=headers, priority=7, delay=60, ordering_key="k\t1")
        assert Message.objects.count() == count
        for message in Message.objects.all():
            assert (message.body, message.headers) == ("\\N", headers)
            assert message.ordering_key == "k\t1"
        assert set(Scheduled.objects.values_list("priority", "attempt")) == {(7, 1)}
        assert Scheduled.objects.count() == count

    @pytest.mark.parametrize("bad", [0, 2, 550])
    @pytest.mark.parametrize("many", [send_many, publish_many])
    def test_a_bad_item_is_named_by_its_index_and_nothing_is_stored(self, many, bad, invoices):
        bodies = [{"n": n} for n in range(600 if bad > 500 else 3)]
        bodies[bad] = {"n": float("nan")}
        with pytest.raises(InvalidMessage, match=rf"item {bad}, \$\.n: nan") as refused:
            many("invoices" if many is send_many else "orders.placed", bodies)
        assert refused.value.index == bad
        assert nothing_is_stored()

    @pytest.mark.parametrize("count", [2, 600])
    def test_a_generator_that_raises_midway_stores_nothing(self, count, invoices):
        def bodies():
            yield from range(count)
            raise LookupError("midway")

        for many, name in ((send_many, "invoices"), (publish_many, "orders.placed")):
            with pytest.raises(LookupError, match="midway"):
                many(name, bodies())
        assert nothing_is_stored()

    def test_a_generator_is_a_batch(self, invoices):
        send_many("invoices", (n for n in range(3)))
        assert waiting() == [0, 1, 2]

    @pytest.mark.parametrize("many", [send_many, publish_many])
    def test_no_bodies_give_no_ids(self, many, invoices, django_assert_num_queries):
        with django_assert_num_queries(0):
            assert many("invoices", []) == []
            assert many("invoices", iter(())) == []

    @pytest.mark.parametrize("bodies", ["text", b"bytes", {"a": 1}], ids=repr)
    def test_one_body_is_no_batch(self, bodies, invoices):
        with pytest.raises(InvalidMessage, match="is one body; give a list of bodies"):
            send_many("invoices", bodies)


class TestNames:
    @pytest.mark.parametrize("count", [1, 3, 600])
    def test_an_unknown_queue_is_refused_with_a_suggestion_and_never_created(self, count, invoices):
        with pytest.raises(UnknownQueue, match=r"'invoises'\. Did you mean 'invoices'\?"):
            send_many("invoises", range(count))
        with pytest.raises(UnknownQueue):
            send("invoises", 1, deduplication_id="a")
        with pytest.raises(UnknownQueue):
            send("invoises", 1, delay=60)
        assert Queue.objects.count() == 1
        assert nothing_is_stored()

    @pytest.mark.parametrize("count", [1, 3, 600])
    def test_an_unknown_topic_is_refused_with_a_suggestion_and_never_created(self, count, invoices):
        with pytest.raises(UnknownTopic, match=r"'orders\.place'\. Did you mean 'orders\.placed'"):
            publish_many("orders.place", range(count))
        with pytest.raises(UnknownTopic):
            publish("orders.place", 1, deduplication_id="a")
        assert Topic.objects.count() == 1
        assert nothing_is_stored()

    def test_names_are_told_apart_by_case(self, invoices):
        with pytest.raises(UnknownQueue, match="Did you mean 'invoices'"):
            send("Invoices", 1)

    def test_a_wrong_name_is_refused_before_any_sql(self, invoices, django_assert_num_queries):
        with django_assert_num_queries(0):
            for name in ("", "in voices", "a" * 81, "a\0", None):
                with pytest.raises(InvalidName):
                    send(name, 1)
                with pytest.raises(InvalidName):
                    publish_many(name, [1])


class TestPriorities:
    @EACH
    def test_higher_ones_come_first_and_equal_ones_in_the_order_of_sending(self, sender, receive):
        for body, priority in (("a", 0), ("b", -100), ("c", 100), ("d", 0), ("e", 100), ("f", 1)):
            sender(body, priority=priority)
        arrived = receive()
        assert [message.body for message in arrived] == ["c", "e", "f", "a", "d", "b"]
        assert [message.priority for message in arrived] == [100, 100, 1, 0, 0, -100]

    @EACH
    def test_others_are_refused(self, sender, invoices):
        for priority in (-101, 101, 0.5, "1", None, True):
            with pytest.raises(InvalidMessage, match="-100 to 100"):
                sender("x", priority=priority)
        assert nothing_is_stored()


class TestTimes:
    @pytest.mark.parametrize("delay", [3600, 3600.0, datetime.timedelta(hours=1)])
    @ALL
    def test_a_delay_counts_from_the_databases_clock(self, sender, delay, invoices):
        sender("x", delay=delay)
        with connection.cursor() as cursor:
            cursor.execute("SELECT statement_timestamp()")
            after = cursor.fetchone()[0]
        row = Scheduled.objects.select_related("message").first()
        assert row.message.published_at <= row.due_at - datetime.timedelta(hours=1) <= after
        assert not Delivery.objects.exists()

    @ALL
    def test_a_moment_is_kept_as_given(self, sender, invoices):
        east = datetime.timezone(datetime.timedelta(hours=9))
        moment = datetime.datetime(9998, 12, 31, 23, 59, 59, 999999, tzinfo=east)
        sender("x", deliver_at=moment)
        assert set(Scheduled.objects.values_list("due_at", flat=True)) == {moment}

    def test_what_is_scheduled_arrives_when_it_is_due_and_not_before(self, receive):
        send("invoices", "later", delay=3600, priority=3)
        publish("orders.placed", "later too", deliver_at=timezone.now() + datetime.timedelta(1))
        assert receive() == []
        Scheduled.objects.update(due_at=timezone.now())
        assert [(m.body, m.attempt, m.topic) for m in receive()] == [
            ("later", 1, None),
            ("later too", 1, "orders.placed"),
        ]
        assert not Scheduled.objects.exists()

    @pytest.mark.parametrize(
        "options",
        [
            {"delay": 0},
            {"delay": -5},
            {"delay": float("-inf")},
            {"delay": datetime.timedelta.min},
            {"deliver_at": datetime.datetime(1969, 12, 31, tzinfo=datetime.UTC)},
            {"deliver_at": datetime.datetime.min.replace(tzinfo=datetime.UTC)},
        ],
        ids=str,
    )
    @ALL
    def test_the_past_means_now(self, sender, options, invoices):
        sender("first")
        sender("second", **options)
        sender("third")
        assert list(dict.fromkeys(waiting())) == ["first", "second", "third"]
        assert not Scheduled.objects.exists()

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"delay": float("nan")}, "is no delay"),
            ({"delay": "5"}, "is no delay"),
            ({"delay": True}, "is no delay"),
            ({"delay": float("inf")}, "is too long"),
            ({"delay": datetime.timedelta.max}, "is too long"),
            ({"deliver_at": datetime.datetime(2030, 1, 1)}, "naive, and USE_TZ is on"),
            ({"deliver_at": datetime.date(2030, 1, 1)}, "is no datetime"),
            ({"deliver_at": "2030-01-01"}, "is no datetime"),
            ({"deliver_at": datetime.datetime.max.replace(tzinfo=datetime.UTC)}, "is too late"),
            (
                {"delay": 0, "deliver_at": datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)},
                "not both",
            ),
        ],
        ids=str,
    )
    @ALL
    def test_other_times_are_refused_and_nothing_is_stored(self, sender, options, reason, invoices):
        with pytest.raises(InvalidMessage, match=reason):
            sender("x", **options)
        assert nothing_is_stored()

    def test_without_use_tz_a_naive_moment_is_local(self, invoices, settings):
        settings.USE_TZ = False
        settings.TIME_ZONE = "Asia/Tokyo"
        send("invoices", "x", deliver_at=datetime.datetime(2030, 1, 1))
        with connection.cursor() as cursor:
            cursor.execute("SELECT due_at = '2029-12-31 15:00+00' FROM messaging_scheduled")
            assert cursor.fetchone() == (True,)


def test_an_ordering_key_travels_along_and_a_bad_one_is_refused(receive):
    send("invoices", "x", ordering_key="customer-7")
    assert receive()[0].ordering_key == "customer-7"
    for sender in (to_queue, to_topic, many_to_queue, many_to_topic):
        with pytest.raises(InvalidMessage, match="is no ordering_key"):
            sender("x", ordering_key="")
    with pytest.raises(InvalidMessage, match="is no deduplication_id"):
        send("invoices", "x", deduplication_id="k" * 201)


def test_a_paused_queue_accepts_messages(invoices, receive):
    Queue.objects.update(paused_at=timezone.now())
    send("invoices", "x")
    assert receive() == []
    Queue.objects.update(paused_at=None)
    assert [message.body for message in receive()] == ["x"]
