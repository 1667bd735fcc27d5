"""Operations in the admin: what is confirmed happens, once, by those who may, and on record."""

from collections.abc import Callable
from typing import Any

import pytest
from admin_pages import MODELS, address, texts, token_of, visible
from django.contrib.admin.models import LogEntry
from django.core import signing
from django.test import Client
from django.utils import timezone
from rows import hold, keyed

from messaging import send, send_many
from messaging.admin import operations
from messaging.models import DeadLetter, Delivery, Lane, Lease, Message, Queue, Scheduled

SELECTED = "_selected_action"
QUEUE_RIGHTS = ("view_queue", "pause_queue", "purge_queue")
DEAD_RIGHTS = ("view_deadletter", "redrive_deadletter")


def choose(client: Client, model: str, action: str, rows: Any, query: str = "", **data: Any) -> Any:
    """Choose rows in a list and an action, as the list's form does."""
    chosen = {SELECTED: [row.pk for row in rows], "action": action, "index": "0"}
    return client.post(f"{address(model)}?{query}", chosen | data)


def confirm(client: Client, model: str, name: str, page: Any, **answers: Any) -> Any:
    """Send a confirmation page's form; return the page that follows."""
    data = {"token": token_of(page), **answers}
    return client.post(address(model, "operate", name), data, follow=True)


# dead letters


def test_dead_letters_are_redriven_after_a_confirmation(bury: Any, staff: Any) -> None:
    dead = bury(3)
    client = staff(*DEAD_RIGHTS)
    page = choose(client, "deadletter", "redrive", dead[:2])
    assert "2 dead letters:" in visible(page)
    assert f"Dead letter {dead[0].pk} from letters: ValueError" in visible(page)
    assert DeadLetter.objects.count() == 3

    page = confirm(client, "deadletter", "redrive", page)
    assert texts(page) == "2 dead letters are on their queues again."
    assert DeadLetter.objects.count() == 1
    assert Delivery.objects.count() == 2
    entry = LogEntry.objects.get()
    assert entry.get_change_message() == "Dead letters redriven: 2."
    assert entry.user.username == "staff0"


def test_the_page_of_a_dead_letter_leads_to_its_confirmation(bury: Any, staff: Any) -> None:
    (dead,) = bury()
    client = staff(*DEAD_RIGHTS)
    page = client.get(address("deadletter", "change", dead.pk))
    (link, _) = page.context["links"][0]
    page = client.get(link)
    assert f"Dead letter {dead.pk}" in visible(page)
    assert "is on its queue again" in texts(confirm(client, "deadletter", "redrive", page))


def test_a_confirmation_shows_five_samples_and_how_many_more(bury: Any, staff: Any) -> None:
    page = choose(staff(*DEAD_RIGHTS), "deadletter", "discard", bury(7))
    assert visible(page).count("Dead letter ") == 5
    assert "and 2 more" in visible(page)


def test_confirming_twice_moves_once(bury: Any, staff: Any) -> None:
    client = staff(*DEAD_RIGHTS)
    page = choose(client, "deadletter", "redrive", bury(2))
    confirm(client, "deadletter", "redrive", page)
    again = confirm(client, "deadletter", "redrive", page)
    assert "Skipped 2: they are gone, or somebody was faster." in texts(again)
    assert Delivery.objects.count() == 2


def test_a_row_that_went_before_the_confirmation_is_skipped(bury: Any, staff: Any) -> None:
    dead = bury(2)
    client = staff(*DEAD_RIGHTS)
    page = choose(client, "deadletter", "redrive", dead)
    dead[0].delete()
    page = confirm(client, "deadletter", "redrive", page)
    assert "1 dead letter is on its queue again." in texts(page)
    assert "Skipped 1" in texts(page)


def test_an_action_on_no_rows_does_nothing_and_says_so(bury: Any, staff: Any) -> None:
    bury()
    client = staff(*DEAD_RIGHTS)
    client.post(address("deadletter"), {"action": "redrive", "index": "0"})
    page = client.get(address("deadletter"))
    assert "No items have been changed" in texts(page)
    page = client.get(address("deadletter", "operate", "redrive") + "?id=0", follow=True)
    assert "None of what was selected is there any more." in texts(page)
    assert DeadLetter.objects.count() == 1


