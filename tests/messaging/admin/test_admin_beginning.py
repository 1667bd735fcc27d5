"""Operations that are begun in the admin: described by a filter, shown by a dry run, begun once."""

import json
from typing import Any

import pytest
from admin_pages import address, texts, token_of, visible
from django.core import signing
from django.test import Client
from django.utils import timezone

from messaging import control, publish, send, send_many
from messaging.admin import beginning
from messaging.control.operating import KINDS
from messaging.models import Delivery, Edit, Message, Operation, Queue, Scheduled

pytestmark = pytest.mark.django_db

RIGHTS = ("view_queue", "view_operation")
# A replay takes only what is committed.
committed = pytest.mark.django_db(transaction=True)


def begin(client: Client, kind: str, **answers: Any) -> Any:
    """Answer a beginning's form; return the dry run, or the form with what is wrong."""
    return client.post(address("operation", "begin", kind), answers)


def confirm(client: Client, kind: str, page: Any) -> Any:
    """Send what a dry run's page would send."""
    data = {"token": token_of(page)}
    return client.post(address("operation", "begin", kind), data, follow=True)


def carried_out(kind: str) -> Operation:
    """Carry out the one operation that there is, and return it."""
    operation = Operation.objects.get()
    assert operation.kind == kind
    return control.run_operation(operation)


@pytest.fixture
def parcels(queue: Any) -> Queue:
    return queue("parcels")


# What a dry run shows


def test_a_dry_run_shows_how_many_and_which_and_begins_nothing(letters: Queue, staff: Any) -> None:
    first, *_ = send_many("letters", [{"to": "Ada"}] * 3)
    send("letters", {"to": "Grace"})
    client = staff(*RIGHTS, "purge_queue")
    page = begin(client, "purge", queue="letters", body='{"to": "Ada"}')
    text = visible(page)
    assert "Messages meant: 3" in text
    assert f"message {first}" in text
    assert "queue=letters" in text
    assert not Operation.objects.exists()
    assert Delivery.objects.count() == 4


def test_what_comes_after_the_dry_run_is_left_alone(letters: Queue, staff: Any) -> None:
    send_many("letters", [1, 2])
    client = staff(*RIGHTS, "purge_queue")
    page = begin(client, "purge", queue="letters")
    send("letters", 3)
    page = confirm(client, "purge", page)
    assert "was begun" in texts(page)
    assert carried_out("purge").done == 2
    assert Delivery.objects.count() == 1


@committed
def test_a_dry_run_begins_one_operation_however_often_it_is_sent(
    letters: Queue, staff: Any
) -> None:
    message_id = send("letters", 1)
    client = staff(*RIGHTS, "consume_queue")
    page = begin(client, "replay", queue="letters", since=str(message_id))
    confirm(client, "replay", page)
    assert "begun already" in texts(confirm(client, "replay", page))
    assert carried_out("replay").done == 1


def test_a_dry_run_of_nothing_offers_nothing_to_begin(letters: Queue, staff: Any) -> None:
    page = begin(staff(*RIGHTS, "purge_queue"), "purge", queue="letters")
    assert "Messages meant: 0" in visible(page)
    assert 'value="Begin"' not in page.content.decode()


# What is begun


def test_messages_are_moved_by_a_filter(letters: Queue, parcels: Queue, staff: Any) -> None:
    send_many("letters", [{"kg": 1}, {"kg": 2}, {"kg": 1}])
    send("letters", {"kg": 1}, delay=60)
    client = staff(*RIGHTS, "consume_queue")
    answers = {"queue": "letters", "to": "parcels", "body": '{"kg": 1}', "state": ["ready"]}
    confirm(client, "move", begin(client, "move", **answers, rate="500"))
    operation = carried_out("move")
    assert (operation.done, operation.rate, operation.created_by) == (2, 500, "staff0")
    assert Delivery.objects.filter(queue=parcels).count() == 2
    assert Scheduled.objects.get().queue == letters


def test_messages_are_edited_by_a_merge_patch(letters: Queue, staff: Any) -> None:
    send("letters", {"country": "UK", "draft": True})
    client = staff(*RIGHTS, "edit_message")
    patch = '{"country": "GB", "draft": null}'
    confirm(client, "edit", begin(client, "edit", queue="letters", patch=patch))
    assert carried_out("edit").done == 1
    assert Message.objects.get().body == {"country": "GB"}
    assert Edit.objects.get().edited_by == "staff0"


def test_scheduled_messages_are_cancelled_by_a_filter(letters: Queue, staff: Any) -> None:
    send("letters", 1, delay=60, headers={"kind": "reminder"})
    send("letters", 2, delay=60)
    client = staff(*RIGHTS, "purge_queue")
    page = begin(client, "cancel", queue="letters", headers='{"kind": "reminder"}')
    confirm(client, "cancel", page)
    assert carried_out("cancel").done == 1
    assert Scheduled.objects.count() == 1


