"""Timeline: what happened to a message, what caused it, and what it has caused."""

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from messaging import (
    Reject,
    cancel,
    consumer,
    consuming,
    control,
    publish,
    receive,
    send,
    send_many,
)
from messaging.control import Cause
from messaging.exceptions import OperationRefused
from messaging.models import Message, Queue, Scheduled, Subscription, Topic
from messaging.store import tracing
from messaging.testing import drain

pytestmark = pytest.mark.django_db


@pytest.fixture
def handled(queue: Queue, declared: consuming.Declarations) -> Iterator[None]:
    """Consume letters: numbers send their predecessors twice, texts fail as they say."""

    @consumer("letters")
    def handle(message: Any) -> None:
        if message.body == "bad":
            raise Reject("no such street")
        if message.body == "worse":
            raise ConnectionError("gateway down")
        if isinstance(message.body, int) and message.body > 0:
            send_many("letters", [message.body - 1] * 2)

    yield


def test_a_timeline_tells_of_publication_failures_edits_death_and_redrive(
    queue: Queue, handled: None
) -> None:
    message_id = send("letters", "worse", correlation_id="order-7")
    drain("letters")
    control.edit(message_id, body="bad", by="olga")
    Scheduled.objects.update(due_at=timezone.now())
    drain("letters")
    told = control.timeline(message_id)
    assert (told.sent_to, told.correlation_id) == ("queue letters", "order-7")
    assert [event.what for event in told.events] == ["published", "failed", "edited", "died"]
    published, failed, edited, died = told.events
    here = f"{socket.gethostname()}/{os.getpid()}"
    assert (published.text, published.by) == (f"Published to queue letters from {here}.", here)
    assert (failed.queue, failed.attempt, failed.by) == ("letters", 1, "drain")
    assert failed.error == "ConnectionError: gateway down"
    assert failed.duration is not None
    assert (edited.by, edited.body) == ("olga", '"worse"')
    assert (died.attempt, died.error) == (2, "Reject: no such street")
    assert "rejected" in died.text
    assert [why.cause for why in told.now] == [Cause.DEAD]
    control.redrive_all(by="oleg")
    drain("letters")
    told = control.timeline(message_id)
    assert [event.what for event in told.events][-3:] == ["died", "redriven", "died"]
    redriven = told.events[-2]
    assert (redriven.by, redriven.text) == ("oleg", "Redriven by oleg.")
    assert (redriven.headers, redriven.body) == (None, None)


def test_a_timeline_ends_with_who_acknowledged_the_message_and_how_long_it_took(
    queue: Queue, handled: None
) -> None:
    first, second = send_many("letters", [0, 0])
    drain("letters")
    acknowledged = control.timeline(second).events[-1]
    assert (acknowledged.what, acknowledged.queue) == ("acknowledged", "letters")
    assert acknowledged.by == "drain"
    assert acknowledged.duration is not None and acknowledged.duration > 0
    assert acknowledged.at >= control.timeline(first).events[0].at
    assert control.timeline(first).now[0].cause == Cause.DONE


def test_a_timeline_tells_each_queue_that_has_acknowledged_a_message(
    queue: Queue, handled: None
) -> None:
    Topic.objects.create(name="mail.sent")
    consumer("copies")(lambda message: None)
    copies = Queue.objects.create(name="copies")
    for each in (queue, copies):
        Subscription.objects.create(pattern="mail.*", queue=each)
    message_id = publish("mail.sent", 0)
    drain()
    ended = [e.queue for e in control.timeline(message_id).events if e.what == "acknowledged"]
    assert sorted(ended) == ["copies", "letters"]


def test_a_timeline_tells_of_a_message_that_failed_before_it_was_acknowledged(
    queue: Queue, handled: None
) -> None:
    message_id = send("letters", "worse")
    drain("letters")
    control.edit(message_id, body=0, by="olga")
    Scheduled.objects.update(due_at=timezone.now())
    drain("letters")
    told = [event.what for event in control.timeline(message_id).events]
    assert told == ["published", "failed", "edited", "acknowledged"]


def test_a_timeline_tells_that_a_message_has_expired(queue: Queue, handled: None) -> None:
    message_id = send("letters", 0, expires_in=0.001)
    drain("letters")
    expired = control.timeline(message_id).events[-1]
    assert (expired.what, expired.text, expired.by) == ("expired", "Expired by drain.", "drain")


def cancelled_in_code(message_id: int) -> None:
    assert cancel(message_id) == 1


def cancelled_by_an_operator(message_id: int) -> None:
    assert control.cancel_message(message_id, by="olga") == 1


def cancelled_in_a_list(message_id: int) -> None:
    (waiting,) = Scheduled.objects.filter(message_id=message_id)
    assert control.cancel([waiting.pk], by="olga") == 1


def cancelled_by_a_filter(message_id: int) -> None:
    wanted = control.Filter(ids=[message_id])
    assert control.cancel_matching("letters", wanted, by="olga") == 1


def cancelled_by_an_operation(message_id: int) -> None:
    wanted = control.Filter(ids=[message_id])
    control.run_operation(control.begin_cancel("letters", wanted, by="olga"))


@pytest.mark.parametrize(
    "cancel_it",
    [
        cancelled_in_code,
        cancelled_by_an_operator,
        cancelled_in_a_list,
        cancelled_by_a_filter,
        cancelled_by_an_operation,
    ],
)
def test_a_timeline_tells_who_has_cancelled_a_message(queue: Queue, cancel_it: Any) -> None:
    message_id = send("letters", 0, delay=3_600)
    cancel_it(message_id)
    cancelled = control.timeline(message_id).events[-1]
    who = f"{socket.gethostname()}/{os.getpid()}" if cancel_it is cancelled_in_code else "olga"
    assert (cancelled.what, cancelled.queue, cancelled.by) == ("cancelled", "letters", who)
    assert cancelled.text == f"Cancelled by {who}."