def test_everything_that_matches_a_filter_is_redriven_and_nothing_else(
    letters: Queue, bury: Any, staff: Any, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "MAX_IDS", 3)
    bury(7)
    bury(2, origin=queue("other"))
    client = staff(*DEAD_RIGHTS)
    query = f"origin__id__exact={letters.pk}"
    shown = DeadLetter.objects.filter(origin=letters)[:2]
    page = choose(client, "deadletter", "redrive", shown, query, select_across="1")
    assert "7 dead letters:" in visible(page)
    bury(2)  # after the confirmation page: not among what was confirmed
    page = confirm(client, "deadletter", "redrive", page)
    assert "7 dead letters are on their queues again." in texts(page)
    assert DeadLetter.objects.filter(origin=letters).count() == 2
    assert DeadLetter.objects.exclude(origin=letters).count() == 2


def test_a_few_that_match_a_filter_are_kept_by_their_ids(bury: Any, staff: Any) -> None:
    dead = bury(2)
    client = staff(*DEAD_RIGHTS)
    page = choose(client, "deadletter", "discard", dead, select_across="1")
    bury(2)
    confirm(client, "deadletter", "discard", page)
    assert DeadLetter.objects.count() == 2


def test_what_is_too_much_for_one_request_is_offered_again(
    bury: Any, staff: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "MAX_IDS", 2)
    monkeypatch.setattr(operations, "AT_ONCE", 3)
    client = staff(*DEAD_RIGHTS)
    page = choose(client, "deadletter", "discard", bury(5), select_across="1")
    page = confirm(client, "deadletter", "discard", page)
    assert "Confirm again to go on" in texts(page)
    assert "2 dead letters:" in visible(page)
    confirm(client, "deadletter", "discard", page)
    assert not DeadLetter.objects.exists()


def test_a_dead_letter_without_a_queue_is_refused_with_the_reason(
    letters: Queue, bury: Any, staff: Any
) -> None:
    dead = bury()
    Queue.objects.filter(pk=letters.pk).delete()
    client = staff(*DEAD_RIGHTS)
    page = choose(client, "deadletter", "redrive", dead)
    page = confirm(client, "deadletter", "redrive", page)
    assert "no longer exists" in texts(page)
    assert DeadLetter.objects.count() == 1


# scheduled deliveries


def test_scheduled_deliveries_are_delivered_now(letters: Queue, staff: Any) -> None:
    send_many("letters", range(2), delay=3600)
    client = staff("view_scheduled", "redrive_deadletter")
    page = choose(client, "scheduled", "retry", Scheduled.objects.all())
    assert "2 deliveries are ready." in texts(confirm(client, "scheduled", "retry", page))
    assert Delivery.objects.count() == 2


def test_scheduled_deliveries_are_cancelled(letters: Queue, staff: Any) -> None:
    send("letters", 1, delay=3600)
    client = staff("view_scheduled", "purge_queue")
    page = choose(client, "scheduled", "cancel", Scheduled.objects.all())
    assert "1 delivery was cancelled." in texts(confirm(client, "scheduled", "cancel", page))
    assert not Delivery.objects.exists()
    assert not Scheduled.objects.exists()
    assert Message.objects.count() == 1


def test_scheduled_messages_are_moved_and_stay_scheduled(
    letters: Queue, queue: Any, staff: Any
) -> None:
    parcels = queue("parcels")
    send_many("letters", range(3), delay=3600)
    kept, *moved = Scheduled.objects.order_by("pk")
    client = staff("view_scheduled", "consume_queue")
    page = choose(client, "scheduled", "move", moved)
    assert "2 messages were moved." in texts(
        confirm(client, "scheduled", "move", page, to="parcels")
    )
    assert Scheduled.objects.filter(queue=parcels).count() == 2
    assert Scheduled.objects.get(queue=letters) == kept
    page = choose(client, "scheduled", "move", [kept])
    assert "Unknown queue" in texts(confirm(client, "scheduled", "move", page, to="parcel"))


