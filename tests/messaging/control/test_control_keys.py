"""Operators' verbs on what waits behind ordering keys: order is kept, and no token is lost."""

from collections.abc import Callable
from typing import Any

import pytest
from control_rows import holding
from django.contrib.auth.models import User
from django.db import connection, transaction
from rows import keyed

from messaging import Reject, consumer, control, send
from messaging.engines import wakeup
from messaging.exceptions import OperationRefused
from messaging.models import DeadLetter, Delivery, Lane, LaneEntry, Queue, Scheduled
from messaging.store import lanes, redriving
from messaging.testing import drain

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("declared")]


@pytest.fixture
def handled() -> list[Any]:
    """Return the bodies that a consumer of "letters" has handled; "poison" is rejected."""
    bodies: list[Any] = []

    @consumer("letters")
    def handle(message: Any) -> None:
        if message.body == "poison" and "antidote" not in bodies:
            raise Reject("poison")
        bodies.append(message.body)

    return bodies


@pytest.fixture
def parking(queue: Queue, handled: list[Any]) -> Queue:
    """Return a queue with a key that is parked behind a dead letter, and two that wait."""
    Queue.objects.filter(pk=queue.pk).update(on_failure="park")
    keyed("letters", "poison", 1, 2)
    drain("letters")
    assert handled == []
    return queue


def nothing_left() -> bool:
    return not any(model.objects.exists() for model in (Delivery, Scheduled, Lane, LaneEntry))


# purge


def test_purge_deletes_what_waits_behind_keys_and_ends_the_keys(
    queue: Queue, in_small_batches: None
) -> None:
    for key in ("a", "b", "c"):
        keyed("letters", *range(4), key=key)
    keyed("letters.dlq", "another queue's")
    assert control.purge(queue) == 12
    assert control.depth(queue) == (0, 0, 0, 0, 0)
    assert Lane.objects.get().queue.name == "letters.dlq"
    assert Delivery.objects.count() == 1


def test_purge_leaves_what_was_sent_with_a_key_since_it_was_confirmed(
    queue: Queue, handled: list[Any]
) -> None:
    keyed("letters", "old")
    keyed("letters", "old", key="b")
    upto = control.ceiling()
    keyed("letters", "new")
    assert control.purge(queue, upto=upto) == 2
    drain("letters")
    assert handled == ["new"]
    assert nothing_left()


def test_purge_sees_what_its_own_transaction_has_sent_with_a_key(queue: Queue) -> None:
    keyed("letters", 1, join=False)
    assert control.purge(queue) == 1
    assert nothing_left()


def test_purge_ends_keys_that_wait_for_a_retry(queue: Queue) -> None:
    @consumer("letters")
    def fail(message: Any) -> None:
        raise RuntimeError

    keyed("letters", 1, 2)
    drain("letters")
    assert Scheduled.objects.filter(lane_id__isnull=False).count() == 1
    assert control.depth(queue)[:2] == (2, 0)
    assert control.purge(queue) == 2
    assert nothing_left()


def test_purge_leaves_parked_keys_parked(parking: Queue, handled: list[Any]) -> None:
    assert control.purge(parking) == 2
    keyed("letters", 3)
    drain("letters")
    assert handled == []
    control.release_key(parking, "a")
    drain("letters")
    assert handled == [3]


def test_purge_ends_fairness_keys_with_all_their_tokens(queue: Queue) -> None:
    keyed("letters", *range(20), kind=1)
    assert Delivery.objects.count() == 8
    assert control.purge(queue) == 20
    assert nothing_left()


@pytest.mark.django_db(transaction=True)
def test_purge_leaves_a_key_to_the_worker_that_has_it(queue: Queue, handled: list[Any]) -> None:
    keyed("letters", 1, 2)
    with holding(
        lambda cursor: cursor.execute(
            """WITH token AS (DELETE FROM messaging_delivery)
            DELETE FROM messaging_laneentry
            WHERE id = (SELECT min(id) FROM messaging_laneentry)"""
        )
    ):
        assert control.purge(queue) == 1
    drain("letters")
    assert handled == [1]
    assert nothing_left()


