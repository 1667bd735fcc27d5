"""Queues, topics and subscriptions in the admin: edited with care, deleted with more."""

from collections.abc import Callable
from typing import Any

import pytest
from admin_pages import address, texts, version_of, visible
from django.contrib.admin.models import LogEntry
from django.test import Client

from messaging import send, send_many
from messaging.engines import wakeup
from messaging.models import Delivery, Queue, Subscription, Topic

NO_INLINES = {
    "subscriptions-TOTAL_FORMS": "0",
    "subscriptions-INITIAL_FORMS": "0",
}
QUEUE = {
    "description": "",
    "max_deliveries": "5",
    "backoff": "exponential",
    "backoff_base": "10",
    "backoff_cap": "600",
    "backoff_delays": "[]",
    "jitter": "full",
    "visibility_timeout": "30",
    "retention": "604800",
    "overflow": "reject",
    "weight": "1",
    "on_failure": "block",
    "deduplication_window": "300",
    **NO_INLINES,
}
UNDECODABLE = [
    '{"a": NaN}',
    '{"a": "\\u0000"}',
    "[" * 3_000,
    "[" * 100_000,
    "9" * 5_000,
    '["\\ud800"]',
    "{",
    "\0",
]


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return one alias for each time that the workers would be told to look at everything."""
    told: list[str] = []
    monkeypatch.setattr(wakeup, "announce_change", lambda of: told.append(of.alias))
    return told


def edit(client: Client, queue: Queue, page: Any, **values: Any) -> Any:
    """Send the form of a queue as it was opened, with some values changed."""
    data = {**QUEUE, "dead_letter_queue": queue.dead_letter_queue_id or ""}
    data["version"] = version_of(page)
    return client.post(address("queue", "change", queue.pk), data | values, follow=True)


def errors(page: Any) -> Any:
    return page.context["adminform"].form.errors


# queues


def test_a_new_queue_gets_a_dead_letter_queue_of_its_own(root: Client) -> None:
    data = {**QUEUE, "name": "parcels", "own_dead_letter_queue": "on"}
    page = root.post(address("queue", "add"), data, follow=True)
    assert "was added successfully" in texts(page)
    assert Queue.objects.get(name="parcels").dead_letter_queue.name == "parcels.dlq"


def test_a_new_queue_goes_without_when_told_to(root: Client) -> None:
    root.post(address("queue", "add"), {**QUEUE, "name": "parcels"})
    assert Queue.objects.get(name="parcels").dead_letter_queue is None


def test_a_new_queue_takes_the_dead_letter_queue_chosen(letters: Queue, root: Client) -> None:
    data = {
        **QUEUE,
        "name": "parcels",
        "own_dead_letter_queue": "on",
        "dead_letter_queue": letters.dead_letter_queue_id,
    }
    root.post(address("queue", "add"), data)
    assert Queue.objects.get(name="parcels").dead_letter_queue == letters.dead_letter_queue
    assert not Queue.objects.filter(name="parcels.dlq").exists()


@pytest.mark.parametrize(
    "name", ["", "a b", "../x", "a\0b", "x" * 81, "\u017f", "\u202eabc", "letters"]
)
def test_a_name_that_cannot_be_one_is_an_error_of_its_field(
    letters: Queue, root: Client, name: str
) -> None:
    page = root.post(address("queue", "add"), {**QUEUE, "name": name})
    assert page.status_code == 200
    assert errors(page)["name"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_deliveries", "0"),
        ("max_deliveries", "1001"),
        ("max_deliveries", "9" * 5_000),
        ("backoff", "random"),
        ("backoff_base", "-1"),
        ("backoff_base", "nan"),
        ("backoff_base", "1e400"),
        ("retention", "-1"),
        ("retention", "7d"),
        ("retention", str(2**31)),
        ("deduplication_window", "-1"),
        ("message_ttl", "0"),
        ("message_ttl", "nan"),
        ("visibility_timeout", "-1"),
        ("visibility_timeout", "43201"),
        ("max_length", "0"),
        ("max_length", str(2**31)),
        ("overflow", "explode"),
        ("rate_limit", "0"),
        ("rate_limit", "inf"),
        ("key_rate_limit", "-1"),
        ("concurrency_limit", "0"),
        ("concurrency_limit", "10001"),
        ("weight", "0"),
        ("weight", "101"),
        ("on_failure", "panic"),
        ("dead_letter_queue", "99999999999999999999"),
        ("dead_letter_queue", "abc"),
        ("backoff_delays", "7"),
        ("backoff_delays", "{}"),
        ("backoff_delays", "false"),
        ("backoff_delays", "[-1]"),
        ("backoff_delays", '["soon"]'),
        ("backoff_delays", "[1e999]"),
        *(("backoff_delays", text) for text in UNDECODABLE),
    ],
)
def test_a_value_out_of_range_is_an_error_of_its_field(
    letters: Queue, root: Client, field: str, value: str
) -> None:
    page = root.get(address("queue", "change", letters.pk))
    page = edit(root, letters, page, **{field: value})
    assert page.status_code == 200
    assert errors(page)[field]
    letters.refresh_from_db()
    assert letters.backoff_delays == []


def test_dead_letters_do_not_go_round_in_a_circle(letters: Queue, root: Client) -> None:
    holder = letters.dead_letter_queue
    assert holder is not None
    page = root.get(address("queue", "change", holder.pk))
    page = edit(root, holder, page, dead_letter_queue=letters.pk)
    assert "circle" in str(errors(page)["dead_letter_queue"])


def test_an_edited_queue_is_saved_put_on_record_and_told_to_the_workers(
    letters: Queue, root: Client, changes: list[str], django_capture_on_commit_callbacks: Any
) -> None:
    page = root.get(address("queue", "change", letters.pk))
    with django_capture_on_commit_callbacks(execute=True):
        edit(root, letters, page, max_deliveries="9", backoff="list", backoff_delays="[1, 2.5]")
    letters.refresh_from_db()
    assert (letters.max_deliveries, letters.backoff_delays) == (9, [1, 2.5])
    assert changes == ["default"]
    assert "Max deliveries" in LogEntry.objects.get().get_change_message()


def test_a_name_stays_since_senders_use_it(letters: Queue, topic: Any, root: Client) -> None:
    page = root.get(address("queue", "change", letters.pk))
    edit(root, letters, page, name="parcels")
    letters.refresh_from_db()
    assert letters.name == "letters"
    sent = topic("letters.sent")
    page = root.get(address("topic", "change", sent.pk))
    data = {"name": "other", "retention": "60", "compatibility": "full"}
    data["version"] = version_of(page)
    root.post(address("topic", "change", sent.pk), data)
    sent.refresh_from_db()
    assert (sent.name, sent.retention) == ("letters.sent", 60)


def test_of_two_who_edit_one_queue_the_second_is_told_and_overwrites_nothing(
    letters: Queue, root: Client
) -> None:
    first = root.get(address("queue", "change", letters.pk))
    second = root.get(address("queue", "change", letters.pk))
    edit(root, letters, first, max_deliveries="7")
    page = edit(root, letters, second, max_deliveries="5", retention="3600")
    assert "Somebody else has changed this" in visible(page)
    letters.refresh_from_db()
    assert (letters.max_deliveries, letters.retention) == (7, 604_800)
    again = root.get(address("queue", "change", letters.pk))
    assert "was changed successfully" in texts(edit(root, letters, again, retention="3600"))


def test_a_pause_in_between_is_neither_a_conflict_nor_lost(letters: Queue, root: Client) -> None:
    from messaging import control

    page = root.get(address("queue", "change", letters.pk))
    control.pause(letters, by="olga")
    assert "was changed successfully" in texts(edit(root, letters, page, max_deliveries="7"))
    letters.refresh_from_db()
    assert letters.is_paused


@pytest.mark.django_db(transaction=True)
def test_who_saves_waits_for_who_is_saving_and_then_sees_the_change(
    queue: Callable[..., Queue], elsewhere: Any, until: Any, waiters: Any
) -> None:
    from django.contrib.auth.models import User
    from django.db import transaction

    letters = queue("letters")
    client = Client()
    client.force_login(User.objects.create(username="root", is_staff=True, is_superuser=True))
    page = client.get(address("queue", "change", letters.pk))
    with transaction.atomic():
        Queue.objects.filter(pk=letters.pk).update(max_deliveries=7)
        saving = elsewhere(edit, client, letters, page, max_deliveries="5", retention="3600")
        until(waiters)
    assert "Somebody else has changed this" in visible(saving.result(30))
    letters.refresh_from_db()
    assert (letters.max_deliveries, letters.retention) == (7, 604_800)


def test_subscriptions_are_edited_on_the_page_of_their_queue(letters: Queue, root: Client) -> None:
    page = root.get(address("queue", "change", letters.pk))
    row = {
        "subscriptions-TOTAL_FORMS": "1",
        "subscriptions-0-pattern": "letters.*",
        "subscriptions-0-is_active": "on",
        "subscriptions-0-filter": '{"country": ["GB"]}',
        "subscriptions-0-filter_scope": "body",
        "subscriptions-0-queue": letters.pk,
    }
    edit(root, letters, page, **row)
    found = Subscription.objects.get(queue=letters)
    assert (found.pattern, found.filter) == ("letters.*", {"country": ["GB"]})
    page = edit(root, letters, page, **row | {"subscriptions-0-filter": '{"country": "GB"}'})
    assert "Invalid filter at $.country:" in visible(page)
    page = root.get(address("queue", "change", letters.pk))
    page = edit(root, letters, page, **row | {"subscriptions-0-pattern": "a..b"})
    assert "words of ASCII letters" in visible(page)


def test_a_subscription_that_changed_in_between_is_not_overwritten_either(
    letters: Queue, subscribe: Any, root: Client
) -> None:
    found = subscribe("letters.*", "letters")
    page = root.get(address("subscription", "change", found.pk))
    version = version_of(page)
    Subscription.objects.filter(pk=found.pk).update(pattern="letters.#")
    data = {"pattern": "parcels", "queue": letters.pk, "is_active": "on", "version": version}
    page = root.post(address("subscription", "change", found.pk), data)
    assert "Somebody else has changed this" in visible(page)
    found.refresh_from_db()
    assert found.pattern == "letters.#"


# deletion


def test_a_queue_with_messages_is_not_deleted_and_says_how_many(
    letters: Queue, root: Client
) -> None:
    send_many("letters", range(3))
    url = address("queue", "delete", letters.pk)
    assert "3 ready" in visible(root.get(url))
    root.post(url, {"post": "yes"})
    data = {"action": "delete_selected", "_selected_action": letters.pk, "index": "0"}
    assert "3 ready" in visible(root.post(address("queue"), data))
    root.post(address("queue"), {**data, "post": "yes"})
    assert Queue.objects.filter(pk=letters.pk).exists()
    assert Delivery.objects.count() == 3


def test_a_queue_that_holds_dead_letters_of_another_is_not_deleted(
    letters: Queue, root: Client
) -> None:
    holder = letters.dead_letter_queue
    assert holder is not None
    page = root.get(address("queue", "delete", holder.pk))
    assert "dead-letter queue of letters" in visible(page)


def test_an_idle_queue_is_deleted_and_on_record_once(letters: Queue, root: Client) -> None:
    page = root.post(address("queue", "delete", letters.pk), {"post": "yes"}, follow=True)
    assert "was deleted successfully" in texts(page)
    assert not Queue.objects.filter(pk=letters.pk).exists()
    assert LogEntry.objects.get().get_change_message() == "Queue deleted: 0."


def test_a_message_that_arrives_at_the_last_moment_keeps_the_queue(
    letters: Queue, root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messaging.control.obstacle_to_deletion", lambda queue: "")
    send("letters", 1)
    page = root.post(address("queue", "delete", letters.pk), {"post": "yes"}, follow=True)
    assert "has messages: 1 ready" in texts(page)
    data = {"action": "delete_selected", "_selected_action": letters.pk, "post": "yes"}
    page = root.post(address("queue"), data, follow=True)
    assert "has messages: 1 ready" in texts(page)
    assert Queue.objects.filter(pk=letters.pk).exists()
    assert not LogEntry.objects.exists()


# lists


def test_the_list_of_queues_says_what_waits_and_leads_to_it(
    letters: Queue, bury: Any, root: Client
) -> None:
    send_many("letters", range(3))
    send("letters", 1, delay=60)
    bury(2)
    page = root.get(address("queue") + "?q=letters")
    rows = {row.name: row for row in page.context["cl"].result_list}
    row, holder = rows["letters"], rows["letters.dlq"]
    assert (row.depth.ready, row.depth.scheduled, row.depth.dead) == (3, 1, 2)
    assert holder.depth.held == 2
    html = page.content.decode()
    assert f"{address('deadletter')}?origin__id__exact={letters.pk}" in html
    assert f"{address('deadletter')}?queue__id__exact={holder.pk}" in html
    assert f"{address('scheduled')}?queue__id__exact={letters.pk}" in html


def test_the_list_of_topics_says_where_each_goes(topic: Any, subscribe: Any, root: Client) -> None:
    topic("letters.sent")
    topic("letters.lost")
    subscribe("letters.sent", "archive")
    subscribe("letters.sent", "billing")
    text = visible(root.get(address("topic") + "?q=letters"))
    assert "archive, billing" in text
    assert "nobody" in text


def test_what_people_wrote_is_text_on_every_page(root: Client, bury: Any, letters: Queue) -> None:
    evil = "<script>alert(1)</script>"
    Queue.objects.filter(pk=letters.pk).update(
        description=evil, paused_by=evil, pause_reason=evil, paused_at="2025-01-01T00:00Z"
    )
    (dead,) = bury(
        error=evil, description=evil, traceback=evil, body={evil: evil}, headers={"x": evil}
    )
    topic = Topic.objects.create(name="t", description=evil)
    for url in (
        address("queue"),
        address("queue", "change", letters.pk),
        address("queue", "send", letters.pk),
        address("topic", "change", topic.pk),
        address("deadletter"),
        address("deadletter", "change", dead.pk),
        address("deadletter", "operate", "redrive") + f"?id={dead.pk}",
    ):
        html = root.get(url).content.decode()
        assert evil not in html
        assert "&lt;script&gt;" in html or "queue" in url