def test_bodies_of_scheduled_messages_are_edited(letters: Queue, staff: Any) -> None:
    send_many("letters", [{"country": "UK"}] * 2, delay=3600)
    client = staff("view_scheduled", "edit_message")
    page = choose(client, "scheduled", "edit", Scheduled.objects.order_by("pk")[:1])
    assert confirm(client, "scheduled", "edit", page, patch="{").context["form"].errors["patch"]
    page = confirm(client, "scheduled", "edit", page, patch='{"country": "GB"}')
    assert "1 message was edited." in texts(page)
    bodies = Message.objects.order_by("pk").values_list("body", flat=True)
    assert list(bodies) == [{"country": "GB"}, {"country": "UK"}]


def test_scheduled_messages_become_dead_letters_with_the_reason_given(
    letters: Queue, staff: Any
) -> None:
    send_many("letters", range(2), delay=3600)
    client = staff("view_scheduled", "redrive_deadletter")
    page = choose(client, "scheduled", "bury", Scheduled.objects.all())
    page = confirm(client, "scheduled", "bury", page, reason="wrong address")
    assert "2 messages are dead letters." in texts(page)
    assert set(DeadLetter.objects.values_list("reason", "description")) == {
        ("manual", "wrong address")
    }


def test_dead_letters_are_redriven_to_another_queue(bury: Any, staff: Any, queue: Any) -> None:
    other = queue("other")
    client = staff(*DEAD_RIGHTS)
    page = choose(client, "deadletter", "redrive", bury(2))
    for name, problem in (
        ("othr", "Did you mean 'other'"),
        ("no queue", "Invalid queue name"),
        ("letters.dlq", "is the one that holds them"),
    ):
        refused = confirm(client, "deadletter", "redrive", page, to=name)
        assert problem in texts(refused), texts(refused)
        assert DeadLetter.objects.count() == 2
    page = confirm(client, "deadletter", "redrive", page, to="other")
    assert "2 dead letters are on their queues again." in texts(page)
    assert Delivery.objects.filter(queue=other).count() == 2


# leases and keys


def test_leases_are_released_and_their_messages_ready_again(letters: Queue, staff: Any) -> None:
    hold(letters, 2, worker="web/1")
    client = staff("view_lease", "consume_queue")
    page = choose(client, "lease", "release", Lease.objects.all())
    assert "of letters, held by web/1" in visible(page)
    assert "2 messages are ready again." in texts(confirm(client, "lease", "release", page))
    assert Delivery.objects.count() == 2
    assert not Lease.objects.exists()


def test_a_parked_key_is_let_go_on(letters: Queue, staff: Any) -> None:
    keyed("letters", 1, 2, key="customer 7")
    Delivery.objects.all().delete()
    Lane.objects.update(parked_at=timezone.now(), tokens=0)
    client = staff("view_lane", "redrive_deadletter")
    page = choose(client, "lane", "release", Lane.objects.all())
    assert "Key customer 7 of letters: parked since" in visible(page)
    page = confirm(client, "lane", "release", page)
    assert "1 key goes on." in texts(page)
    assert Delivery.objects.count() == 1
    assert not Lane.objects.filter(parked_at__isnull=False).exists()
    assert LogEntry.objects.get().get_change_message() == "Ordering keys released: 1."


# queues


def test_queues_are_disabled_and_enabled(letters: Queue, staff: Any) -> None:
    client = staff(*QUEUE_RIGHTS)
    page = confirm(client, "queue", "disable", choose(client, "queue", "disable", [letters]))
    assert "1 queue is disabled." in texts(page)
    assert "disabled by staff0" in visible(page)
    labels = [str(label) for _, label in _links(client, letters)]
    assert "Enable" in labels
    assert "Disable" not in labels
    page = confirm(client, "queue", "enable", choose(client, "queue", "enable", [letters]))
    assert "1 queue is enabled." in texts(page)
    letters.refresh_from_db()
    assert not letters.is_disabled


def _links(client: Client, queue: Queue) -> Any:
    return client.get(address("queue", "change", queue.pk)).context["links"]


def test_queues_are_paused_with_a_reason_and_resumed(letters: Queue, staff: Any) -> None:
    client = staff(*QUEUE_RIGHTS)
    page = choose(client, "queue", "pause", [letters])
    page = confirm(client, "queue", "pause", page, reason="gateway down")
    assert "1 queue is paused." in texts(page)
    assert "paused by staff0" in visible(page)
    assert "gateway down" in visible(page)
    page = choose(client, "queue", "resume", [letters])
    assert "1 queue is resumed." in texts(confirm(client, "queue", "resume", page))
    letters.refresh_from_db()
    assert not letters.is_paused
    page = client.get(address("queue", "history", letters.pk))
    assert "Paused: gateway down" in visible(page)