@committed
def test_a_subscription_is_replayed_to_another_queue(
    letters: Queue, parcels: Queue, topic: Any, subscribe: Any, staff: Any
) -> None:
    topic("letters.sent"), topic("letters.lost")
    subscribe("letters.sent", "letters"), subscribe("letters.lost", "letters")
    since = timezone.now()
    publish("letters.sent", 1), publish("letters.lost", 2)
    client = staff(*RIGHTS, "consume_queue")
    page = begin(
        client, "replay", queue="letters", subscription="letters.sent", since=since.isoformat(),
        to="parcels",
    )  # fmt: skip
    confirm(client, "replay", page)
    assert carried_out("replay").done == 1
    (delivery,) = Delivery.objects.filter(queue=parcels)
    assert Message.objects.get(pk=delivery.message_id).body == 1


def test_a_replay_goes_on_from_the_snapshot_of_another(letters: Queue, staff: Any) -> None:
    send("letters", 1)
    client = staff(*RIGHTS, "consume_queue")
    snapshot = control.snapshot()
    page = begin(client, "replay", queue="letters", since=snapshot)
    assert "Messages meant:" in visible(page)


# What is refused


@pytest.mark.parametrize(
    ("kind", "answers", "field", "text"),
    [
        ("purge", {"queue": "leters"}, "queue", "no queue"),
        ("purge", {"queue": ""}, "queue", "required"),
        ("purge", {"body": "[1]"}, "body", "no JSON object"),
        ("purge", {"body": "{"}, "body", "not JSON"),
        ("purge", {"headers": '{"a": [1]}'}, None, "headers"),
        ("purge", {"ids": "1, x"}, "ids", "not ids"),
        ("purge", {"older_than": "tomorrow"}, "older_than", "valid duration"),
        ("purge", {"topic": "no topic"}, None, "no topic"),
        ("purge", {"rate": "0"}, "rate", "0.01"),
        ("purge", {"state": ["completed"]}, "state", "valid choice"),
        ("purge", {"key": "\0"}, "key", "Null"),
        ("move", {}, "to", "required"),
        ("move", {"to": "letters"}, None, "moved to itself"),
        ("edit", {"patch": "{"}, "patch", "not JSON"),
        ("replay", {"since": "yesterday"}, None, "aware datetime"),
        ("replay", {"since": "2026-01-01T00:00:00"}, None, "aware datetime"),
        ("replay", {"since": "9" * 30}, None, "aware datetime"),
        ("replay", {"since": "2026-13-01T00:00:00"}, "since", "month"),
        ("replay", {"since": "1", "subscription": "no.such"}, "subscription", "no such"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(
    letters: Queue, root: Client, kind: str, answers: dict[str, Any], field: str | None, text: str
) -> None:
    page = begin(root, kind, **{"queue": "letters"} | answers)
    assert page.status_code == 200
    form = page.context["form"]
    errors = form.non_field_errors() if field is None else form.errors.get(field, [])
    assert text in " ".join(errors), form.errors
    assert not Operation.objects.exists()


@committed
@pytest.mark.parametrize("kind", ["replay", "move", "edit", "purge", "cancel"])
def test_each_kind_takes_its_own_permission_and_that_to_see_queues(
    letters: Queue, parcels: Queue, root: Client, staff: Any, kind: str
) -> None:
    message_id = send("letters", {"n": 1}, delay=60)
    answers = {"queue": "letters", "to": "parcels", "patch": "{}", "since": str(message_id)}
    needed = KINDS[kind].permission
    others = {each.permission for each in KINDS.values()} - {needed}
    where = address("operation", "begin", kind)
    for client in (staff(), staff(*RIGHTS, *others), staff("view_operation", needed)):
        content = {"for": f"{kind} {client.session['_auth_user_id']}"}
        token = signing.dumps(content, salt=beginning.SALT)
        assert client.get(where).status_code == 403
        assert client.post(where, answers).status_code == 403
        assert client.post(where, {"token": token}).status_code == 403
    client = staff("view_queue", needed)
    page = begin(client, kind, **answers)
    assert "Messages meant: 1" in visible(page)
    other = staff("view_queue", needed)
    assert other.post(where, {"token": token_of(page)}).status_code == 403
    assert confirm(client, kind, page).status_code == 200
    assert Operation.objects.get().kind == kind


def test_a_forged_or_old_dry_run_begins_nothing(
    letters: Queue, staff: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    send("letters", 1)
    client = staff(*RIGHTS, "purge_queue")
    where = address("operation", "begin", "purge")
    for token in ("", "x", "a:b:c", "\0"):
        assert client.post(where, {"token": token}).status_code == 403
    page = begin(client, "purge", queue="letters")
    monkeypatch.setattr(beginning, "MAX_AGE", -1)
    assert "too old" in texts(confirm(client, "purge", page))
    assert not Operation.objects.exists()
    assert client.get(address("operation", "begin", "explode")).status_code == 404
    strict = staff(*RIGHTS, "purge_queue", strict=True)
    assert strict.post(where, {"queue": "letters"}).status_code == 403


# How one gets there


def test_pages_lead_to_what_their_user_may_begin(
    letters: Queue, topic: Any, subscribe: Any, staff: Any
) -> None:
    sent, subscription = topic("letters.sent"), subscribe("letters.#", "letters")
    rights = ("view_queue", "view_topic", "view_subscription", "view_operation")
    client = staff(*rights, "consume_queue")
    pages = {
        address("queue", "change", letters.pk): {"Replay messages", "Move messages"},
        address("topic", "change", sent.pk): {"Replay messages", "Move messages"},
        address("subscription", "change", subscription.pk): {"Replay messages"},
    }
    for where, labels in pages.items():
        links = {str(label) for _, label in client.get(where).context["links"]}
        assert links - {"Schema versions"} == labels
    listed = client.get(address("operation")).context["beginnings"]
    assert {str(label) for _, label in listed} == {"Replay messages", "Move messages"}
    assert client.get(address("queue", "change", letters.pk)).status_code == 200
    for where, _ in client.get(address("subscription", "change", subscription.pk)).context["links"]:
        form = client.get(where).context["form"]
        assert form["queue"].value() == "letters"
        assert form["subscription"].value() == "letters.#"
    assert not staff("view_operation").get(address("operation")).context["beginnings"]


# What lists begin by themselves


def test_a_queue_that_holds_many_is_purged_by_an_operation(
    letters: Queue, staff: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from messaging.admin import queues

    monkeypatch.setattr(queues, "BEGIN_ABOVE", 3)
    send_many("letters", range(4))
    client = staff("view_queue", "purge_queue")
    where = address("queue", "operate", "purge")
    page = client.get(where, {"id": letters.pk})
    send("letters", "later")
    data = {"token": token_of(page), "typed": "letters"}
    assert "was begun" in texts(client.post(where, data, follow=True))
    assert Delivery.objects.count() == 5
    assert carried_out("purge").done == 4
    assert Delivery.objects.count() == 1


@pytest.mark.parametrize(
    ("verb", "permission", "answers"),
    [
        ("cancel", "purge_queue", {}),
        ("move", "consume_queue", {"to": "parcels"}),
        ("edit", "edit_message", {"patch": json.dumps({"new": 1})}),
    ],
)
@pytest.mark.parametrize("query", ["", "queue__id__exact={letters}"])
def test_many_scheduled_messages_are_dealt_with_by_an_operation_for_each_queue(
    letters: Queue,
    parcels: Queue,
    queue: Any,
    staff: Any,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    permission: str,
    answers: dict[str, str],
    query: str,
) -> None:
    from messaging.admin import operations

    monkeypatch.setattr(operations, "MAX_IDS", 1)
    monkeypatch.setattr(operations, "BEGIN_ABOVE", 2)
    queue("postcards")
    send_many("letters", [{"n": 1}] * 3, delay=60)
    send_many("postcards", [{"n": 2}] * 2, delay=60)
    client = staff("view_scheduled", "view_operation", permission)
    first = Scheduled.objects.order_by("pk")[0]
    chosen = {"action": verb, "_selected_action": [first.pk], "select_across": "1"}
    where = f"{address('scheduled')}?{query.format(letters=letters.pk)}"
    page = client.post(where, chosen)
    send("letters", {"n": 3}, delay=60)
    data = {"token": token_of(page), **answers}
    assert "was begun" in texts(
        client.post(address("scheduled", "operate", verb), data, follow=True)
    )
    begun = {each.queue.name: each for each in Operation.objects.all()}
    assert set(begun) == ({"letters"} if query else {"letters", "postcards"})
    assert {each.kind for each in begun.values()} == {verb}
    assert control.run_operation(begun["letters"]).done == 3


def test_where_one_of_several_operations_is_refused_none_is_begun(
    letters: Queue, parcels: Queue, staff: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from messaging.admin import operations

    monkeypatch.setattr(operations, "MAX_IDS", 1)
    monkeypatch.setattr(operations, "BEGIN_ABOVE", 2)
    send_many("letters", range(3), delay=60)
    send_many("parcels", range(3), delay=60)
    client = staff("view_scheduled", "consume_queue")
    first = Scheduled.objects.order_by("pk")[0]
    chosen = {"action": "move", "_selected_action": [first.pk], "select_across": "1"}
    page = client.post(address("scheduled"), chosen)
    data = {"token": token_of(page), "to": "parcels"}
    page = client.post(address("scheduled", "operate", "move"), data, follow=True)
    assert "moved to itself" in texts(page)
    assert not Operation.objects.exists()
