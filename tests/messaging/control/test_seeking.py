"""Seek: a queue or a subscription is set to a point of the log, forward or back."""

import datetime
import io
import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from control_rows import holding
from django.contrib.auth.models import User
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import transaction

from messaging import consumer, control, publish, publish_many, receive, send, send_many
from messaging.control import Sought, operating
from messaging.exceptions import InvalidOption, OperationRefused, QueueDisabled, UnknownQueue
from messaging.models import (
    DeadLetter,
    Delivery,
    LaneEntry,
    Message,
    Operation,
    Queue,
    Scheduled,
    Subscription,
    Topic,
)
from messaging.testing import drain

Elsewhere = Callable[..., Future[Any]]
Until = Callable[..., None]
AN_HOUR = datetime.timedelta(hours=1)


@pytest.fixture
def letters(transactional_db: None, bare: None) -> Queue:
    """Return a queue that has a topic, in transactions that others see."""
    Topic.objects.create(name="letters.sent")
    queue = Queue.objects.create(name="letters")
    Subscription.objects.create(pattern="letters.#", queue=queue)
    return queue


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("messaging.control.operating.BATCH", 3)
    monkeypatch.setattr("messaging.control.seeking.BATCH", 3)
    monkeypatch.setattr("messaging.store.replaying.LOOKED_AT", 4)


def bodies(queue: Queue) -> list[Any]:
    """Return the bodies that wait, ready or behind a key or scheduled."""
    ids: list[int] = []
    for model in (Delivery, LaneEntry, Scheduled):
        rows = model.objects.filter(queue=queue)  # type: ignore[attr-defined]
        if model is not LaneEntry:
            rows = rows.filter(lane_id=None)
        ids += rows.order_by("id").values_list("message_id", flat=True)
    found = Message.objects.in_bulk(ids)
    return [found[each].body for each in ids]


def test_back_brings_what_was_handled_and_what_waits_once(
    letters: Queue, small_steps: None, declared: Any
) -> None:
    consumer("letters")(lambda message: None)
    ids = [
        int((publish if number % 2 else send)("letters.sent" if number % 2 else "letters", number))
        for number in range(10)
    ]
    drain()
    ids += map(int, publish_many("letters.sent", range(10, 14)))
    assert control.seek(letters, to=ids[3]) == Sought(purged=4, again=11)
    assert bodies(letters) == list(range(3, 14))
    assert set(Delivery.objects.values_list("attempt", flat=True)) == {1}


def test_forward_leaves_out_what_was_published_before(letters: Queue, small_steps: None) -> None:
    ids = publish_many("letters.sent", range(10))
    assert control.seek("letters", to=ids[7]) == Sought(10, 3)
    assert bodies(letters) == [7, 8, 9]
    assert control.seek("letters", to=control.snapshot()) == Sought(3, 0)
    assert bodies(letters) == []


@pytest.mark.parametrize("kind", ["time", "age", "id", "snapshot"])
def test_the_point_is_a_time_an_age_a_message_or_a_snapshot(letters: Queue, kind: str) -> None:
    publish("letters.sent", 1)
    Message.objects.update(published_at=datetime.datetime.now(datetime.UTC) - 2 * AN_HOUR)
    snapshot = control.snapshot()
    first = int(publish("letters.sent", 2))
    time = Message.objects.get(pk=first).published_at
    to: Any = {"time": time, "age": AN_HOUR, "id": first, "snapshot": snapshot}[kind]
    assert control.seek(letters, to=to) == Sought(2, 1)
    assert bodies(letters) == [2]


def test_a_subscription_is_set_and_the_others_of_its_queue_are_not(letters: Queue) -> None:
    Topic.objects.create(name="parcels.sent")
    parcels = Subscription.objects.create(
        pattern="parcels.#", queue=letters, filter={"n": [{"numeric": [">", 0]}]},
        filter_scope="body",
    )  # fmt: skip
    send("letters", "own")
    publish("letters.sent", "other")
    ids = publish_many("parcels.sent", [{"n": number} for number in range(4)])
    assert control.seek(parcels, to=ids[2]) == Sought(3, 2)
    assert bodies(letters) == ["own", "other", {"n": 2}, {"n": 3}]