@pytest.mark.parametrize("reason", ["x" * 201, "a\0b"])
def test_a_reason_that_cannot_be_stored_is_an_error_of_its_field(
    letters: Queue, staff: Any, reason: str
) -> None:
    client = staff(*QUEUE_RIGHTS)
    page = choose(client, "queue", "pause", [letters])
    page = confirm(client, "queue", "pause", page, reason=reason)
    assert page.context["form"].errors["reason"]
    letters.refresh_from_db()
    assert not letters.is_paused


def test_a_queue_is_purged_when_its_name_is_typed(letters: Queue, staff: Any) -> None:
    send_many("letters", range(3))
    send("letters", 1, delay=60)
    client = staff(*QUEUE_RIGHTS)
    page = choose(client, "queue", "purge", [letters])
    assert "letters: 3 ready, 1 scheduled" in visible(page)
    send("letters", "sent while the page was open")
    page = confirm(client, "queue", "purge", page, typed="letter")
    assert page.context["form"].errors["typed"]
    assert Delivery.objects.count() == 4
    page = confirm(client, "queue", "purge", page, typed="letters")
    assert "4 messages were deleted." in texts(page)
    assert Delivery.objects.count() == 1
    assert LogEntry.objects.get().get_change_message() == "Queue purged: 4."


def test_several_queues_are_purged_when_the_word_is_typed(
    letters: Queue, queue: Any, staff: Any
) -> None:
    queue("parcels")
    send("letters", 1)
    send("parcels", 1)
    client = staff(*QUEUE_RIGHTS)
    page = choose(client, "queue", "purge", Queue.objects.filter(name__in=["letters", "parcels"]))
    assert "2 messages" in texts(confirm(client, "queue", "purge", page, typed="purge"))


# who may


RIGHTS = [
    ("queue", "pause", "pause_queue"),
    ("queue", "resume", "pause_queue"),
    ("queue", "disable", "pause_queue"),
    ("queue", "enable", "pause_queue"),
    ("queue", "purge", "purge_queue"),
    ("deadletter", "redrive", "redrive_deadletter"),
    ("deadletter", "discard", "redrive_deadletter"),
    ("scheduled", "retry", "redrive_deadletter"),
    ("scheduled", "bury", "redrive_deadletter"),
    ("scheduled", "cancel", "purge_queue"),
    ("scheduled", "move", "consume_queue"),
    ("scheduled", "edit", "edit_message"),
    ("lease", "release", "consume_queue"),
    ("lane", "release", "redrive_deadletter"),
]


@pytest.mark.parametrize(("model", "name", "permission"), RIGHTS)
def test_each_operation_takes_its_own_permission(
    model: str,
    name: str,
    permission: str,
    everything: dict[str, int],
    staff: Callable[..., Client],
    caplog: pytest.LogCaptureFixture,
) -> None:
    counts = _counts()
    row = [_Row(everything[model])]
    others = {right for _, _, right in RIGHTS} - {permission}
    for client in (staff(f"view_{model}"), staff(f"view_{model}", *others), staff(permission)):
        token = _forged(model, name, client, everything[model])
        caplog.clear()
        assert choose(client, model, name, row).status_code == 403
        url = address(model, "operate", name)
        assert client.get(f"{url}?id={everything[model]}").status_code == 403
        assert client.post(url, {"token": token, "typed": "letters"}).status_code == 403
        assert _counts() == counts
    assert any(f"Operation refused operation={name}" in each for each in caplog.messages)
    allowed = choose(staff(f"view_{model}", permission), model, name, row)
    assert allowed.status_code == 200


class _Row:
    def __init__(self, pk: int) -> None:
        self.pk = pk


def _forged(model: str, name: str, client: Client, pk: int) -> str:
    """Return a token as the site itself would have made it for this user."""
    purpose = f"{name} messaging.{model} {client.session['_auth_user_id']}"
    content = {"for": purpose, "chosen": {"ids": [pk]}, "upto": [10**9] * 4}
    return signing.dumps(content, salt=operations.SALT, compress=True)


