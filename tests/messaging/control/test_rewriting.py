"""Rewriting: the messages that a filter describes say something else, and nothing else changes."""

from typing import Any

import pytest
from control_rows import bury, holding
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from effects import make_due
from rows import hold, keyed

from messaging import (
    InvalidMessage,
    consumer,
    consuming,
    control,
    publish,
    receive,
    send,
    send_many,
)
from messaging.control import Filter
from messaging.engines import wakeup
from messaging.exceptions import InvalidOption, UnknownQueue
from messaging.models import (
    DeadLetter,
    Delivery,
    Edit,
    LaneEntry,
    Message,
    Queue,
    Subscription,
    Topic,
)
from messaging.testing import drain

pytestmark = pytest.mark.django_db


@pytest.fixture
def handled(queue: Queue, declared: consuming.Declarations) -> list[Any]:
    """Consume letters and return the bodies that were handled."""
    seen: list[Any] = []

    @consumer("letters")
    def handle(message: Any) -> None:
        seen.append(message.body)

    return seen


def correct(body: Any) -> Any:
    return body | {"country": "GB"}


def double(body: int) -> int:
    return body * 2


def turn_round(body: Any) -> Any:
    return dict(reversed(body.items()))


def bodies(*ids: int) -> list[Any]:
    return [Message.objects.get(pk=each).body for each in ids]


def test_what_a_filter_describes_is_delivered_as_it_was_rewritten(
    handled: list[Any], in_small_batches: None
) -> None:
    for country in ("UK", "FR"):
        for number in range(3):
            body = {"n": number, "country": country}
            send("letters", body, priority=number)
            send("letters", body, delay=60)
            keyed("letters", body, key=f"k{number}")
            keyed("letters", body, kind=1)
    assert control.edit_matching("letters", Filter(body={"country": "UK"}), correct) == 12
    make_due()
    drain("letters")
    assert [body["country"] for body in handled].count("GB") == 12
    assert [body["country"] for body in handled].count("FR") == 12


def test_an_order_of_a_key_is_not_changed_by_it(handled: list[Any], in_small_batches: None) -> None:
    keyed("letters", *range(8))
    assert control.edit_matching("letters", Filter(), lambda body: f"{body}!") == 8
    drain("letters")
    assert handled == [f"{number}!" for number in range(8)]


def test_old_versions_and_who_rewrote_them_are_kept_and_on_record(
    queue: Queue, operator: User
) -> None:
    ids = send_many("letters", [1, 2], headers={"a": "b"})
    assert control.edit_matching("letters", Filter(), double, by=operator) == 2
    versions = Edit.objects.order_by("message_id")
    assert [(v.message_id, v.body, v.headers, v.edited_by) for v in versions] == [
        (ids[0], 1, {"a": "b"}, "olga"),
        (ids[1], 2, {"a": "b"}, "olga"),
    ]
    assert bodies(*ids) == [2, 4]
    assert LogEntry.objects.get().get_change_message() == "Messages edited: 2."


def test_what_the_function_leaves_as_it_is_is_not_edited(queue: Queue) -> None:
    send_many("letters", [{"a": 1, "b": 2}, {"b": 2, "c": [1.0]}])
    assert control.edit_matching("letters", Filter(), turn_round) == 0
    assert not Edit.objects.exists()


def test_one_is_not_the_same_as_true(queue: Queue) -> None:
    (sent,) = send_many("letters", [1])
    assert control.edit_matching("letters", Filter(), lambda body: True) == 1
    assert bodies(sent) == [True]


def test_a_dry_run_changes_nothing(queue: Queue) -> None:
    ids = send_many("letters", [1, 2])
    assert control.edit_matching("letters", Filter(), double, dry_run=True) == 2
    assert bodies(*ids) == [1, 2]
    assert not Edit.objects.exists()


def test_dead_letters_are_rewritten_only_when_they_are_meant(queue: Queue) -> None:
    bury(queue, 2)
    kept, lost = Message.objects.order_by("id")
    lost.delete()
    assert control.edit_matching("letters", Filter(), correct) == 0
    assert control.edit_matching("letters", Filter(state="dead"), correct) == 2
    assert [dead.body["country"] for dead in DeadLetter.objects.all()] == ["GB", "GB"]
    assert bodies(kept.pk) == [{"n": 0, "country": "GB"}]


