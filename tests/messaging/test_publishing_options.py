"""Expiry, keys, correlation and replies travel with a message, and bad ones are refused."""

import datetime
import decimal

import pytest
from django.db import connection
from django.utils import timezone
from senders import hundreds_to_queue, to_queue, to_topic

from messaging import (
    InvalidMessage,
    InvalidName,
    QueueDisabled,
    consumer,
    publish,
    publish_many,
    send,
    send_many,
)
from messaging.causation import cause
from messaging.models import Arrival, DeadLetter, Delivery, LaneEntry, Message, Queue, Scheduled
from messaging.testing import drain

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]

HOUR = datetime.timedelta(hours=1)


def many_to_queue(body, **options):
    return send_many("invoices", [body, body], **options)[0]


def many_to_topic(body, **options):
    return publish_many("orders.placed", [body, body], **options)[0]


def hundreds_to_topic(body, **options):
    return publish_many("orders.placed", [body] * 600, **options)[0]


ALL = pytest.mark.parametrize(
    "sender",
    [to_queue, to_topic, many_to_queue, many_to_topic, hundreds_to_queue, hundreds_to_topic],
)


@pytest.fixture
def receive(declared, invoices):
    """Return a function that handles what is ready and returns the messages."""
    messages = []
    consumer("invoices")(messages.append)

    def handled():
        messages.clear()
        drain("invoices")
        return list(messages)

    return handled


def execute(sql, params=()):
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else []


def join_lanes():
    """Do what a commit does for messages with a key."""
    execute("SET CONSTRAINTS messaging_join_lanes IMMEDIATE")
    execute("SET CONSTRAINTS messaging_join_lanes DEFERRED")


def nothing_is_stored():
    models = (Message, Delivery, Scheduled, Arrival)
    return not any(model.objects.exists() for model in models)


def lifetimes(model):
    """Return how long after its publication each waiting message expires."""
    published = dict(Message.objects.values_list("id", "published_at"))
    rows = model.objects.values_list("message_id", "expires_at")
    return {expires and expires - published[message_id] for message_id, expires in rows}


def around(span):
    """Return whether lifetimes are what is expected, give or take a slow statement."""

    def check(found):
        return len(found) > 0 and all(
            abs(each - span) < datetime.timedelta(seconds=20) for each in found
        )

    return check


