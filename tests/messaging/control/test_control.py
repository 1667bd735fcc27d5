"""Control: what operators' verbs do to queues and messages, and what they leave on record."""

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from control_rows import bury, holding, waiting
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone
from rows import hold

from messaging import (
    InvalidMessage,
    UnknownQueue,
    cancel,
    consumer,
    control,
    publish,
    send,
    send_many,
)
from messaging.engines import wakeup
from messaging.exceptions import OperationRefused, QueueDisabled, QueueFull
from messaging.models import (
    Attempt,
    DeadLetter,
    Delivery,
    Lease,
    Message,
    Queue,
    Scheduled,
    Subscription,
    Topic,
)
from messaging.store import depths, redriving
from messaging.testing import drain

pytestmark = pytest.mark.django_db


# pause and resume


def test_a_paused_queue_says_since_when_by_whom_and_why(queue: Queue, operator: User) -> None:
    assert control.pause(queue, by=operator, reason="gateway down")
    queue.refresh_from_db()
    assert queue.is_paused
    assert (queue.paused_by, queue.pause_reason) == ("olga", "gateway down")


def test_pausing_twice_keeps_the_first_reason(queue: Queue) -> None:
    control.pause("letters", by="first", reason="one")
    assert not control.pause("letters", by="second", reason="two")
    queue.refresh_from_db()
    assert (queue.paused_by, queue.pause_reason) == ("first", "one")


def test_a_resumed_queue_has_forgotten_its_pause(queue: Queue) -> None:
    control.pause(queue, by="olga", reason="one")
    assert control.resume(queue)
    queue.refresh_from_db()
    assert (queue.paused_at, queue.paused_by, queue.pause_reason) == (None, "", "")
    assert not control.resume(queue)