def _counts() -> tuple[int, ...]:
    stopped = Queue.objects.exclude(paused_at=None, disabled_at=None).count()
    models = (DeadLetter, Scheduled, Delivery, Lease)
    return (stopped, *(model.objects.count() for model in models))


def test_staff_alone_sees_nothing(everything: dict[str, int], staff: Any) -> None:
    client = staff()
    for model, pk in everything.items():
        assert client.get(address(model)).status_code == 403
        assert client.get(address(model, "change", pk)).status_code == 403
    assert "Messaging" not in visible(client.get("/admin/"))


def test_who_is_not_logged_in_is_asked_to(everything: dict[str, int], client: Client) -> None:
    for url in (address("queue"), address("queue", "operate", "purge") + "?id=1"):
        assert client.get(url).headers["Location"].startswith("/admin/login/")
        assert client.post(url).headers["Location"].startswith("/admin/login/")


def test_rows_that_nobody_may_edit_refuse_it_to_everybody(
    everything: dict[str, int], root: Client
) -> None:
    for model in set(MODELS) - {"queue", "topic", "subscription", "schedule", "webhook"}:
        assert root.get(address(model, "add")).status_code == 403
        assert root.post(address(model, "change", everything[model]), {}).status_code == 403
        assert root.post(address(model, "delete", everything[model]), {}).status_code == 403
        row = [_Row(everything[model])]
        assert choose(root, model, "delete_selected", row, post="yes").status_code == 403
    assert DeadLetter.objects.count() == Scheduled.objects.count() == 1


def test_an_action_without_the_csrf_token_is_refused(bury: Any, staff: Any) -> None:
    dead = bury()
    client = staff(*DEAD_RIGHTS, strict=True)
    assert choose(client, "deadletter", "redrive", dead).status_code == 403
    page = client.get(address("deadletter", "operate", "redrive") + f"?id={dead[0].pk}")
    refused = client.post(address("deadletter", "operate", "redrive"), {"token": token_of(page)})
    assert refused.status_code == 403
    assert DeadLetter.objects.count() == 1


# tokens


@pytest.mark.parametrize("token", ["", "x", "a:b:c", "\0", "é"])
def test_a_forged_token_does_nothing(bury: Any, staff: Any, token: str) -> None:
    bury()
    client = staff(*DEAD_RIGHTS)
    page = client.post(address("deadletter", "operate", "redrive"), {"token": token})
    assert page.status_code == 403
    assert DeadLetter.objects.count() == 1


def test_a_confirmation_is_for_one_operation_and_one_person(bury: Any, staff: Any) -> None:
    dead = bury()
    client, other = staff(*DEAD_RIGHTS), staff(*DEAD_RIGHTS)
    token = token_of(choose(client, "deadletter", "redrive", dead))
    url = address("deadletter", "operate", "discard")
    assert client.post(url, {"token": token}).status_code == 403
    url = address("deadletter", "operate", "redrive")
    assert other.post(url, {"token": token}).status_code == 403
    assert DeadLetter.objects.count() == 1


def test_an_old_confirmation_is_asked_for_again(
    bury: Any, staff: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = staff(*DEAD_RIGHTS)
    page = choose(client, "deadletter", "redrive", bury())
    monkeypatch.setattr(operations, "MAX_AGE", -1)
    page = confirm(client, "deadletter", "redrive", page)
    assert "too old" in texts(page)
    assert DeadLetter.objects.count() == 1


@pytest.mark.parametrize("chosen", ["abc", "\0", "9" * 5000, "-1", "99999999999999999999"])
def test_a_selection_that_is_none_does_nothing(bury: Any, staff: Any, chosen: str) -> None:
    bury()
    client = staff(*DEAD_RIGHTS)
    data = {SELECTED: chosen, "action": "redrive", "index": "0"}
    page = client.post(address("deadletter"), data, follow=True)
    assert "not valid" in texts(page)
    page = client.get(address("deadletter", "operate", "redrive"), {"id": chosen}, follow=True)
    assert page.status_code == 200
    assert DeadLetter.objects.count() == 1


def test_an_operation_that_does_not_exist_is_not_found(root: Client) -> None:
    assert root.get(address("queue", "operate", "explode") + "?id=1").status_code == 404