class TestExpiry:
    """`expires_in` per message, `message_ttl` per queue: the smaller wins."""

    @pytest.mark.parametrize("span", [3600, 3600.0, HOUR])
    @ALL
    def test_a_message_expires_so_long_after_it_was_sent(self, sender, span, invoices):
        sender("x", expires_in=span)
        assert around(HOUR)(lifetimes(Delivery))

    @ALL
    def test_without_a_limit_it_never_does(self, sender, invoices):
        sender("x")
        assert lifetimes(Delivery) == {None}

    @pytest.mark.parametrize("options", [{}, {"expires_in": 7200}, {"headers": {"a": 1}}])
    @ALL
    def test_a_queue_gives_its_messages_a_time_to_live(self, sender, options, invoices):
        Queue.objects.update(message_ttl=3600)
        sender("x", **options)
        assert around(HOUR)(lifetimes(Delivery))

    @ALL
    def test_the_smaller_wins(self, sender, invoices):
        Queue.objects.update(message_ttl=7200)
        sender("x", expires_in=3600)
        assert around(HOUR)(lifetimes(Delivery))

    def test_each_subscriber_has_its_own_time_to_live(self, topic, queue, subscribe):
        topic("orders.placed")
        for name, ttl in (("invoices", 3600), ("mails", None), ("bills", 60)):
            queue(name, message_ttl=ttl)
            subscribe("orders.placed", name)
        for options in ({}, {"expires_in": 1800}):
            Delivery.objects.all().delete()
            publish("orders.placed", "x", **options)
            expected = [1800, 1800, 60] if options else [3600, None, 60]
            for name, seconds in zip(("invoices", "mails", "bills"), expected, strict=True):
                row = Delivery.objects.get(queue__name=name)
                published = Message.objects.get(pk=row.message_id).published_at
                found = row.expires_at and (row.expires_at - published).total_seconds()
                assert found == (seconds and pytest.approx(seconds, abs=1))

    @ALL
    def test_a_delayed_message_expires_as_of_its_sending(self, sender, invoices):
        sender("x", delay=7200, expires_in=3600)
        assert around(HOUR)(lifetimes(Scheduled))

    @pytest.mark.parametrize("key", ["ordering_key", "fairness_key"])
    @ALL
    def test_a_message_with_a_key_expires_too(self, sender, key, invoices):
        sender("x", expires_in=3600, **{key: "a"})
        assert around(HOUR)(lifetimes(Arrival))
        join_lanes()
        assert around(HOUR)(lifetimes(LaneEntry))

    def test_it_is_never_delivered_after_it(self, receive):
        send("invoices", "gone", expires_in=3600)
        send("invoices", "kept", expires_in=7200)
        Delivery.objects.filter(expires_at__lt=timezone.now() + 1.5 * HOUR).update(
            expires_at=timezone.now()
        )
        assert [message.body for message in receive()] == ["kept"]
        assert not DeadLetter.objects.exists()

    def test_it_is_dead_lettered_if_the_queue_says_so(self, receive):
        Queue.objects.update(dead_letter_expired=True)
        send("invoices", "gone", expires_in=3600)
        Delivery.objects.update(expires_at=timezone.now())
        assert receive() == []
        assert list(DeadLetter.objects.values_list("body", "reason")) == [("gone", "expired")]

    @pytest.mark.parametrize(
        ("span", "reason"),
        [
            (0, "more than 0 seconds"),
            (-1, "more than 0 seconds"),
            (float("-inf"), "more than 0 seconds"),
            (datetime.timedelta(0), "more than 0 seconds"),
            (datetime.timedelta.min, "more than 0 seconds"),
            (float("nan"), "is no expires_in"),
            ("60", "is no expires_in"),
            (True, "is no expires_in"),
            (decimal.Decimal(60), "is no expires_in"),
            (float("inf"), "is too long"),
            (10**400, "is too long"),
            (datetime.timedelta.max, "is too long"),
        ],
        ids=repr,
    )
    def test_other_times_are_refused_and_nothing_is_stored(self, span, reason, invoices):
        for sender in (to_queue, many_to_topic):
            with pytest.raises(InvalidMessage, match=reason) as refused:
                sender("x", expires_in=span)
            assert refused.value.path == "expires_in"
        assert nothing_is_stored()

    def test_the_longest_lifetime_can_be_stored(self, invoices):
        send("invoices", "x", expires_in=7_900 * 365 * 86_400)
        assert Delivery.objects.get().expires_at.year > 9_900


class TestKeys:
    """A message with a key waits behind the others of its key."""

    @pytest.mark.parametrize("key", ["ordering_key", "fairness_key"])
    @ALL
    def test_a_message_with_a_key_arrives_at_the_commit(self, sender, key, receive):
        sender({"n": 1}, priority=7, headers={"a": "b"}, **{key: "customer 7"})
        assert not Delivery.objects.exists()
        arrived = receive()
        assert arrived
        for message in arrived:
            assert (message.body, message.headers) == ({"n": 1}, {"a": "b"})
            assert getattr(message, key) == "customer 7"
            assert (message.priority, message.attempt) == (7, 1)

    @pytest.mark.parametrize("key", ["ordering_key", "fairness_key"])
    @ALL
    def test_a_delayed_one_takes_its_place_when_it_is_due(self, sender, key, receive):
        sender("x", delay=3600, **{key: "a"})
        assert receive() == []
        assert set(Scheduled.objects.values_list("joins_lane", "lane_id")) == {(True, None)}
        Scheduled.objects.update(due_at=timezone.now())
        arrived = receive()
        assert {getattr(message, key) for message in arrived} == {"a"}
        assert not Scheduled.objects.exists()

    def test_messages_of_an_ordering_key_come_in_the_order_of_sending(self, receive):
        send_many("invoices", [1, 2], ordering_key="a")
        publish("orders.placed", 3, ordering_key="a")
        publish_many("orders.placed", range(4, 604), ordering_key="a")
        send("invoices", 604, ordering_key="a", delay=-1)
        assert [message.body for message in receive()] == list(range(1, 605))

    def test_a_key_has_1_to_200_characters_and_a_message_one_key(self, invoices):
        for key in ("ordering_key", "fairness_key"):
            for value in ("", "k" * 201, "a\0", "\ud800", 5, b"a"):
                for sender in (to_queue, to_topic, many_to_queue, many_to_topic):
                    with pytest.raises(InvalidMessage, match=f"is no {key}"):
                        sender("x", **{key: value})
        with pytest.raises(InvalidMessage, match="ordering_key or fairness_key, not both"):
            send("invoices", "x", ordering_key="a", fairness_key="a")
        assert nothing_is_stored()