def test_workers_are_told_of_a_pause_when_it_commits_and_not_before(
    queue: Queue, changes: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        control.pause(queue)
        assert changes == []
    assert changes == ["default"]


def test_a_pause_of_a_paused_queue_tells_nobody(
    queue: Queue, changes: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    control.pause(queue)
    with django_capture_on_commit_callbacks(execute=True):
        control.pause(queue)
    assert changes == []


def test_a_verb_on_an_unknown_queue_suggests_the_right_name(queue: Queue) -> None:
    with pytest.raises(UnknownQueue, match="Did you mean 'letters'"):
        control.pause("leters")


@pytest.mark.parametrize("reason", ["x" * 201, "a\0b"])
def test_a_reason_that_cannot_be_stored_is_refused_with_the_limit(
    queue: Queue, reason: str
) -> None:
    with pytest.raises(ValueError, match="at most 200"):
        control.pause(queue, reason=reason)


# disable and enable


def test_a_disabled_queue_says_since_when_and_by_whom_and_accepts_nothing(
    queue: Queue, operator: User
) -> None:
    assert control.disable(queue, by=operator)
    assert not control.disable(queue, by="another")
    queue.refresh_from_db()
    assert queue.is_disabled
    assert queue.disabled_by == "olga"
    with pytest.raises(QueueDisabled, match="'letters' is disabled"):
        send("letters", 1)


def test_an_enabled_queue_accepts_messages_again(queue: Queue, operator: User) -> None:
    control.disable("letters", by=operator)
    assert control.enable("letters", by=operator)
    assert not control.enable("letters", by=operator)
    queue.refresh_from_db()
    assert (queue.disabled_at, queue.disabled_by) == (None, "")
    send("letters", 1)
    notes = [entry.get_change_message() for entry in LogEntry.objects.order_by("pk")]
    assert notes == ["Disabled.", "Enabled."]


# on record


def test_a_verb_by_a_user_is_in_the_history_of_the_queue(queue: Queue, operator: User) -> None:
    control.pause(queue, by=operator, reason="gateway down")
    control.resume(queue, by=operator)
    send("letters", 1)
    control.purge(queue, by=operator)
    entries = LogEntry.objects.filter(object_id=str(queue.pk), user=operator).order_by("pk")
    assert [entry.get_change_message() for entry in entries] == [
        "Paused: gateway down",
        "Resumed.",
        "Queue purged: 1.",
    ]


def test_a_verb_by_a_name_alone_is_in_the_log_only(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "messaging"):
        control.pause(queue, by="night shift\nQueue resumed queue=letters")
    assert caplog.messages == [
        "Queue paused queue=letters reason= by=night shift\\nQueue resumed queue=letters"
    ]
    assert not LogEntry.objects.exists()


def test_a_bulk_verb_that_breaks_off_is_on_record_with_what_it_did(
    queue: Queue, operator: User, in_small_batches: None
) -> None:
    ids = bury(queue, 5)

    def broken() -> Iterator[int]:
        yield from ids[:4]
        raise RuntimeError

    with pytest.raises(RuntimeError):
        control.discard(broken(), by=operator)
    assert DeadLetter.objects.count() == 2
    note = LogEntry.objects.get().get_change_message()
    assert note == "Dead letters discarded: 3, then stopped by RuntimeError."


# depth


def test_a_depth_is_counted_from_indexes_also_for_the_empty_queue_next_to_a_full_one(
    queue: Queue,
) -> None:
    fill(queue, 20_000)
    with connection.cursor() as cursor:
        cursor.execute(
            f"EXPLAIN {depths.DEPTHS}",
            {"ids": [queue.pk, queue.dead_letter_queue_id], "limit": depths.COUNT_LIMIT + 1},
        )
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert plan.count("Index Only Scan") == 4, plan
    assert plan.count("Index Scan") == 2, plan
    assert "Seq Scan" not in plan, plan
    assert control.depth(queue) == (10_001,) * 5
    assert str(control.depth(queue)).startswith("10,000+ ready, 10,000+ scheduled, 10,000+ in fli")
    assert control.depth("letters.dlq") == (0, 0, 0, 0, 0)
    assert str(control.depth("letters.dlq")) == "none"


def fill(queue: Queue, count: int) -> None:
    """Have as many rows as given wait in each table."""
    rows = "FROM generate_series(1, %(count)s) AS number"
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt) "
            f"SELECT %(queue)s, 0, number, 1 {rows}; "
            f"INSERT INTO messaging_scheduled (queue_id, priority, message_id, attempt, due_at) "
            f"SELECT %(queue)s, 0, number, 1, now() {rows}; "
            f"INSERT INTO messaging_laneentry (queue_id, lane_id, priority, message_id, attempt) "
            f"SELECT %(queue)s, number %% 7, 0, number, 1 {rows}; "
            f"INSERT INTO messaging_lease (id, queue_id, priority, message_id, attempt, token, "
            f"worker, leased_until) SELECT number, %(queue)s, 0, number, 1, number, '', now() "
            f"{rows}; "
            f"INSERT INTO messaging_deadletter (message_id, queue_id, origin_id, priority, headers,"
            f" published_at, attempts, reason, description, error, traceback, fingerprint) "
            f"SELECT number, %(queue)s, %(queue)s, 0, '{{}}', now(), 1, '', '', '', "
            f"repeat(md5(number::text), 20), '' {rows}; "
            f"ANALYZE messaging_delivery, messaging_scheduled, messaging_laneentry, "
            f"messaging_lease, messaging_deadletter",
            {"queue": queue.pk, "count": count},
        )


# purge


def test_purge_deletes_what_is_ready_at_every_priority_and_what_is_scheduled(
    queue: Queue, in_small_batches: None
) -> None:
    for priority in (-5, 0, 7):
        send_many("letters", range(4), priority=priority)
    send_many("letters", range(7), delay=60)
    send("letters.dlq", "another queue's")
    assert control.purge(queue) == 19
    assert waiting(queue) == 0
    assert not Scheduled.objects.exists()
    assert Delivery.objects.count() == 1


