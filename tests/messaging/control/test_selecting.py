"""Selecting: purge, cancel and move what a filter describes, and nothing else."""

from collections.abc import Iterator
from typing import Any

import pytest
from control_rows import bury, holding, waiting
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from rows import hold, keyed

from messaging import UnknownQueue, consumer, consuming, control, publish, send, send_many
from messaging.control import Filter, State
from messaging.engines import wakeup
from messaging.exceptions import InvalidOption, OperationRefused, QueueDisabled
from messaging.models import (
    DeadLetter,
    Delivery,
    Lane,
    LaneEntry,
    Lease,
    Queue,
    Scheduled,
    Subscription,
    Topic,
)
from messaging.testing import drain

pytestmark = pytest.mark.django_db


@pytest.fixture
def other(db: None) -> Queue:
    return Queue.objects.create(name="other")


@pytest.fixture
def handled(queue: Queue, other: Queue, declared: consuming.Declarations) -> Iterator[list[Any]]:
    """Consume both queues: what was handled on which, as the attempt."""
    seen: list[Any] = []

    @consumer("letters")
    def handle(message: Any) -> None:
        seen.append(message.body)

    @consumer("other")
    def handle_others(message: Any) -> None:
        seen.append(("other", message.body, message.attempt))

    yield seen


# preview


def test_a_preview_counts_what_is_meant_shows_the_first_and_changes_nothing(
    queue: Queue, handled: list[Any], in_small_batches: None
) -> None:
    send_many("letters", [{"n": n, "odd": bool(n % 2)} for n in range(30)])
    preview = control.preview(queue, Filter(body={"odd": True}))
    assert (preview.count, preview.is_exact, str(preview)) == (15, True, "15")
    assert [seen.body["n"] for seen in preview.samples] == list(range(1, 20, 2))
    drain("letters")
    assert len(handled) == 30


def test_a_preview_of_more_than_10000_messages_says_so(queue: Queue) -> None:
    send_many("letters", range(10_002))
    preview = control.preview(queue)
    assert (preview.count, preview.is_exact, str(preview)) == (10_001, False, "10,000+")
    assert control.preview(queue, Filter(body={(): 1})).count == 1


def test_a_preview_that_runs_out_of_time_says_what_it_has_looked_at(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, in_small_batches: None
) -> None:
    monkeypatch.setattr("messaging.control.selecting.COUNT_FOR", 0.0)
    send_many("letters", range(30))
    preview = control.preview(queue)
    assert (preview.count, preview.is_exact) == (10, False)
    assert str(preview) == "10 of the first 10, and perhaps more"


def test_a_preview_counts_what_waits_unless_it_is_asked_for_other_states(queue: Queue) -> None:
    send_many("letters", range(2))
    send("letters", "later", delay=60)
    bury(queue, 4)
    hold(queue, 1)
    assert control.preview(queue).count == 3
    assert control.preview(queue, Filter(state="dead")).count == 4
    assert control.preview(queue, Filter(state="in_flight")).count == 1


# purge


def test_purge_deletes_what_a_filter_describes_wherever_it_waits(
    queue: Queue, handled: list[Any], in_small_batches: None
) -> None:
    for number in range(10):
        body = {"n": number, "bad": number < 7}
        send("letters", body, priority=number % 3)
        send("letters", body, delay=60)
        keyed("letters", body, key=f"k{number % 2}")
    assert control.purge_matching(queue, Filter(body={"bad": True})) == 21
    assert Scheduled.objects.filter(lane_id=None).count() == 3
    drain("letters")
    assert sorted(body["n"] for body in handled) == [7, 7, 8, 8, 9, 9]
    assert not Lane.objects.exists()


def test_purge_deletes_dead_letters_only_when_they_are_meant(queue: Queue) -> None:
    bury(queue, 3, error="ValueError")
    bury(queue, 2, error="KeyError")
    send("letters", 1)
    assert control.purge_matching(queue, Filter(error="keyerror")) == 0
    assert control.purge_matching(queue, Filter(state="dead", error="keyerror")) == 2
    assert DeadLetter.objects.count() == 3
    assert waiting(queue) == 1


def test_a_dry_run_counts_and_changes_nothing(queue: Queue, other: Queue) -> None:
    send_many("letters", range(3))
    send("letters", 3, delay=60)
    everything = Filter()
    assert control.purge_matching(queue, everything, dry_run=True) == 4
    assert control.cancel_matching(queue, everything, dry_run=True) == 1
    assert control.move(queue, other, dry_run=True) == 4
    assert (waiting(queue), Scheduled.objects.count()) == (3, 1)
    assert not LogEntry.objects.exists()