@pytest.mark.django_db(transaction=True)
def test_purge_loses_no_message_that_is_sent_to_the_key_at_the_same_time(
    queue: Queue, handled: list[Any], until: Callable[..., None]
) -> None:
    keyed("letters", "old")

    def send_now(cursor: Any) -> None:
        keyed("letters", "new", join=False)
        lanes.join_now(cursor.db)

    with holding(send_now, commit=True):
        assert control.purge(queue) == 1
    until(lambda: drain("letters") or handled)
    assert handled == ["new"]
    until(lambda: drain("letters") or nothing_left())


# parked keys


def test_a_parked_key_is_listed_with_what_waits_behind_it(parking: Queue) -> None:
    (found,) = control.parked("letters")
    assert (found.key, found.waiting) == ("a", 2)
    assert control.parked("letters.dlq") == []


def test_a_released_key_goes_on_without_the_dead_letter(
    parking: Queue,
    handled: list[Any],
    operator: User,
    arrivals: list[wakeup.Arrival],
    django_capture_on_commit_callbacks: Any,
) -> None:
    with django_capture_on_commit_callbacks(execute=True):
        assert control.release_key(parking, "a", by=operator)
    token = Delivery.objects.get()
    assert arrivals == [wakeup.Arrival(parking.pk, 0, token.pk)]
    keyed("letters", 3)
    assert Delivery.objects.get() == token
    assert not control.release_key(parking, "a")
    assert not control.release_key(parking, "no such key\0")
    drain("letters")
    assert handled == [1, 2, 3]
    assert nothing_left()


def test_a_key_that_waits_for_a_retry_can_be_tried_at_once(queue: Queue) -> None:
    tries: list[int] = []

    @consumer("letters", backoff="fixed")
    def fail_once(message: Any) -> None:
        tries.append(message.attempt)
        if len(tries) == 1:
            raise RuntimeError

    keyed("letters", 1)
    drain("letters")
    assert control.release_key(queue, "a")
    drain("letters")
    assert tries == [1, 2]


@pytest.mark.django_db(transaction=True)
def test_two_operators_who_release_a_key_give_it_one_token(queue: Queue) -> None:
    keyed("letters", 1)
    Delivery.objects.all().delete()
    Lane.objects.update(parked_at="2026-01-01T00:00Z", tokens=0)
    released = []
    with transaction.atomic():
        released.append(control.release_key(queue, "a"))
        assert Delivery.objects.count() == 1
    released.append(control.release_key(queue, "a"))
    assert released == [True, False]
    assert Delivery.objects.count() == 1


# redrive


def test_a_redriven_dead_letter_is_delivered_before_what_its_key_has_waiting(
    parking: Queue, handled: list[Any]
) -> None:
    keyed("letters", 3)
    handled.append("antidote")
    assert control.redrive_queue(parking) == 1
    drain("letters")
    assert handled == ["antidote", "poison", 1, 2, 3]
    assert nothing_left()


def test_a_redriven_dead_letter_comes_first_also_in_a_key_that_was_not_parked(
    queue: Queue, handled: list[Any]
) -> None:
    keyed("letters", "poison")
    drain("letters")
    keyed("letters", 1, 2)
    handled.append("antidote")
    assert control.redrive_queue(queue) == 1
    assert Delivery.objects.count() == 1
    drain("letters")
    assert handled == ["antidote", "poison", 1, 2]


def test_a_redriven_dead_letter_brings_its_key_back_when_nothing_else_waits(
    queue: Queue, handled: list[Any]
) -> None:
    keyed("letters", "poison")
    drain("letters")
    assert nothing_left()
    handled.append("antidote")
    assert control.redrive_queue(queue) == 1
    assert control.depth(queue)[:2] == (1, 0)
    drain("letters")
    assert handled == ["antidote", "poison"]
    assert nothing_left()


def test_a_redriven_message_with_a_fairness_key_waits_behind_it_again(
    queue: Queue, handled: list[Any]
) -> None:
    keyed("letters", "poison", "poison", kind=1)
    drain("letters")
    handled.append("antidote")
    assert control.redrive_queue(queue) == 2
    assert Lane.objects.get().kind == Lane.Kind.FAIR
    drain("letters")
    assert handled == ["antidote", "poison", "poison"]
    assert nothing_left()