def test_a_message_that_waits_twice_on_a_queue_is_rewritten_once(
    queue: Queue, in_small_batches: None
) -> None:
    Topic.objects.create(name="mail.sent")
    for pattern in ("mail.*", "mail.#"):
        Subscription.objects.create(pattern=pattern, queue=queue)
    ids = [publish("mail.sent", number) for number in range(1, 6)]
    assert Delivery.objects.count() == 10
    assert control.edit_matching("letters", Filter(), double) == 5
    assert bodies(*ids) == [2, 4, 6, 8, 10]


def test_what_somebody_holds_stays_and_so_does_what_another_queue_has(queue: Queue) -> None:
    hold(queue, 2)
    Queue.objects.create(name="other")
    send("other", 1)
    assert control.edit_matching("letters", Filter(), double) == 0
    with pytest.raises(InvalidOption, match="state='in_flight'"):
        control.edit_matching("letters", Filter(state="in_flight"), double)


def test_what_is_held_on_another_queue_stays_on_all(queue: Queue) -> None:
    Topic.objects.create(name="mail.sent")
    other = Queue.objects.create(name="other")
    for each in (queue, other):
        Subscription.objects.create(pattern="mail.sent", queue=each)
    ids = [publish("mail.sent", number) for number in (1, 2)]
    (held,) = receive("other")
    assert control.edit_matching("letters", Filter(), double) == 1
    assert bodies(*ids) == [1, 4]
    held.acknowledge()
    assert control.edit_matching("letters", Filter(body={(): 1}), double) == 1
    assert bodies(*ids) == [2, 4]


@pytest.mark.django_db(transaction=True)
def test_what_a_worker_has_in_hand_stays(queue: Queue) -> None:
    first, second = send_many("letters", [1, 2])
    row = Delivery.objects.get(message_id=first).pk
    with holding(
        lambda cursor: cursor.execute("DELETE FROM messaging_delivery WHERE id = %s", [row])
    ):
        assert control.edit_matching("letters", Filter(), double) == 1
    assert bodies(first, second) == [1, 4]


@pytest.mark.django_db(transaction=True)
def test_a_key_that_a_worker_has_in_hand_stays(queue: Queue) -> None:
    ids = keyed("letters", 1, 2) + keyed("letters", 3, key="b")
    lane = LaneEntry.objects.get(message_id=ids[0]).lane_id
    with holding(
        lambda cursor: cursor.execute("DELETE FROM messaging_delivery WHERE lane_id = %s", [lane])
    ):
        assert control.edit_matching("letters", Filter(), double) == 1
    assert bodies(*ids) == [1, 2, 6]


def test_workers_are_told_to_look_again(
    queue: Queue, arrivals: list[wakeup.Arrival], django_capture_on_commit_callbacks: Any
) -> None:
    send("letters", 1)
    row = Delivery.objects.get()
    with django_capture_on_commit_callbacks(execute=True):
        control.edit_matching("letters", Filter(), double)
    assert (queue.pk, 0, row.pk) in [each[:3] for each in arrivals]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda body: float("nan"), r"nan is not JSON.* the new body of message \d+"),
        (lambda body: body.clear(), r"message \d+ in place and returned None"),
    ],
    ids=["NaN", "in place"],
)
def test_a_function_that_gives_no_body_is_refused_and_the_messages_stay(
    queue: Queue, change: Any, reason: str
) -> None:
    sent = send("letters", {"a": 1})
    with pytest.raises(InvalidMessage, match=reason):
        control.edit_matching("letters", Filter(), change)
    assert bodies(sent) == [{"a": 1}]
    assert not Edit.objects.exists()


def test_an_unknown_queue_is_refused(queue: Queue) -> None:
    with pytest.raises(UnknownQueue, match="letters"):
        control.edit_matching("leters", Filter(), double)