def test_a_verb_stops_at_what_was_there_when_it_was_confirmed(queue: Queue, other: Queue) -> None:
    for delay in (None, 60):
        send("letters", "old", delay=delay)
    keyed("letters", "old")
    upto = control.ceiling()
    for delay in (None, 60):
        send("letters", "new", delay=delay)
    keyed("letters", "new")
    bury(queue)
    wanted = Filter(state=[State.READY, State.SCHEDULED, State.DEAD])
    assert control.purge_matching(queue, wanted, upto=upto) == 3
    assert control.move(queue, other, wanted, upto=upto) == 0
    assert control.preview(queue, wanted).count == 4


def test_a_verb_leaves_what_somebody_holds_and_what_another_queue_has(
    queue: Queue, other: Queue
) -> None:
    hold(queue, 2)
    send("other", 1)
    assert control.purge_matching(queue, Filter()) == 0
    assert (Lease.objects.count(), waiting(other)) == (2, 1)


@pytest.mark.django_db(transaction=True)
def test_purge_leaves_what_a_worker_has_in_hand(queue: Queue) -> None:
    send_many("letters", range(3))
    first = Delivery.objects.order_by("id")[0].pk
    with holding(
        lambda cursor: cursor.execute("DELETE FROM messaging_delivery WHERE id = %s", [first])
    ):
        assert control.purge_matching(queue, Filter()) == 2
    assert [each.pk for each in Delivery.objects.all()] == [first]


@pytest.mark.parametrize("state", ["in_flight", "completed"])
def test_what_is_not_done_to_a_state_is_refused_with_what_it_is_done_to(
    queue: Queue, other: Queue, state: str
) -> None:
    with pytest.raises(InvalidOption, match=f"state='{state}': .* ready or scheduled or dead"):
        control.purge_matching(queue, Filter(state=state))
    with pytest.raises(InvalidOption, match="ready or scheduled or dead"):
        control.move(queue, other, Filter(state=["ready", state]))
    with pytest.raises(InvalidOption, match="that are scheduled"):
        control.cancel_matching(queue, Filter(state="ready"))


def test_a_verb_is_on_record_with_its_filter_and_its_count(
    queue: Queue, operator: User, caplog: pytest.LogCaptureFixture
) -> None:
    send_many("letters", range(3))
    with caplog.at_level("INFO", "messaging"):
        control.purge_matching(queue, Filter(body={(): 1}), by=operator)
    assert LogEntry.objects.get().get_change_message() == "Messages purged: 1."
    assert caplog.messages[-1] == (
        "Messages purged queue=letters filter=body={(): 1} count=1 by=olga"
    )


# cancel


def test_cancel_deletes_scheduled_messages_that_a_filter_describes(
    queue: Queue, in_small_batches: None
) -> None:
    send_many("letters", ["a", "b"] * 4, delay=60)
    send("letters", "a")
    assert control.cancel_matching(queue, Filter(body={(): "a"})) == 4
    assert Scheduled.objects.count() == 4
    assert waiting(queue) == 1


# move


def test_moved_messages_are_delivered_on_the_other_queue_in_their_order_as_first_deliveries(
    queue: Queue, other: Queue, handled: list[Any], in_small_batches: None
) -> None:
    send_many("letters", range(7))
    send("letters", "urgent", priority=5)
    send("letters", "stays", headers={"stay": True})
    send("letters", "later", delay=60)
    Delivery.objects.update(attempt=3)
    assert control.move("letters", "other", Filter(newer_than=60, body={(): "later"})) == 1
    assert control.move("letters", "other", Filter(state="ready", headers={"stay": True})) == 1
    send("letters", "stays")
    assert control.move("letters", other, Filter(older_than=0, ids=first_ids(8))) == 8
    later = Scheduled.objects.get()
    assert later.queue == other
    assert later.due_at > timezone.now()
    drain()
    moved = [body for body in handled if body != "stays"]
    assert moved == [("other", body, 1) for body in ("urgent", "stays", 0, 1, 2, 3, 4, 5, 6)]
    assert handled.count("stays") == 1


def first_ids(count: int) -> list[int]:
    return list(
        Delivery.objects.filter(queue__name="letters")
        .order_by("id")[:count]
        .values_list("message_id", flat=True)
    )