def test_purge_leaves_what_is_scheduled_when_told_to(queue: Queue) -> None:
    send("letters", 1)
    send("letters", 2, delay=60)
    assert control.purge(queue, scheduled=False) == 1
    assert Scheduled.objects.count() == 1


def test_purge_stops_at_what_was_there_when_it_was_confirmed(queue: Queue) -> None:
    send("letters", "old")
    send("letters", "old", delay=60)
    upto = control.ceiling()
    send("letters", "new")
    send("letters", "new", delay=60)
    assert control.purge(queue, upto=upto) == 2
    assert waiting(queue) == 1
    assert Scheduled.objects.count() == 1


def test_purge_with_a_limit_ends_early_and_can_go_on(queue: Queue, in_small_batches: None) -> None:
    send_many("letters", range(10))
    assert control.purge(queue, limit=5) == 6
    assert control.purge(queue, limit=5) == 4


def test_purge_dead_deletes_the_dead_letters_that_a_queue_holds(queue: Queue) -> None:
    bury(queue, 3)
    assert control.purge_dead("letters") == 0
    assert control.purge_dead("letters.dlq") == 3
    assert not DeadLetter.objects.exists()


# redrive


def test_a_redriven_dead_letter_waits_on_its_queue_again_under_its_old_id(
    queue: Queue, arrivals: list[wakeup.Arrival], django_capture_on_commit_callbacks: Any
) -> None:
    (dead,) = bury(queue, priority=4)
    message_id = DeadLetter.objects.get(pk=dead).message_id
    with django_capture_on_commit_callbacks(execute=True):
        assert control.redrive([dead]) == 1
    delivery = Delivery.objects.get()
    assert (delivery.queue, delivery.message_id) == (queue, message_id)
    assert (delivery.priority, delivery.attempt) == (4, 1)
    assert not DeadLetter.objects.exists()
    assert arrivals == [wakeup.Arrival(queue.pk, 4, delivery.pk)]


def test_a_redriven_dead_letter_has_the_whole_time_of_its_queue_before_it_expires(
    queue: Queue,
) -> None:
    Queue.objects.filter(pk=queue.pk).update(message_ttl=3600)
    ids = bury(queue)
    assert control.redrive(ids) == 1
    left = Delivery.objects.get().expires_at - timezone.now()
    assert 3500 < left.total_seconds() <= 3600


def test_a_redriven_dead_letter_keeps_what_its_message_carried(queue: Queue) -> None:
    carried = {"correlation_id": "trace 5", "causation_id": 7, "reply_to": "answers"}
    ids = bury(queue, **carried)
    Message.objects.all().delete()
    control.redrive(ids)
    assert Message.objects.values(*carried).get() == carried


def test_redriven_dead_letters_take_up_room_on_a_queue_that_may_be_full(queue: Queue) -> None:
    Queue.objects.filter(pk=queue.pk).update(max_length=3)
    send("letters", 1)
    control.redrive(bury(queue, 2))
    with pytest.raises(QueueFull, match="'letters' is full"):
        send("letters", 2)


def test_redriving_twice_moves_once(queue: Queue) -> None:
    ids = bury(queue, 2)
    assert control.redrive(ids) == 2
    assert control.redrive(ids) == 0
    assert waiting(queue) == 2


@pytest.mark.parametrize("name", ["letters", "letters.dlq"])
def test_a_queue_is_redriven_by_its_own_name_and_by_its_dead_letter_queues_name(
    queue: Queue, name: str, in_small_batches: None
) -> None:
    other = Queue.objects.create(name="other")
    bury(queue, 10)
    bury(other, 2)
    assert control.redrive_queue(name) == 10
    assert waiting(queue) == 10
    assert DeadLetter.objects.filter(origin=other).count() == 2


def test_everything_can_be_redriven(queue: Queue, in_small_batches: None) -> None:
    bury(queue, 4)
    bury(Queue.objects.create(name="other"), 4)
    assert control.redrive_all() == 8
    assert not DeadLetter.objects.exists()


