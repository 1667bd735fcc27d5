"""Editing: a waiting message says something else, and what it said before is kept."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from control_rows import bury, holding
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from rows import hold, keyed

from messaging import (
    DeduplicationConflict,
    InvalidMessage,
    Reject,
    consumer,
    consuming,
    control,
    maintenance,
    publish,
    send,
)
from messaging.engines import wakeup
from messaging.exceptions import InvalidOption, OperationRefused
from messaging.models import (
    DeadLetter,
    Delivery,
    Edit,
    LaneEntry,
    Lease,
    Message,
    Queue,
    Scheduled,
    Subscription,
    Topic,
)
from messaging.store import editing
from messaging.testing import drain

pytestmark = pytest.mark.django_db


@pytest.fixture
def handled(queue: Queue, declared: consuming.Declarations) -> Iterator[list[Any]]:
    seen: list[Any] = []

    @consumer("letters")
    def handle(message: Any) -> None:
        if message.body == "bad":
            raise Reject
        if message.body == "worse":
            raise RuntimeError
        seen.append((message.id, message.body, dict(message.headers)))

    yield seen


def test_an_edited_message_is_delivered_as_it_was_edited(queue: Queue, handled: list[Any]) -> None:
    message_id = send("letters", {"to": "nobody"}, headers={"a": 1})
    assert control.edit(message_id, body={"to": "olga"}) == 1
    assert control.edit(message_id, headers={"b": 2}) == 1
    drain("letters")
    assert handled == [(message_id, {"to": "olga"}, {"b": 2})]


def test_what_it_said_before_and_who_edited_it_are_kept(queue: Queue, operator: User) -> None:
    message_id = send("letters", "one", headers={"a": 1})
    control.edit(message_id, body=None, by=operator)
    control.edit(message_id, body="three", headers={}, by="night shift")
    versions = Edit.objects.filter(message_id=message_id).order_by("id")
    assert [(each.body, each.headers, each.edited_by) for each in versions] == [
        ("one", {"a": 1}, "olga"),
        (None, {"a": 1}, "night shift"),
    ]
    assert Message.objects.get().body == "three"


def test_old_versions_go_with_their_message(queue: Queue, handled: list[Any]) -> None:
    message_id = send("letters", "one")
    control.edit(message_id, body="two")
    drain("letters")
    Message.objects.update(published_at=timezone.now() - timedelta(days=30))
    maintenance.prune()
    assert not Message.objects.exists()
    assert not Edit.objects.exists()


@pytest.mark.parametrize("state", ["delayed", "retry", "keyed", "blocked", "parked", "fair"])
def test_a_message_can_be_edited_wherever_it_waits(
    queue: Queue, handled: list[Any], state: str
) -> None:
    if state == "parked":
        Queue.objects.filter(pk=queue.pk).update(on_failure="park")
    match state:
        case "delayed":
            message_id = send("letters", "old", delay=60)
        case "retry":
            message_id = send("letters", "worse")
        case "keyed" | "fair":
            (message_id,) = keyed("letters", "old", kind=int(state == "fair"))
        case "blocked":
            message_id = keyed("letters", "worse", "next")[0]
        case _:
            message_id = keyed("letters", "bad", "old")[1]
    if state in ("retry", "blocked", "parked"):
        drain("letters")
    assert control.edit(message_id, body="new") == 1
    Scheduled.objects.update(due_at=timezone.now())
    control.release_key(queue, "a")
    drain("letters")
    assert (message_id, "new", {}) in handled


def test_an_edited_message_keeps_its_place_in_its_key(queue: Queue, handled: list[Any]) -> None:
    first, _, third = keyed("letters", 1, 2, 3)
    control.edit(first, body="one")
    control.edit(third, body="three")
    drain("letters")
    assert [body for _, body, _ in handled] == ["one", 2, "three"]


def test_an_edited_dead_letter_is_redriven_as_it_was_edited(
    queue: Queue, handled: list[Any]
) -> None:
    message_id = send("letters", "bad")
    drain("letters")
    assert control.edit(message_id, body="good") == 1
    assert DeadLetter.objects.get().body == "good"
    control.redrive_all()
    drain("letters")
    assert handled == [(message_id, "good", {})]


def test_a_dead_letter_that_the_log_has_lost_can_be_edited_too(
    queue: Queue, handled: list[Any]
) -> None:
    bury(queue)
    message_id = DeadLetter.objects.get().message_id
    Message.objects.all().delete()
    control.edit(message_id, body="new")
    assert Edit.objects.get().body == {"n": 0}
    control.redrive_all()
    drain("letters")
    assert handled == [(message_id, "new", {})]


def test_a_message_of_a_topic_is_edited_for_every_queue_where_it_waits(
    queue: Queue, handled: list[Any]
) -> None:
    Topic.objects.create(name="mail.sent")
    for subscriber in (queue, Queue.objects.create(name="other")):
        Subscription.objects.create(pattern="mail.sent", queue=subscriber)
    message_id = publish("mail.sent", "old")
    assert control.edit(message_id, body="new") == 2


def test_an_undecodable_message_can_be_repaired(queue: Queue, handled: list[Any]) -> None:
    message_id = send("letters", 1)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE messaging_message SET body = repeat('9', 5000)::jsonb")
    control.edit(message_id, body="good")
    drain("letters")
    assert handled == [(message_id, "good", {})]


def test_a_message_that_is_held_is_not_edited_and_the_answer_says_by_whom(queue: Queue) -> None:
    hold(queue, worker="web-7")
    message_id = Lease.objects.get().message_id
    with pytest.raises(OperationRefused, match=r"in flight: web-7 holds it until 2.*Release its"):
        control.edit(message_id, body="new")
    assert Message.objects.get().body == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("key", [None, "a"])
def test_a_message_that_a_worker_is_handling_is_not_edited(queue: Queue, key: str | None) -> None:
    message_id = send("letters", "old", ordering_key=key)
    entries = LaneEntry.objects.filter(message_id=message_id)
    with (
        holding(
            lambda cursor: cursor.execute(
                "DELETE FROM messaging_delivery; DELETE FROM messaging_laneentry"
            )
        ),
        pytest.raises(OperationRefused, match=f"Message {message_id}, .* is being handled"),
    ):
        control.edit(message_id, body="new")
    assert entries.count() == (1 if key else 0)
    assert Message.objects.get().body == "old"
    assert not Edit.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_no_message_is_edited_while_a_worker_has_its_key(queue: Queue) -> None:
    keyed("letters", 1)
    (second,) = keyed("letters", 2)
    with (
        holding(lambda cursor: cursor.execute("DELETE FROM messaging_delivery")),
        pytest.raises(OperationRefused, match="another one of its key"),
    ):
        control.edit(second, body="new")
    assert control.edit(second, body="new") == 1


@pytest.mark.django_db(transaction=True)
def test_no_worker_takes_a_message_while_it_is_edited_and_none_passes_it_in_its_key(
    queue: Queue, handled: list[Any], monkeypatch: pytest.MonkeyPatch, elsewhere: Any
) -> None:
    send("letters", "plain")
    first, _ = keyed("letters", 1, 2)
    change = editing.change

    def drain_meanwhile(*args: Any, **kwargs: Any) -> None:
        elsewhere(drain, "letters").result(30)
        change(*args, **kwargs)

    monkeypatch.setattr(editing, "change", drain_meanwhile)
    control.edit(first, body="one")
    assert [body for _, body, _ in handled] == ["plain"]
    monkeypatch.setattr(editing, "change", change)
    drain("letters")
    assert [body for _, body, _ in handled] == ["plain", "one", 2]


def test_workers_are_told_to_look_at_an_edited_message_again(
    queue: Queue, arrivals: list[wakeup.Arrival], django_capture_on_commit_callbacks: Any
) -> None:
    message_id = send("letters", "old", priority=3)
    with django_capture_on_commit_callbacks(execute=True):
        control.edit(message_id, body="new")
    assert arrivals == [wakeup.Arrival(queue.pk, 3, Delivery.objects.get().pk)]


def test_a_message_that_waits_nowhere_is_not_edited(queue: Queue, handled: list[Any]) -> None:
    message_id = send("letters", "old")
    drain("letters")
    with pytest.raises(OperationRefused, match="waits nowhere: it was handled"):
        control.edit(message_id, body="new")
    with pytest.raises(OperationRefused, match=f"Message {message_id + 99} is unknown"):
        control.edit(message_id + 99, body="new")


def test_an_edited_message_is_checked_like_a_message_that_is_sent(queue: Queue) -> None:
    message_id = send("letters", "old")
    with pytest.raises(InvalidMessage, match=r"\$\.a"):
        control.edit(message_id, body={"a": float("nan")})
    with pytest.raises(InvalidMessage, match="reserved"):
        control.edit(message_id, headers={"x-messaging-a": 1})
    with pytest.raises(InvalidOption, match="give a body, headers, or both"):
        control.edit(message_id)
    assert not Edit.objects.exists()


def test_a_dry_run_of_an_edit_changes_nothing_and_is_refused_like_the_edit(
    queue: Queue, handled: list[Any]
) -> None:
    message_id = send("letters", "old")
    assert control.edit(message_id, body="new", dry_run=True) == 1
    assert not Edit.objects.exists()
    drain("letters")
    assert handled == [(message_id, "old", {})]
    with pytest.raises(OperationRefused, match="waits nowhere"):
        control.edit(message_id, body="new", dry_run=True)


def test_an_edit_leaves_deduplication_to_what_was_sent(queue: Queue) -> None:
    message_id = send("letters", "one", deduplication_id="d")
    control.edit(message_id, body="two")
    assert send("letters", "one", deduplication_id="d") == message_id
    with pytest.raises(DeduplicationConflict):
        send("letters", "two", deduplication_id="d")


def test_an_edit_leaves_no_statement_timeout_behind_in_the_callers_transaction(
    queue: Queue,
) -> None:
    control.edit(send("letters", "one"), body="two")
    with connection.cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("0",)