def test_moved_keys_keep_the_order_of_their_messages(
    queue: Queue, handled: list[Any], in_small_batches: None
) -> None:
    for number in range(8):
        for key in ("a", "b"):
            keyed("letters", f"{key}{number}", key=key)
    keyed("other", "a-before", key="a")
    assert control.move("letters", "other") == 16
    assert not LaneEntry.objects.filter(queue=queue).exists()
    drain()
    bodies = [body for _, body, _ in handled]
    assert [body for body in bodies if body[0] == "a"] == [
        "a-before",
        *(f"a{number}" for number in range(8)),
    ]
    assert [body for body in bodies if body[0] == "b"] == [f"b{number}" for number in range(8)]
    assert not Lane.objects.exists()


def test_a_delayed_message_with_a_key_joins_its_key_on_the_other_queue_when_it_is_due(
    queue: Queue, handled: list[Any]
) -> None:
    send("letters", "a", delay=60, ordering_key="k")
    assert control.move("letters", "other") == 1
    assert Scheduled.objects.get().joins_lane
    Scheduled.objects.update(due_at=timezone.now())
    drain()
    assert handled == [("other", "a", 1)]


def test_moved_dead_letters_wait_on_the_other_queue(queue: Queue, handled: list[Any]) -> None:
    bury(queue, 3)
    bury(queue, 1, error="KeyError")
    wanted = Filter(state="dead", error="ValueError")
    assert control.move("letters.dlq", "other", wanted) == 3
    assert DeadLetter.objects.count() == 1
    drain()
    assert [body for _, body, _ in handled] == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_a_moved_message_expires_at_the_earlier_of_both_times(queue: Queue) -> None:
    short = Queue.objects.create(name="short", message_ttl=60)
    send("letters", "own", expires_in=5)
    send("letters", "queue's")
    control.move("letters", short)
    own, queues = Delivery.objects.order_by("id")
    assert own.expires_at < queues.expires_at


def test_moved_messages_wake_the_workers_of_the_other_queue(
    queue: Queue,
    other: Queue,
    arrivals: list[wakeup.Arrival],
    django_capture_on_commit_callbacks: Any,
) -> None:
    send_many("letters", range(2), priority=4)
    arrivals.clear()
    with django_capture_on_commit_callbacks(execute=True):
        control.move("letters", "other")
    assert arrivals == [wakeup.Arrival(other.pk, 4, Delivery.objects.order_by("id")[0].pk)]


def test_a_message_of_a_topic_is_moved_on_one_queue_alone(queue: Queue, handled: list[Any]) -> None:
    Topic.objects.create(name="mail.sent")
    third = Queue.objects.create(name="third")
    for subscriber in (queue, third):
        Subscription.objects.create(pattern="mail.sent", queue=subscriber)
    publish("mail.sent", "m")
    assert control.move("letters", "other") == 1
    drain("other")
    assert handled == [("other", "m", 1)]
    assert waiting(third) == 1


def test_a_move_that_would_lose_messages_or_go_nowhere_is_refused(
    queue: Queue, other: Queue
) -> None:
    send("letters", 1)
    with pytest.raises(OperationRefused, match="'letters' cannot be moved to itself"):
        control.move("letters", "letters")
    with pytest.raises(UnknownQueue, match="Did you mean 'other'"):
        control.move("letters", "othr")
    control.disable(other)
    with pytest.raises(QueueDisabled, match="'other' is disabled"):
        control.move("letters", "other")
    assert waiting(queue) == 1


def test_a_move_to_a_queue_that_vanishes_meanwhile_loses_nothing(
    queue: Queue, other: Queue
) -> None:
    send("letters", 1)
    gone = Queue.objects.get(pk=other.pk)
    Queue.objects.filter(pk=other.pk).delete()
    with pytest.raises(UnknownQueue):
        control.move("letters", gone)
    assert waiting(queue) == 1


def test_a_queue_with_a_max_length_counts_what_was_moved_to_it(queue: Queue) -> None:
    limited = Queue.objects.create(name="limited", max_length=1_000)
    send("limited", 1)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE messaging_room SET free = 10 WHERE queue_id = %s", [limited.pk])
    send("letters", 1)
    control.move("letters", "limited")
    with connection.cursor() as cursor:
        cursor.execute("SELECT free FROM messaging_room WHERE queue_id = %s", [limited.pk])
        assert cursor.fetchone() == (0,)