def test_a_dead_letter_whose_queue_is_gone_is_refused_and_stays(queue: Queue) -> None:
    ids = bury(queue)
    Queue.objects.filter(pk=queue.pk).delete()
    with pytest.raises(OperationRefused, match="no longer exists"):
        control.redrive(ids)
    assert DeadLetter.objects.count() == 1
    assert not Delivery.objects.exists()


def test_dead_letters_of_other_queues_are_redriven_all_the_same(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    gone = Queue.objects.create(name="gone")
    ids = bury(gone) + bury(queue, 2)
    Queue.objects.filter(pk=gone.pk).delete()
    assert control.redrive(ids) == 2
    assert "Dead letters stay, their queue no longer exists count=1" in caplog.messages


def test_discarded_dead_letters_are_gone(queue: Queue) -> None:
    ids = bury(queue, 3)
    assert control.discard([*ids[:2], 10**18]) == 2
    assert DeadLetter.objects.count() == 1


# scheduled deliveries


def test_a_scheduled_delivery_is_retried_now_as_the_attempt_that_it_is(
    queue: Queue, arrivals: list[wakeup.Arrival], django_capture_on_commit_callbacks: Any
) -> None:
    send("letters", 1, delay=3600, priority=2)
    Scheduled.objects.update(attempt=3)
    ids = list(Scheduled.objects.values_list("pk", flat=True))
    with django_capture_on_commit_callbacks(execute=True):
        assert control.retry_now(ids) == 1
    assert control.retry_now(ids) == 0
    delivery = Delivery.objects.get()
    assert (delivery.priority, delivery.attempt) == (2, 3)
    assert arrivals == [wakeup.Arrival(queue.pk, 2, delivery.pk)]
    assert not Scheduled.objects.exists()


def test_a_cancelled_delivery_never_happens_and_its_message_stays_in_the_log(queue: Queue) -> None:
    message_id = send("letters", 1, delay=3600)
    ids = list(Scheduled.objects.values_list("pk", flat=True))
    assert control.cancel(ids) == 1
    assert control.cancel(ids) == 0
    assert not Scheduled.objects.exists()
    assert not Delivery.objects.exists()
    assert Message.objects.filter(pk=message_id).exists()


@pytest.mark.usefixtures("queue")
@pytest.mark.parametrize("key", [{}, {"ordering_key": "a"}, {"fairness_key": "a"}], ids=str)
def test_a_message_is_cancelled_by_its_id_on_every_queue_that_waits_for_it(
    key: dict[str, str],
) -> None:
    for name in ("letters", "copies"):
        other, _ = Queue.objects.get_or_create(name=name)
        Subscription.objects.create(pattern="letters.sent", queue=other)
    Topic.objects.create(name="letters.sent")
    message_id = publish("letters.sent", 1, delay=60, **key)
    publish("letters.sent", "another", delay=60, **key)
    assert cancel(message_id) == 2
    assert cancel(message_id) == 0
    assert Scheduled.objects.count() == 2


@pytest.mark.usefixtures("queue")
def test_a_message_that_is_ready_is_not_cancelled_any_more() -> None:
    assert cancel(send("letters", 1)) == 0
    assert Delivery.objects.count() == 1


@pytest.mark.parametrize("message_id", [0, -1, 2**63, True, "7", None])
def test_what_is_no_message_id_cannot_be_cancelled(message_id: Any, db: None) -> None:
    with pytest.raises(InvalidMessage, match="message id"):
        cancel(message_id)


@pytest.mark.usefixtures("queue")
def test_a_cancellation_that_rolls_back_cancels_nothing() -> None:
    message_id = send("letters", 1, delay=60)
    with pytest.raises(RuntimeError), transaction.atomic():
        cancel(message_id)
        raise RuntimeError
    assert Scheduled.objects.count() == 1


def test_an_operator_who_cancels_a_message_is_on_record(
    queue: Queue, caplog: pytest.LogCaptureFixture
) -> None:
    message_id = send("letters", 1, delay=60)
    with caplog.at_level(logging.INFO, "messaging"):
        assert control.cancel_message(message_id, by="olga") == 1
    assert caplog.messages == [f"Message cancelled message={message_id} count=1 by=olga"]


# dead letters by hand


def test_messages_that_wait_become_dead_letters_by_hand_with_the_reason_given(
    queue: Queue, operator: User
) -> None:
    ready, later = send("letters", 1, priority=3), send("letters", 2, delay=60)
    kept = send("letters", 3)
    assert control.dead_letter(queue, [ready, later, 10**9], reason="obsolete", by=operator) == 2
    assert set(DeadLetter.objects.values_list("message_id", "reason", "description")) == {
        (ready, "manual", "obsolete"),
        (later, "manual", "obsolete"),
    }
    dead = DeadLetter.objects.get(message_id=ready)
    assert (dead.queue, dead.attempts) == (queue.dead_letter_queue, 0)
    assert list(Delivery.objects.values_list("message_id", flat=True)) == [kept]
    assert not Scheduled.objects.exists()
    assert LogEntry.objects.get().get_change_message() == "Messages dead-lettered: 2."


@pytest.mark.usefixtures("declared")
def test_each_death_of_a_message_is_kept_in_its_history(queue: Queue) -> None:
    Queue.objects.filter(pk=queue.pk).update(
        max_length=1, overflow="dead_letter_oldest", dead_letter_expired=True, max_deliveries=1
    )

    @consumer("letters")
    def fail(message: Any) -> None:
        raise RuntimeError("no such letter")

    message_id = send("letters", 1)
    send("letters", 2)
    control.purge(queue)
    control.redrive_all()
    Delivery.objects.update(expires_at="2020-01-01T00:00Z")
    drain("letters")
    control.redrive_all()
    control.dead_letter(queue, [message_id], reason="by hand", by="olga")
    control.redrive_all()
    drain("letters")
    deaths = Attempt.objects.filter(message_id=message_id).order_by("pk")
    assert list(deaths.values_list("outcome", "attempt", "error")) == [
        ("max_length", 0, "QueueFull"),
        ("expired", 0, "Expired"),
        ("manual", 0, ""),
        ("max_deliveries", 1, "RuntimeError"),
    ]
    assert DeadLetter.objects.get().message_id == message_id


# leases


def test_a_released_lease_is_ready_again_and_uncounted(
    queue: Queue, arrivals: list[wakeup.Arrival], django_capture_on_commit_callbacks: Any
) -> None:
    ids = hold(queue, 2)
    with django_capture_on_commit_callbacks(execute=True):
        assert control.release_leases(ids[:1], by="olga") == 1
    assert control.release_leases(ids[:1]) == 0
    assert Lease.objects.count() == 1
    delivery = Delivery.objects.get()
    assert delivery.attempt == 1
    assert arrivals == [wakeup.Arrival(queue.pk, 0, delivery.pk)]


# races: real connections


@pytest.mark.django_db(transaction=True)
def test_purge_skips_what_a_worker_is_handling(queue: Queue) -> None:
    send_many("letters", range(3))
    with holding(
        lambda cursor: cursor.execute(
            """DELETE FROM messaging_delivery WHERE queue_id = %s AND id =
                (SELECT min(id) FROM messaging_delivery WHERE queue_id = %s)""",
            [queue.pk, queue.pk],
        )
    ):
        assert control.purge(queue) == 2
    assert waiting(queue) == 1


@pytest.mark.django_db(transaction=True)
def test_two_operators_who_redrive_the_same_dead_letters_move_each_once(queue: Queue) -> None:
    ids = bury(queue, 3)
    moved: list[int] = []

    def redrive(cursor: Any) -> None:
        moved.append(sum(row[3] for row in redriving.redrive(cursor.db, ids[:2])))

    with holding(redrive, commit=True):
        moved.append(control.redrive(ids))
    assert moved == [2, 1]
    assert waiting(queue) == 3
