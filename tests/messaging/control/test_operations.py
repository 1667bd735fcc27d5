"""Operations: a verb on any number of messages, which whoever is there carries on."""

from typing import Any

import pytest
from control_rows import bury, waiting
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection

from messaging import consumer, control, send, send_many
from messaging.control import Filter, operating
from messaging.exceptions import InvalidOption, OperationRefused
from messaging.models import DeadLetter, Delivery, Edit, Message, Operation, Queue, Scheduled
from messaging.testing import drain

pytestmark = pytest.mark.django_db


@pytest.fixture
def others(queue: Queue) -> Queue:
    return Queue.objects.create(name="others")


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("messaging.control.operating.BATCH", 3)


def bodies(queue: Queue) -> list[Any]:
    ids = [row.message_id for row in Delivery.objects.filter(queue=queue).order_by("id")]
    found = Message.objects.in_bulk(ids)
    return [found[each].body for each in ids]


def test_an_operation_purges_what_is_meant_and_nothing_else(
    queue: Queue, small_steps: None
) -> None:
    send_many("letters", [{"n": number, "odd": bool(number % 2)} for number in range(20)])
    send("letters", {"odd": True}, delay=60)
    done = control.run_operation(control.begin_purge(queue, Filter(body={"odd": True})))
    assert (done.state, done.done, done.total, done.is_exact) == ("done", 11, 11, True)
    assert [body["n"] for body in bodies(queue)] == list(range(0, 20, 2))
    assert not Scheduled.objects.exists()


def test_an_operation_moves_messages_in_their_order(
    queue: Queue, others: Queue, small_steps: None
) -> None:
    send_many("letters", range(10))
    done = control.run_operation(control.begin_move(queue, others))
    assert (done.done, waiting(queue), bodies(others)) == (10, 0, list(range(10)))


def test_an_operation_cancels_what_is_scheduled(queue: Queue, small_steps: None) -> None:
    send_many("letters", range(5), delay=60)
    send("letters", "now")
    done = control.run_operation(control.begin_cancel(queue))
    assert (done.done, Scheduled.objects.count(), bodies(queue)) == (5, 0, ["now"])


def test_an_operation_edits_by_a_merge_patch_and_keeps_who_did_it(
    queue: Queue, operator: User, small_steps: None
) -> None:
    send_many("letters", [{"n": number, "old": 1} for number in range(5)])
    patch = {"old": None, "new": {"a": 1}}
    done = control.run_operation(control.begin_edit(queue, patch=patch, by=operator))
    assert done.done == 5
    assert bodies(queue) == [{"n": number, "new": {"a": 1}} for number in range(5)]
    assert {edit.edited_by for edit in Edit.objects.all()} == {"olga"}
    assert [edit.body["old"] for edit in Edit.objects.all()] == [1] * 5


def test_what_comes_after_the_beginning_stays(queue: Queue, small_steps: None) -> None:
    send_many("letters", range(5))
    operation = control.begin_purge(queue)
    operating.advance(operation)
    send_many("letters", ["late"] * 4)
    assert control.run_operation(operation).done == 5
    assert bodies(queue) == ["late"] * 4


def test_ages_are_those_at_the_beginning(queue: Queue) -> None:
    old, young = send_many("letters", ["old", "young"])
    with connection.cursor() as cursor:
        age = "UPDATE messaging_message SET published_at = now() - %s * interval '1 s' WHERE id=%s"
        cursor.execute(age, [7_200, int(old)])
        cursor.execute(age, [3_000, int(young)])
    operation = control.begin_purge(queue, Filter(older_than=3_600))
    # An hour later the young one is old enough, and is not meant all the same.
    begun = operation.created_at.timestamp() - 3_600
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE messaging_operation SET created_at = to_timestamp(%s) WHERE id = %s",
            [begun, operation.pk],
        )
        cursor.execute("UPDATE messaging_message SET published_at = published_at - interval '1 h'")
    assert control.run_operation(operation).done == 1
    assert bodies(queue) == ["young"]


def test_a_cancelled_operation_goes_on_exactly_where_it_stopped(
    queue: Queue, others: Queue, operator: User, small_steps: None
) -> None:
    send_many("letters", range(10))
    operation = control.begin_move(queue, others)
    operating.advance(operation)
    operating.advance(operation)
    assert control.cancel_operation(operation, by=operator)
    assert not control.cancel_operation(operation, by=operator)
    assert operating.advance(operation) is None
    stopped = control.find_operation(operation.pk)
    assert (stopped.state, stopped.done, stopped.cancelled_by) == ("cancelled", 6, "olga")
    assert (waiting(queue), waiting(others)) == (4, 6)
    assert control.resume_operation(operation, by=operator)
    assert control.run_operation(operation).done == 10
    assert bodies(others) == list(range(10))
    assert not control.resume_operation(operation)


