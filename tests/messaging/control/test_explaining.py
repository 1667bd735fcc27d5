"""Explaining: why a message is not delivered, and who would receive one."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from control_rows import holding
from django.db import connection
from django.utils import timezone
from rows import hold, keyed

from messaging import Reject, UnknownTopic, consumer, consuming, control, publish, send, send_many
from messaging.control import Cause
from messaging.exceptions import InvalidMessage, OperationRefused
from messaging.models import (
    ActiveConsumer,
    Delivery,
    LaneEntry,
    Lease,
    Queue,
    RateLimit,
    Scheduled,
    Subscription,
    Topic,
    Worker,
)
from messaging.testing import drain

pytestmark = pytest.mark.django_db


@pytest.fixture
def served(queue: Queue) -> Worker:
    """A worker process that serves the letters, and is alive."""
    now = timezone.now()
    return Worker.objects.create(
        name="w1",
        host="h",
        pid=1,
        version="",
        queues=["letters"],
        threads=1,
        running={},
        handled=0,
        failed=0,
        state="running",
        started_at=now,
        seen_at=now,
    )


@pytest.fixture
def handled(queue: Queue, declared: consuming.Declarations) -> Iterator[list[Any]]:
    seen: list[Any] = []

    @consumer("letters")
    def handle(message: Any) -> None:
        if message.body == "bad":
            raise Reject("no such street")
        if message.body == "worse":
            raise RuntimeError
        seen.append(message.body)

    yield seen


def causes(message_id: int) -> list[Cause]:
    return [why.cause for why in control.explain(message_id)]


def test_a_message_that_nothing_holds_up_is_next(queue: Queue, served: Worker) -> None:
    message_id = send("letters", 1)
    assert [str(why) for why in control.explain(message_id)] == [
        "letters: Nothing is in its way: it is next."
    ]


def test_a_message_waits_for_those_before_it(queue: Queue, served: Worker) -> None:
    send("letters", 1, priority=1)
    _, last, _ = send_many("letters", range(3))
    (why,) = control.explain(last)
    assert (why.cause, why.text) == (
        Cause.BEHIND,
        "2 ready messages or keys come before it.",
    )


def test_a_paused_queue_says_by_whom_and_why(queue: Queue, served: Worker) -> None:
    message_id = send("letters", 1)
    control.pause(queue, by="olga", reason="gateway down")
    (why,) = control.explain(message_id)
    assert (why.cause, why.by) == (Cause.PAUSED, "olga")
    assert "by olga: gateway down. Resume it." in why.text


def test_a_queue_without_workers_says_so(queue: Queue, served: Worker) -> None:
    message_id = send("letters", 1)
    Worker.objects.update(seen_at=timezone.now() - timedelta(minutes=1))
    assert causes(message_id) == [Cause.NO_WORKER]
    Worker.objects.update(seen_at=timezone.now(), queues=["other"])
    assert causes(message_id) == [Cause.NO_WORKER]
    Worker.objects.update(queues=["letters"], state="paused")
    assert causes(message_id) == [Cause.WORKERS_PAUSED]


def test_a_delayed_message_says_when_it_is_due(queue: Queue, served: Worker) -> None:
    message_id = send("letters", 1, delay=60)
    (why,) = control.explain(message_id)
    assert (why.cause, why.until) == (Cause.SCHEDULED, Scheduled.objects.get().due_at)


def test_a_failed_message_says_when_it_is_tried_again(
    queue: Queue, served: Worker, handled: list[Any]
) -> None:
    message_id = send("letters", "worse")
    drain("letters")
    (why,) = control.explain(message_id)
    assert (why.cause, why.until) == (Cause.RETRY, Scheduled.objects.get().due_at)
    assert "number 2" in why.text


def test_an_expired_message_says_since_when(queue: Queue, served: Worker) -> None:
    message_id = send("letters", 1, expires_in=60)
    Delivery.objects.update(expires_at=timezone.now())
    assert causes(message_id) == [Cause.EXPIRED]


def test_a_message_in_flight_says_who_holds_it_and_until_when(queue: Queue, served: Worker) -> None:
    hold(queue, worker="web-7")
    lease = Lease.objects.get()
    (why,) = control.explain(lease.message_id)
    assert (why.cause, why.by, why.until) == (Cause.IN_FLIGHT, "web-7", lease.leased_until)
    Lease.objects.update(leased_until=timezone.now() - timedelta(seconds=1))
    assert "will give it back" in control.explain(lease.message_id)[0].text


@pytest.mark.django_db(transaction=True)
def test_a_message_that_a_worker_has_in_its_transaction_is_in_flight(
    queue: Queue, served: Worker
) -> None:
    message_id = send("letters", 1)
    with holding(lambda cursor: cursor.execute("DELETE FROM messaging_delivery")):
        (why,) = control.explain(message_id)
        assert why.cause == Cause.IN_FLIGHT
        assert "in hand since" in why.text
    assert causes(message_id) == [Cause.NEXT]


@pytest.mark.django_db(transaction=True)
def test_a_look_at_a_message_keeps_no_worker_from_it(queue: Queue, handled: list[Any]) -> None:
    message_id = send("letters", 1)

    def look(cursor: Any) -> None:
        control.explain(message_id)
        control.peek("letters")
        control.search("letters")
        control.preview("letters")

    with holding(look):
        drain("letters")
    assert handled == [1]


def test_a_message_behind_others_of_its_key_names_the_first_of_them(
    queue: Queue, served: Worker
) -> None:
    first, _, third = keyed("letters", 1, 2, 3)
    (why,) = control.explain(third)
    assert (why.cause, why.message_id) == (Cause.BEHIND, first)
    assert why.text == f"2 messages of its key 'a' come before it, the first is message {first}."
    assert causes(first) == [Cause.NEXT]


def test_a_message_behind_a_retry_of_its_key_names_it_and_says_until_when(
    queue: Queue, served: Worker, handled: list[Any]
) -> None:
    first, second = keyed("letters", "worse", "next")
    drain("letters")
    due_at = Scheduled.objects.get().due_at
    why, _ = control.explain(second)
    assert (why.cause, why.message_id, why.until) == (Cause.BLOCKED, first, due_at)
    (why,) = control.explain(first)
    assert (why.cause, why.message_id, why.until) == (Cause.BLOCKED, None, due_at)
    assert "it failed" in why.text


def test_a_parked_key_says_since_when(queue: Queue, served: Worker, handled: list[Any]) -> None:
    Queue.objects.filter(pk=queue.pk).update(on_failure="park")
    _, second = keyed("letters", "bad", "next")
    drain("letters")
    (why,) = control.explain(second)
    assert why.cause == Cause.PARKED
    assert "Redrive that one, or release the key." in why.text


@pytest.mark.django_db(transaction=True)
def test_a_key_that_a_worker_has_in_hand_says_so(queue: Queue, served: Worker) -> None:
    first, second = keyed("letters", 1, 2)
    with holding(lambda cursor: cursor.execute("DELETE FROM messaging_delivery")):
        assert causes(first) == [Cause.IN_FLIGHT]
        assert causes(second) == [Cause.BLOCKED, Cause.BEHIND]


def test_a_key_whose_message_is_held_says_by_whom(queue: Queue, served: Worker) -> None:
    first, second = keyed("letters", 1, 2)
    token, entry = Delivery.objects.get(), LaneEntry.objects.order_by("id")[0]
    until = timezone.now() + timedelta(minutes=1)
    Lease.objects.create(
        id=token.pk,
        queue=queue,
        priority=0,
        message_id=first,
        attempt=1,
        lane_id=token.lane_id,
        entry_id=entry.pk,
        token=1,
        worker="web-7",
        leased_until=until,
    )
    Delivery.objects.filter(queue=queue).delete()
    LaneEntry.objects.filter(queue=queue, message_id=first).delete()
    (why,) = control.explain(second)
    assert (why.cause, why.by, why.until, why.message_id) == (
        Cause.BLOCKED,
        "web-7",
        until,
        first,
    )


def test_a_rate_that_is_used_up_says_which(queue: Queue, served: Worker) -> None:
    message_id = send("letters", 1)
    (in_key,) = keyed("letters", 1)
    Queue.objects.filter(pk=queue.pk).update(rate_limit=0.01, key_rate_limit=0.02)
    assert causes(message_id) == [Cause.NEXT]
    RateLimit.objects.create(queue=queue, tokens=0)
    assert causes(message_id) == [Cause.RATE_LIMITED]
    RateLimit.objects.create(queue=queue, key="a", tokens=0)
    texts = [why.text for why in control.explain(in_key)]
    assert texts == [
        "The queue's rate limit of 0.01 messages a second is used up.",
        "The rate limit of key 'a', 0.02 messages a second, is used up.",
    ]
    RateLimit.objects.update(filled_at=timezone.now() - timedelta(hours=1))
    assert causes(message_id) == [Cause.NEXT]


def test_a_queue_with_as_many_in_flight_as_it_may_says_so(queue: Queue, served: Worker) -> None:
    Queue.objects.filter(pk=queue.pk).update(concurrency_limit=2)
    hold(queue, 1)
    message_id = send("letters", 1)
    assert causes(message_id) == [Cause.NEXT]
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_advisory_xact_lock(hashtext('messaging_queue ' || %s::bigint), 1)",
            [queue.pk],
        )
    assert causes(message_id) == [Cause.FULL]


def test_a_queue_that_waits_for_its_one_consumer_says_so(queue: Queue, served: Worker) -> None:
    Queue.objects.filter(pk=queue.pk).update(single_active_consumer=True)
    message_id = send("letters", 1)
    assert causes(message_id) == [Cause.NOT_ACTIVE]
    until = timezone.now() + timedelta(minutes=1)
    ActiveConsumer.objects.create(queue=queue, worker="w1", until=until)
    assert causes(message_id) == [Cause.NEXT]


def test_a_dead_letter_and_a_handled_message_say_so(
    queue: Queue, served: Worker, handled: list[Any]
) -> None:
    bad, good = send_many("letters", ["bad", "good"])
    drain("letters")
    assert causes(bad) == [Cause.DEAD]
    assert causes(good) == [Cause.DONE]
    with pytest.raises(OperationRefused, match="is unknown"):
        control.explain(good + 99)


def test_a_message_of_a_topic_is_explained_for_each_of_its_queues(
    queue: Queue, served: Worker, handled: list[Any]
) -> None:
    Topic.objects.create(name="mail.sent")
    nobody = publish("mail.sent", 1)
    assert causes(nobody) == [Cause.NOT_ROUTED]
    other = Queue.objects.create(name="other")
    closed = Queue.objects.create(name="closed")
    for subscriber in (queue, other, closed):
        Subscription.objects.create(pattern="mail.*", queue=subscriber)
    control.disable(closed)
    Worker.objects.update(queues=["letters", "other"])
    message_id = publish("mail.sent", 1, delay=60)
    found = {why.queue: why.cause for why in control.explain(message_id)}
    assert found == {
        "letters": Cause.SCHEDULED,
        "other": Cause.SCHEDULED,
        "closed": Cause.DISABLED,
    }


# who would receive it


def test_a_dry_run_of_a_publication_says_who_would_receive_it_and_why_others_would_not(
    queue: Queue,
) -> None:
    Topic.objects.create(name="mail.sent")
    closed = Queue.objects.create(name="closed")
    Subscription.objects.filter().delete()
    Subscription.objects.create(pattern="mail.*", queue=queue)
    Subscription.objects.create(pattern="mail.#", queue=queue, is_active=False)
    Subscription.objects.create(pattern="mail.sent", queue=closed)
    Subscription.objects.create(pattern="orders.*", queue=queue)
    control.disable(closed)
    assert [(each.pattern, each.receives, each.why) for each in control.receivers("mail.sent")] == [
        ("mail.#", False, "The subscription is not active."),
        ("mail.*", True, ""),
        ("mail.sent", False, "Queue 'closed' is disabled."),
        ("orders.*", False, "'orders.*' does not match 'mail.sent'."),
    ]
    publish("mail.sent", 1)
    assert Delivery.objects.get().queue == queue


def test_a_dry_run_of_a_publication_is_checked_like_one(queue: Queue) -> None:
    Topic.objects.create(name="mail.sent")
    with pytest.raises(UnknownTopic, match=r"Did you mean 'mail\.sent'"):
        control.receivers("mail.snt")
    with pytest.raises(InvalidMessage):
        control.receivers("mail.sent", {"a": float("nan")})
    with pytest.raises(InvalidMessage):
        control.receivers("mail.sent", headers={"a": []})
    assert not Delivery.objects.exists()
