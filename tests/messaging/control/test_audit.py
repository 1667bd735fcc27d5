"""Whatever an operator writes leaves a row that says who, what, when, which and how many."""

from collections.abc import Callable
from typing import Any

import pytest
from control_rows import bury
from rows import hold, keyed

from messaging import control, send, send_many
from messaging.control import Filter
from messaging.models import DeadLetter, Delivery, Lane, Operation, Queue, Scheduled

pytestmark = pytest.mark.django_db

VERBS: dict[str, tuple[Callable[[Queue, dict[str, Any]], Any], str, int]] = {
    "purge": (lambda q, how: control.purge(q, **how), "purge", 3),
    "purge_matching": (
        lambda q, how: control.purge_matching(q, Filter(body={(): 1}), **how), "purge", 1,
    ),
    "purge_dead": (lambda q, how: control.purge_dead("letters.dlq", **how), "discard", 2),
    "move": (lambda q, how: control.move(q, "others", **how), "move", 3),
    "edit": (lambda q, how: control.edit(first(), body="new", **how), "edit", 1),
    "edit_matching": (
        lambda q, how: control.edit_matching(q, Filter(), lambda body: [body], **how), "edit", 3,
    ),
    "cancel": (lambda q, how: control.cancel([Scheduled.objects.get().pk], **how), "cancel", 1),
    "cancel_message": (
        lambda q, how: control.cancel_message(Scheduled.objects.get().message_id, **how),
        "cancel", 1,
    ),
    "cancel_matching": (lambda q, how: control.cancel_matching(q, Filter(), **how), "cancel", 1),
    "retry_now": (
        lambda q, how: control.retry_now([Scheduled.objects.get().pk], **how), "retry_now", 1,
    ),
    "redrive": (lambda q, how: control.redrive([dead()], **how), "redrive", 1),
    "redrive_queue": (lambda q, how: control.redrive_queue(q, **how), "redrive", 2),
    "redrive_all": (lambda q, how: control.redrive_all(to="others", **how), "redrive", 2),
    "discard": (lambda q, how: control.discard([dead()], **how), "discard", 1),
    "dead_letter": (lambda q, how: control.dead_letter(q, [first()], **how), "dead_letter", 1),
    "delete_queue": (lambda q, how: control.delete_queue("empty", **how), "delete_queue", 0),
    "pause": (lambda q, how: control.pause(q, **how), "pause", 0),
    "resume": (lambda q, how: control.pause(q) and control.resume(q, **how), "resume", 0),
    "disable": (lambda q, how: control.disable(q, **how), "disable", 0),
    "enable": (lambda q, how: control.disable(q) and control.enable(q, **how), "enable", 0),
}  # fmt: skip


def first() -> int:
    return Delivery.objects.order_by("id")[0].message_id


def dead() -> int:
    return DeadLetter.objects.order_by("id")[0].pk


@pytest.fixture
def filled(queue: Queue) -> Queue:
    """Return a queue with two messages that wait, a scheduled one, and two dead letters."""
    Queue.objects.create(name="others"), Queue.objects.create(name="empty")
    send_many("letters", [1, 2])
    send("letters", 3, delay=60)
    bury(queue, 2)
    return queue


@pytest.mark.parametrize("verb", VERBS)
def test_whatever_is_written_leaves_a_row_with_who_what_and_how_many(
    filled: Queue, verb: str
) -> None:
    act, kind, count = VERBS[verb]
    act(filled, {"by": "olga (manage.py)"})
    row = control.operations()[0]
    assert (row.kind, row.created_by) == (kind, "olga (manage.py)")
    assert (row.state, row.error, row.done) == ("done", "", count)
    assert row.finished_at is not None
    assert not control.resume_operation(row)


def test_a_row_says_which_messages_were_meant(filled: Queue) -> None:
    control.move("letters", "others", Filter(state="ready", body={(): 1}))
    (row,) = control.operations()
    assert (row.queue, row.to) == (filled, Queue.objects.get(name="others"))
    assert row.filter == {"state": ["ready"], "body": [[[], 1]]}
    control.dead_letter("letters", [first()], reason="wrong address")
    assert control.operations()[0].filter == {"reason": "wrong address"}
    control.delete_queue("empty")
    assert control.operations()[0].filter == {"name": "empty"}


def test_leases_and_keys_that_are_released_leave_a_row(queue: Queue) -> None:
    (lease,) = hold(queue, worker="w1")
    control.release_leases([lease], by="olga")
    keyed("letters", 1, key="customer 7")
    Lane.objects.update(parked_at="2026-01-01T00:00:00Z", tokens=0)
    control.release_key("letters", "customer 7", by="olga")
    rows = {(row.kind, row.created_by, row.done) for row in Operation.objects.all()}
    assert rows == {("release_leases", "olga", 1), ("release_keys", "olga", 1)}


def test_what_breaks_off_leaves_a_row_that_says_how_far_it_came(
    filled: Queue, monkeypatch: pytest.MonkeyPatch, in_small_batches: None
) -> None:
    send_many("letters", range(5))
    seen: list[Any] = []

    def change(body: Any) -> Any:
        seen.append(body)
        if len(seen) > 4:
            raise LookupError(body)
        return [body]

    with pytest.raises(LookupError):
        control.edit_matching("letters", Filter(), change, by="olga")
    (row,) = control.operations()
    assert (row.state, row.done) == ("failed", 3)
    assert "stopped by LookupError" in row.error
    assert not control.resume_operation(row)


def test_a_dry_run_and_a_verb_that_changes_nothing_leave_no_row(filled: Queue) -> None:
    control.purge_matching("letters", Filter(), dry_run=True)
    control.move("letters", "others", dry_run=True)
    control.edit(first(), body="new", dry_run=True)
    control.resume("letters")
    control.enable("letters")
    assert not Operation.objects.exists()