def test_doing_it_twice_moves_once(queue: Queue, others: Queue) -> None:
    dead = bury(queue, 5)
    first = control.begin_redrive(ids=dead)
    second = control.begin_redrive(ids=dead)
    assert control.run_operation(first).done == 5
    assert control.run_operation(second).done == 0
    assert waiting(queue) == 5


def test_an_operation_is_no_faster_than_its_rate(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    send_many("letters", range(100))
    operation = control.begin_purge(queue, rate=10)
    wait = operating.advance(operation)
    assert wait is not None
    assert 0 < wait <= 1
    assert control.find_operation(operation.pk).done == 0
    # As if a second had gone by, and then a day: no more than a second's worth at once.
    for seconds, done in ((1, 10), (86_400, 20)):
        position = control.find_operation(operation.pk).position
        position["_pace"] = [0.0, position["_pace"][1] - seconds]
        Operation.objects.filter(pk=operation.pk).update(position=position)
        operating.advance(operation)
        assert control.find_operation(operation.pk).done == done


@pytest.mark.parametrize("rate", [0, -1, float("inf"), float("nan"), True, "fast"])
def test_a_rate_that_makes_no_sense_is_refused(queue: Queue, rate: Any) -> None:
    with pytest.raises(InvalidOption, match="rate"):
        control.begin_purge(queue, rate=rate)
    assert not Operation.objects.exists()


# Redriving.


def test_dead_letters_are_redriven_by_filter_group_queue_and_all(
    queue: Queue, small_steps: None
) -> None:
    other = Queue.objects.create(name="parcels")
    red = bury(queue, 4, body={"colour": "red"}, fingerprint="a")
    bury(queue, 4, error="KeyError", fingerprint="b")
    bury(other, 4, fingerprint="a")
    run = control.run_operation
    assert run(control.begin_redrive(wanted=Filter(body={"colour": "red"}))).done == 4
    assert not DeadLetter.objects.filter(pk__in=red).exists()
    assert run(control.begin_redrive(fingerprint="b", wanted=Filter(error="value"))).done == 0
    assert run(control.begin_redrive(fingerprint="b", wanted=Filter(error="key"))).done == 4
    assert run(control.begin_redrive("letters.dlq")).done == 0
    bury(queue, 2)
    assert run(control.begin_redrive("letters.dlq")).done == 2
    assert run(control.begin_redrive()).done == 4
    assert (waiting(queue), waiting(other)) == (10, 4)


def test_dead_letters_are_redriven_elsewhere_and_edited(
    queue: Queue, others: Queue, operator: User, small_steps: None
) -> None:
    bury(queue, 5)
    operation = control.begin_redrive(to="others", patch={"fixed": True}, by=operator)
    assert control.run_operation(operation).done == 5
    assert bodies(others) == [{"n": number, "fixed": True} for number in range(5)]
    assert Edit.objects.filter(what="edited", edited_by="olga").count() == 5


def test_dead_letters_whose_queue_is_gone_stay_and_are_told(
    queue: Queue, small_steps: None
) -> None:
    other = Queue.objects.create(name="parcels", dead_letter_queue=queue.dead_letter_queue)
    bury(queue, 4)
    lost = bury(other, 5)
    bury(queue, 2)
    other.delete()
    ended = control.run_operation(control.begin_redrive())
    assert (ended.state, ended.done) == ("done", 6)
    assert "5 dead letters stay: the queue that they come from no longer exists" in ended.error
    assert set(DeadLetter.objects.values_list("pk", flat=True)) == set(lost)
    failed = control.run_operation(control.begin_redrive())
    assert (failed.state, failed.done) == ("failed", 0)
    assert "5 dead letters stay" in failed.error
    elsewhere = control.run_operation(control.begin_redrive(to=queue))
    assert (elsewhere.state, elsewhere.done, elsewhere.error) == ("done", 5, "")


def test_dead_letters_that_the_queue_asked_for_holds_itself_stay_and_are_told(
    queue: Queue, small_steps: None
) -> None:
    bury(queue, 5)
    failed = control.run_operation(control.begin_redrive(to="letters.dlq"))
    assert (failed.state, failed.done) == ("failed", 0)
    assert "5 dead letters stay: the queue that they would go to" in failed.error
    assert DeadLetter.objects.count() == 5


def test_dead_letters_are_discarded_by_group(queue: Queue, small_steps: None) -> None:
    bury(queue, 5, fingerprint="a")
    bury(queue, 2, fingerprint="b")
    assert control.run_operation(control.begin_discard(fingerprint="a")).done == 5
    assert [dead.fingerprint for dead in DeadLetter.objects.all()] == ["b", "b"]


def failing(declared: Any) -> list[Any]:
    """Declare a consumer that fails while the list is empty."""
    well: list[Any] = []

    @consumer("letters")
    def handle(message: Any) -> None:
        if not well:
            raise LookupError("still broken")

    return well


def test_a_canary_goes_first_and_the_others_when_it_was_handled(
    queue: Queue, declared: Any
) -> None:
    failing(declared).append(True)
    bury(queue, 5)
    operation = control.begin_redrive(canary=True)
    for _ in range(3):
        operating.advance(operation)
    assert (control.find_operation(operation.pk).done, waiting(queue)) == (1, 1)
    assert drain("letters") == 1
    assert control.run_operation(operation).done == 5
    assert waiting(queue) == 4


def test_an_operation_fails_when_its_canary_fails_again(queue: Queue, declared: Any) -> None:
    well = failing(declared)
    bury(queue, 5)
    operation = control.begin_redrive(canary=True)
    operating.advance(operation)
    drain("letters")
    assert operating.advance(operation) is None
    ended = control.find_operation(operation.pk)
    assert (ended.state, ended.done, DeadLetter.objects.count()) == ("failed", 1, 4)
    assert "has failed again" in ended.error
    # Resumed, it sends another one first.
    assert control.resume_operation(operation)
    operating.advance(operation)
    operating.advance(operation)
    assert DeadLetter.objects.count() == 3
    well.append(True)
    drain("letters")
    assert control.run_operation(operation).state == "done"
    assert not DeadLetter.objects.exists()


def test_groups_tell_what_failed_how_often_since_when_and_until_when(queue: Queue) -> None:
    other = Queue.objects.create(name="parcels")
    bury(queue, 3, fingerprint="a", error="KeyError")
    bury(other, 2, fingerprint="b")
    last, first = control.groups()
    assert (first.fingerprint, first.count, first.error, first.queue) == (
        "a", 3, "KeyError", "letters",
    )  # fmt: skip
    assert (last.fingerprint, last.count, last.queue) == ("b", 2, "parcels")
    assert first.first_at <= first.last_at
    assert [group.fingerprint for group in control.groups("letters.dlq")] == ["a"]


# What is on record.


def test_who_began_cancelled_and_resumed_an_operation_is_on_record(
    queue: Queue, operator: User
) -> None:
    send_many("letters", range(3))
    operation = control.begin_purge(queue, Filter(body={(): 1}), by=operator)
    control.cancel_operation(operation, by=operator)
    control.resume_operation(operation, by=operator)
    control.run_operation(operation)
    notes = list(LogEntry.objects.order_by("id").values_list("user", "change_message"))
    assert {user for user, _ in notes} == {operator.pk}
    assert [note.split(":")[0].split(" after")[0] for _, note in notes] == [
        "Begun", "Cancelled", "Resumed", "Done",
    ]  # fmt: skip
    assert "body" in notes[0][1]
    row = Operation.objects.get()
    assert (row.kind, row.created_by, row.queue, row.done) == ("purge", "olga", queue, 1)


def test_an_operation_fails_with_the_reason_and_can_go_on(
    queue: Queue, others: Queue, small_steps: None
) -> None:
    send_many("letters", range(5))
    operation = control.begin_move(queue, others)
    operating.advance(operation)
    control.disable(others)
    assert operating.advance(operation) is None
    failed = control.find_operation(operation.pk)
    assert (failed.state, failed.done, waiting(queue)) == ("failed", 3, 2)
    assert "others" in failed.error
    control.enable(others)
    control.resume_operation(operation)
    assert control.run_operation(operation).done == 5


def test_an_operation_without_its_queue_fails(queue: Queue) -> None:
    operation = control.begin_purge(queue)
    Queue.objects.filter(pk=queue.pk).delete()
    assert control.run_operation(operation).state == "failed"


def test_what_cannot_be_meant_is_refused_at_the_beginning(queue: Queue, others: Queue) -> None:
    with pytest.raises(InvalidOption, match="state"):
        control.begin_purge(queue, Filter(state="in_flight"))
    with pytest.raises(OperationRefused, match="itself"):
        control.begin_move(queue, queue)
    with pytest.raises(InvalidOption, match="ids"):
        control.begin_redrive(ids=[])
    with pytest.raises(OperationRefused, match="unknown"):
        control.find_operation(1)


# RFC 7386, appendix A.
PATCHES = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("target", "patch", "expected"), PATCHES)
def test_a_merge_patch_does_what_its_rfc_says(target: Any, patch: Any, expected: Any) -> None:
    from messaging.control.patching import merge

    assert merge(target, patch) == expected


@pytest.mark.django_db(transaction=True)
def test_two_at_once_carry_one_operation_out_once(
    queue: Queue, others: Queue, elsewhere: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messaging.control.operating.BATCH", 7)
    send_many("letters", range(200))
    operation = control.begin_move(queue, others)
    runs = [elsewhere(control.run_operation, operation.pk) for _ in range(3)]
    assert [each.result(60).done for each in runs] == [200] * 3
    assert waiting(queue) == 0
    assert sorted(bodies(others)) == list(range(200))