def test_what_is_scheduled_or_has_a_key_is_set_too_and_dead_letters_are_not(
    letters: Queue, small_steps: None
) -> None:
    publish_many("letters.sent", range(4), delay=60)
    publish_many("letters.sent", range(4, 8), ordering_key="k")
    publish_many("letters.sent", range(8, 12), delay=60, ordering_key="k")
    DeadLetter.objects.create(
        message_id=1, queue=letters, origin=letters, priority=0, headers={}, body="dead",
        published_at=datetime.datetime.now(datetime.UTC), attempts=5, reason="max_deliveries",
    )  # fmt: skip
    first = Message.objects.order_by("id")[2].pk
    assert control.seek(letters, to=first) == Sought(12, 10)
    assert sorted(bodies(letters)) == list(range(2, 12))
    assert not Scheduled.objects.filter(lane_id=None).exists()
    assert DeadLetter.objects.count() == 1


def test_messages_of_a_key_come_in_their_order_after_a_seek(
    letters: Queue, small_steps: None, declared: Any
) -> None:
    seen: list[Any] = []
    consumer("letters")(lambda message: seen.append(message.body))
    for number in range(12):
        publish("letters.sent", number, ordering_key=f"k{number % 2}")
    control.seek(letters, to=AN_HOUR)
    drain()
    assert sorted(seen) == list(range(12))
    for key in range(2):
        assert [n for n in seen if n % 2 == key] == [n for n in range(12) if n % 2 == key]


def test_what_is_in_hand_is_finished(letters: Queue) -> None:
    publish_many("letters.sent", range(4))
    (leased,) = receive("letters")
    handled = Delivery.objects.order_by("id")[0].pk
    with holding(
        lambda cursor: cursor.execute("DELETE FROM messaging_delivery WHERE id = %s", [handled]),
        commit=True,
    ):
        assert control.seek(letters, to=control.snapshot()) == Sought(2, 0)
    leased.acknowledge()
    assert bodies(letters) == []
    ids = publish_many("letters.sent", range(4, 6))
    (leased,) = receive("letters")
    assert control.seek(letters, to=ids[0]) == Sought(1, 2)
    leased.release()
    assert sorted(bodies(letters)) == [4, 4, 5]


def test_what_commits_after_the_beginning_stays_as_it_is(
    letters: Queue, elsewhere: Elsewhere
) -> None:
    published, may_commit = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction.atomic():
            publish("letters.sent", "late")
            published.set()
            assert may_commit.wait(15)

    held = elsewhere(hold)
    assert published.wait(15)
    publish("letters.sent", "before")
    begun = control.begin_seek(letters, to=AN_HOUR)
    may_commit.set()
    held.result(15)
    publish("letters.sent", "after")
    send("letters", "after")
    assert Sought.by(control.run_operation(begun)) == (1, 1)
    assert sorted(bodies(letters)) == ["after", "after", "before", "late"]


def test_nothing_is_missed_or_doubled_while_publishers_run(
    letters: Queue, elsewhere: Elsewhere, until: Until
) -> None:
    ended = threading.Event()

    def work(worker: int) -> list[int]:
        number, committed = 0, []
        while not ended.is_set():
            number += 1
            with transaction.atomic():
                ids = [publish("letters.sent", number), send("letters", number)]
                ids += publish_many("letters.sent", [number] * (number % 3), delay=number % 2 * 0.1)
                if is_kept := (number + worker) % 5:
                    committed += map(int, ids)
                transaction.set_rollback(not is_kept)
        return committed

    workers = [elsewhere(work, number) for number in range(3)]
    try:
        for _ in range(3):
            seen = Message.objects.count()
            until(lambda seen=seen: Message.objects.count() > seen + 60)
            control.seek(letters, to=1)
    finally:
        ended.set()
    committed = {each for worker in workers for each in worker.result(30)}
    found = [
        *Delivery.objects.filter(queue=letters).values_list("message_id", flat=True),
        *Scheduled.objects.filter(queue=letters).values_list("message_id", flat=True),
    ]
    assert Counter(found) == Counter(committed)