def test_a_dead_letter_redriven_to_another_queue_waits_behind_its_key_there(
    parking: Queue, handled: list[Any]
) -> None:
    other = Queue.objects.create(name="other")
    keyed("other", 1)
    (dead,) = DeadLetter.objects.values_list("pk", flat=True)
    assert control.redrive([dead], to="other") == 1
    assert control.depth(other)[:2] == (2, 0)
    assert control.parked(parking)
    drained: list[Any] = []

    @consumer("other")
    def handle(message: Any) -> None:
        drained.append(message.body)

    drain("other")
    assert drained == [1, "poison"]


def test_a_dead_letter_of_another_queue_does_not_let_a_parked_key_go_on(
    parking: Queue, handled: list[Any]
) -> None:
    other = Queue.objects.create(name="other")
    control.dead_letter(other, keyed("other", "stray"))
    ids = DeadLetter.objects.filter(origin=other).values_list("pk", flat=True)
    assert control.redrive(ids, to=parking) == 1
    (found,) = control.parked(parking)
    assert found.waiting == 3
    drain("letters")
    assert handled == []


def test_dead_letters_are_not_redriven_to_the_queue_that_holds_them(parking: Queue) -> None:
    ids = list(DeadLetter.objects.values_list("pk", flat=True))
    with pytest.raises(OperationRefused, match="is the one that holds them"):
        control.redrive(ids, to="letters.dlq")
    assert DeadLetter.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_operators_who_redrive_into_one_key_move_the_message_once(
    queue: Queue, handled: list[Any]
) -> None:
    keyed("letters", "poison")
    drain("letters")
    (dead,) = DeadLetter.objects.values_list("pk", flat=True)
    with holding(lambda cursor: redriving.redrive(cursor.db, [dead]), commit=True):
        assert control.redrive([dead]) == 0
    assert (LaneEntry.objects.count(), Delivery.objects.count()) == (1, 1)


@pytest.mark.django_db(transaction=True)
def test_a_redrive_into_a_key_that_ends_at_the_same_time_brings_the_key_back(
    queue: Queue,
    handled: list[Any],
    elsewhere: Callable[..., Any],
    until: Callable[..., None],
    waiters: Callable[[], int],
) -> None:
    keyed("letters", "poison")
    drain("letters")
    dead = DeadLetter.objects.get()
    keyed("letters", 1)
    handled.append("antidote")
    with transaction.atomic():
        drain("letters")
        assert not Lane.objects.exists()
        redriven = elsewhere(control.redrive, [dead.pk])
        until(waiters)
    assert redriven.result(30) == 1
    drain("letters")
    assert handled == ["antidote", 1, "poison"]
    assert nothing_left()


# by hand


def test_a_message_dead_lettered_by_hand_comes_back_to_its_place_when_redriven(
    queue: Queue, handled: list[Any]
) -> None:
    first, *_ = keyed("letters", 1, 2)
    assert control.dead_letter(queue, [first], reason="wrong address", by="olga") == 1
    dead = DeadLetter.objects.get()
    assert (dead.reason, dead.description) == ("manual", "wrong address")
    assert control.redrive([dead.pk]) == 1
    drain("letters")
    assert handled == [1, 2]


def test_a_delayed_message_joins_its_key_when_it_is_delivered_now(
    queue: Queue, handled: list[Any]
) -> None:
    send("letters", 1, ordering_key="a", delay=60)
    assert control.depth(queue)[:2] == (0, 1)
    ids = Scheduled.objects.values_list("pk", flat=True)
    assert control.retry_now(ids) == 1
    drain("letters")
    assert handled == [1]


def test_the_token_of_a_key_is_neither_cancelled_nor_released_as_if_it_were_a_message(
    queue: Queue,
) -> None:
    @consumer("letters")
    def fail(message: Any) -> None:
        raise RuntimeError

    keyed("letters", 1)
    drain("letters")
    tokens = list(Scheduled.objects.values_list("pk", flat=True))
    assert len(tokens) == 1
    assert control.cancel(tokens) == 0
    assert control.retry_now(tokens) == 0
    assert control.cancel_message(0) == 0
    assert Scheduled.objects.count() == 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM messaging_laneentry")
        assert cursor.fetchone() == (1,)