class TestCorrelation:
    @ALL
    def test_correlation_and_reply_address_travel_along(self, sender, receive):
        sender("x", correlation_id="c 1", reply_to="answers")
        for message in receive():
            assert (message.correlation_id, message.reply_to) == ("c 1", "answers")
            assert message.causation_id is None

    def test_a_message_without_them_has_none(self, receive):
        send("invoices", "x")
        (message,) = receive()
        assert (message.correlation_id, message.causation_id, message.reply_to) == (None,) * 3

    def test_bad_ones_are_refused(self, invoices):
        for value in ("", "c" * 201, "a\0", 5):
            with pytest.raises(InvalidMessage, match="is no correlation_id"):
                send("invoices", "x", correlation_id=value)
        for name in ("", "in voices", "a" * 81, 5):
            with pytest.raises(InvalidName):
                send("invoices", "x", reply_to=name)
        assert nothing_is_stored()

    @ALL
    def test_what_a_handler_sends_names_its_cause_and_keeps_the_correlation(self, sender, receive):
        send("invoices", "first", correlation_id="c")
        (first,) = receive()
        token = cause.set(first)
        try:
            sender("follows")
            sender("other", correlation_id="own")
        finally:
            cause.reset(token)
        sender("outside")
        rows = Message.objects.order_by("id").values_list("body", "causation_id", "correlation_id")
        assert list(dict.fromkeys(rows)) == [
            ("first", None, "c"),
            ("follows", first.id, "c"),
            ("other", first.id, "own"),
            ("outside", None, None),
        ]

    def test_a_handler_needs_to_say_nothing(self, queue, declared):
        queue("invoices")
        queue("mails")
        seen = []

        @consumer("invoices")
        def bill(message):
            send("mails", "to the customer")

        @consumer("mails")
        def mail(message):
            seen.append((message.causation_id, message.correlation_id))

        first = send("invoices", "x", correlation_id="c")
        drain()
        assert seen == [(first, "c")]


class TestDisabledQueues:
    @pytest.fixture
    def disabled(self, invoices, subscribe):
        subscribe("orders.*", "mails")
        Queue.objects.filter(name="invoices").update(disabled_at=timezone.now())

    @pytest.mark.parametrize("sender", [to_queue, many_to_queue, hundreds_to_queue])
    def test_a_disabled_queue_accepts_no_messages(self, sender, disabled):
        options = ({}, {"delay": 60}, {"ordering_key": "a"}, {"expires_in": 60})
        for each in options:
            with pytest.raises(QueueDisabled, match="'invoices' is disabled"):
                sender("x", **each)
        assert nothing_is_stored()
        Queue.objects.update(disabled_at=None)
        sender("x")
        assert Delivery.objects.exists()

    def test_it_stores_no_deduplication_id_either(self, disabled):
        with pytest.raises(QueueDisabled):
            send("invoices", "x", deduplication_id="a")
        Queue.objects.update(disabled_at=None)
        assert not send("invoices", "x", deduplication_id="a").duplicate

    @pytest.mark.parametrize("sender", [to_topic, many_to_topic, hundreds_to_topic])
    @pytest.mark.parametrize(
        "options", [{}, {"delay": 60}, {"ordering_key": "a"}, {"expires_in": 60}]
    )
    def test_a_topic_leaves_disabled_queues_out(self, sender, options, disabled):
        sender("x", **options)
        rows = [*Delivery.objects.all(), *Scheduled.objects.all(), *Arrival.objects.all()]
        assert {row.queue.name for row in rows} == {"mails"}