def test_a_seek_keeps_its_rate_is_cancelled_and_goes_on(
    letters: Queue, small_steps: None, operator: User
) -> None:
    ids = publish_many("letters.sent", range(10))
    begun = control.begin_seek(letters, to=ids[1], rate=1_000, by=operator)
    assert (begun.total, begun.is_exact) == (19, True)
    assert begun.options["samples"][0] == {"message": ids[1]}
    while Sought.by(begun).again == 0:
        operating.advance(begun)
        begun.refresh_from_db()
    assert control.cancel_operation(begun)
    assert bodies(letters) == list(range(1, 1 + Sought.by(begun).again))
    assert control.resume_operation(begun)
    assert Sought.by(control.run_operation(begun)) == (10, 9)
    assert bodies(letters) == list(range(1, 10))
    events = [(event.what, event.by) for event in control.timeline(ids[5]).events]
    assert events[-2:] == [("purged", "olga"), ("replayed", f"operation {begun.pk} of olga")]


def test_purging_does_not_wait_for_the_rate(letters: Queue, small_steps: None) -> None:
    publish_many("letters.sent", range(9))
    begun = control.begin_seek(letters, to=control.snapshot(), rate=1)
    while not Sought.by(begun).purged:
        operating.advance(begun)
        begun.refresh_from_db()
    assert operating.advance(begun) == 0
    assert Sought.by(control.run_operation(begun)) == (9, 0)


def test_a_queue_seeks_once_at_a_time(letters: Queue) -> None:
    publish("letters.sent", 1)
    begun = control.begin_seek(letters, to=AN_HOUR)
    for source in (letters, Subscription.objects.get()):
        with pytest.raises(OperationRefused, match=f"Operation {begun.pk} .* 'letters'"):
            control.begin_seek(source, to=AN_HOUR)
    control.begin_seek(Queue.objects.create(name="others"), to=AN_HOUR)
    control.cancel_operation(begun)
    assert control.seek(letters, to=AN_HOUR) == (1, 1)


def test_what_cannot_be_sought_is_refused(letters: Queue) -> None:
    publish("letters.sent", 1)
    for to in (datetime.datetime(2026, 1, 1), -AN_HOUR, 0, "then", None):
        with pytest.raises(InvalidOption, match="to="):
            control.seek(letters, to=to)  # type: ignore[arg-type]
    with pytest.raises(UnknownQueue):
        control.seek("nowhere", to=AN_HOUR)
    control.disable(letters)
    letters.refresh_from_db()
    with pytest.raises(QueueDisabled):
        control.seek(letters, to=AN_HOUR)
    assert not Operation.objects.exists()
    assert bodies(letters) == [1]


def manage(*args: str) -> Any:
    out = io.StringIO()
    call_command("seek", *args, "--json", stdout=out)
    return json.loads(out.getvalue())


def test_the_command_counts_and_seeks(letters: Queue) -> None:
    Topic.objects.create(name="parcels.sent")
    Subscription.objects.create(pattern="parcels.#", queue=letters)
    first, *_ = publish_many("letters.sent", range(6))
    publish("parcels.sent", 6)
    to = f"--to={first + 4}"
    assert manage("letters", to, "--dry-run") == {
        "would_purge": {"number": 7, "is_exact": True},
        "would_replay": {"number": 3, "is_exact": True},
    }
    assert not Operation.objects.exists()
    answer = manage("letters", to, "--subscription=letters.#", "--yes")
    assert (answer["state"], answer["purged"], answer["again"]) == ("done", 6, 2)
    assert sorted(bodies(letters)) == [4, 5, 6]
    answer = manage("letters", f"--to={answer['snapshot']}", "--yes")
    assert (answer["purged"], answer["again"]) == (3, 0)
    answer = manage("letters", to, "--rate=100", "--background", "--yes")
    assert (answer["state"], answer["done"], answer["rate"]) == ("running", 0, 100)


@pytest.mark.parametrize(
    "wrong",
    [
        ("letters", "--to=2026-01-01T00:00:00", "--yes"),
        ("nowhere", "--to=1", "--yes"),
        ("letters", "--to=1", "--subscription=parcels.#", "--yes"),
        ("letters", "--to=1"),
    ],
)
def test_the_command_refuses_what_it_cannot_seek(letters: Queue, wrong: tuple[str, ...]) -> None:
    send_many("letters", [1])
    with pytest.raises(CommandError) as caught:
        call_command("seek", *wrong)
    assert caught.value.returncode == 2
    assert not Operation.objects.exists()
