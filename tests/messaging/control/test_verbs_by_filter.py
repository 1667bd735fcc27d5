"""Every verb acts on what each kind of filter describes, and on nothing else."""

from typing import Any

import pytest
from django.db import connection

from messaging import consumer, consuming, control, send
from messaging.control import Filter
from messaging.models import Delivery, Edit, Message, Queue, Scheduled
from messaging.testing import drain

pytestmark = pytest.mark.django_db

SCHEDULED = {"plain", "tagged", "red", "old", "failed"}
FILTERS = [
    ({"state": "scheduled"}, SCHEDULED),
    ({"state": "scheduled", "headers": {"tag": "a"}}, {"tagged"}),
    ({"state": "scheduled", "body": {"colour": "red"}}, {"red"}),
    ({"state": "scheduled", "older_than": 3600}, {"old"}),
    ({"state": "scheduled", "newer_than": 3600}, SCHEDULED - {"old"}),
    ({"state": "scheduled", "error": "no such street"}, {"failed"}),
    ({"state": "scheduled", "error": "no such street", "headers": {"tag": "a"}}, set()),
]


@pytest.fixture
def letters(queue: Queue, declared: consuming.Declarations) -> Queue:
    """Have letters wait, each with a name, which differ in one thing each."""

    @consumer("letters")
    def fail(message: Any) -> None:
        raise LookupError("no such street")

    Queue.objects.create(name="others")
    Queue.objects.update(jitter="none")
    letter("failed")
    drain("letters")
    letter("plain", delay=60)
    letter("tagged", delay=60, headers={"tag": "a"})
    letter("red", delay=60, colour="red")
    old = letter("old", delay=60)
    letter("ready", colour="red", headers={"tag": "a"})
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE messaging_message SET published_at = now() - interval '1 day' WHERE id = %s",
            [old],
        )
    return queue


def letter(name: str, colour: str = "blue", **options: Any) -> int:
    return int(send("letters", {"name": name, "colour": colour}, **options))


def waiting(name: str) -> set[str]:
    """Return the names of the letters that wait on a queue."""
    ids = {
        row.message_id
        for model in (Delivery, Scheduled)
        for row in model.objects.filter(queue__name=name)
    }
    return {message.body["name"] for message in Message.objects.filter(pk__in=ids)}


# The same names in each of several processes, in which sets have orders of their own.
@pytest.mark.parametrize(
    ("wanted", "expected"),
    FILTERS,
    ids=lambda value: ",".join(sorted(value)) if isinstance(value, set) else str(value),
)
@pytest.mark.parametrize("verb", ["purge", "cancel", "move", "edit"])
def test_a_verb_does_what_it_does_to_what_is_described(
    letters: Queue, verb: str, wanted: dict[str, Any], expected: set[str]
) -> None:
    everything = SCHEDULED | {"ready"}
    match verb:
        case "purge":
            count = control.purge_matching(letters, Filter(**wanted))
            left = everything - expected
        case "cancel":
            count = control.cancel_matching(letters, Filter(**wanted))
            left = everything - expected
        case "move":
            count = control.move(letters, "others", Filter(**wanted))
            left = everything - expected
            assert waiting("others") == expected
        case _:
            count = control.edit_matching(letters, Filter(**wanted), lambda body: body | {"x": 1})
            left = everything
            assert {edit.body["name"] for edit in Edit.objects.all()} == expected
    assert count == len(expected)
    assert waiting("letters") == left