@pytest.mark.parametrize(
    "options",
    [{}, {"delay": 3_600}, {"ordering_key": "ada"}],
    ids=["ready", "scheduled", "with a key"],
)
@pytest.mark.parametrize("way", ["purge", "filter", "operation"])
def test_a_timeline_tells_who_has_purged_a_message(
    queue: Queue, way: str, options: dict[str, Any]
) -> None:
    first, second = (send("letters", 0, **options) for _ in range(2))
    if way == "purge":
        assert control.purge("letters", by="olga") == 2
    elif way == "filter":
        assert control.purge_matching("letters", control.Filter(), by="olga") == 2
    else:
        control.run_operation(control.begin_purge("letters", control.Filter(), by="olga"))
    for message_id in (first, second):
        purged = control.timeline(message_id).events[-1]
        assert (purged.what, purged.queue, purged.by) == ("purged", "letters", "olga")


def test_a_timeline_tells_that_a_received_message_was_acknowledged(queue: Queue) -> None:
    message_id = send("letters", 0)
    (message,) = receive("letters")
    message.acknowledge()
    acknowledged = control.timeline(message_id).events[-1]
    assert (acknowledged.what, acknowledged.queue) == ("acknowledged", "letters")


def test_a_timeline_tells_who_has_moved_a_dead_letter(queue: Queue, handled: None) -> None:
    other = Queue.objects.create(name="other")
    message_id = send("letters", "bad")
    drain("letters")
    control.move(queue, other, control.Filter(state="dead"), by="oleg")
    assert control.timeline(message_id).events[-1].text == "Redriven by oleg."


def test_a_timeline_tells_which_subscriptions_took_a_message_to_which_queues(
    queue: Queue, handled: None
) -> None:
    Topic.objects.create(name="mail.sent")
    late = Queue.objects.create(name="late")
    other = Queue.objects.create(name="other")
    Subscription.objects.create(pattern="mail.*", queue=queue)
    Subscription.objects.create(pattern="mail.*", queue=other, filter={"to": ["nobody"]})
    message_id = publish("mail.sent", "m")
    Subscription.objects.create(pattern="mail.#", queue=late)
    told = control.timeline(message_id)
    assert told.sent_to == "topic mail.sent"
    assert [(event.what, event.queue) for event in told.events] == [
        ("published", ""),
        ("routed", "letters"),
    ]
    assert told.events[1].text == "Routed by subscription 'mail.*'."


def test_a_timeline_shows_what_caused_a_message_and_what_it_has_caused(
    queue: Queue, handled: None
) -> None:
    root = send("letters", 3)
    drain("letters")
    told = control.timeline(root)
    assert told.causes == ()
    assert shape(told.consequences) == [[[[], []], [[], []]], [[[], []], [[], []]]]
    assert told.is_complete
    leaf = told.consequences[1].consequences[0].consequences[1]
    below = control.timeline(leaf.id)
    cause = f"while message {below.causes[0].id} was handled"
    here = f"{socket.gethostname()}/{os.getpid()}"
    assert below.events[0].text == f"Published to queue letters from {here} {cause}."
    assert [each.id for each in below.causes] == [
        told.consequences[1].consequences[0].id,
        told.consequences[1].id,
        root,
    ]
    assert below.consequences == ()


def shape(nodes: Any) -> list[Any]:
    return [shape(node.consequences) for node in nodes]


def test_more_consequences_than_are_shown_are_told(
    queue: Queue, handled: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "MOST_MESSAGES", 5)
    root = send("letters", 3)
    drain("letters")
    told = control.timeline(root)
    assert not told.is_complete
    assert shape(told.consequences) == [[[], []], [[]]]


def test_causes_and_consequences_are_found_by_an_index(queue: Queue) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO messaging_message (queue_id, headers, body, published_at, causation_id)
            SELECT %s, '{}', '1', now(), CASE WHEN n %% 3 = 0 THEN n END
            FROM generate_series(1, 30000) AS n; ANALYZE messaging_message""",
            [queue.pk],
        )
        for sql in (tracing.CAUSES, tracing.CONSEQUENCES):
            params = {"message_id": 1, "levels": 50, "most": 1_001}
            cursor.execute(f"EXPLAIN {sql}", params)
            plan = "\n".join(line for (line,) in cursor.fetchall())
            assert "Seq Scan on messaging_message" not in plan, plan


@pytest.mark.django_db(transaction=True)
def test_a_timeline_tells_which_operation_has_replayed_a_message(
    queue: Queue, operator: User
) -> None:
    other = Queue.objects.create(name="others")
    message_id = send("letters", "again")
    send("others", "not that")
    begun = control.begin_replay(queue, since=int(message_id), to=other, by=operator)
    control.run_operation(begun)
    told = control.timeline(message_id).events[-1]
    by = f"operation {begun.pk} of olga"
    assert (told.what, told.queue, told.by) == ("replayed", "others", by)
    assert told.text == f"Replayed by {by}."
    assert [event.what for event in control.timeline(int(message_id) + 1).events] == ["published"]


def test_the_timeline_of_a_dead_letter_outlives_the_log(queue: Queue, handled: None) -> None:
    message_id = send("letters", "bad")
    drain("letters")
    Message.objects.all().delete()
    told = control.timeline(message_id)
    assert [event.what for event in told.events] == ["published", "died"]
    assert told.sent_to == "queue letters"


def test_the_timeline_of_an_unknown_message_is_refused(queue: Queue) -> None:
    with pytest.raises(OperationRefused, match="Message 99 is unknown"):
        control.timeline(99)
