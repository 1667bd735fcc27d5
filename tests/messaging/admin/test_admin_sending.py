"""The page that sends a test message: what it sends, and what it says about what it cannot."""

from typing import Any

import pytest
from admin_pages import address, texts, visible
from django.contrib.admin.models import LogEntry
from django.test import Client

from messaging import control
from messaging.models import Delivery, Message, Queue, Scheduled
from messaging.store.connection import connection_for, run

RIGHTS = ("view_queue", "view_topic", "publish_message")


def post(client: Client, row: Any, **values: Any) -> Any:
    data = {"body": "{}", "headers": "", "priority": "0", "delay": "0"}
    return client.post(address(row._meta.model_name, "send", row.pk), data | values, follow=True)


def test_a_test_message_goes_to_its_queue_as_it_was_written(letters: Queue, staff: Any) -> None:
    client = staff(*RIGHTS)
    page = post(
        client,
        letters,
        body='{"order": 42, "exact": 123456789012345678901234567890}',
        headers='{"trace": "abc"}',
        priority="7",
    )
    message = Message.objects.get()
    assert message.body == {"order": 42, "exact": 123456789012345678901234567890}
    assert message.headers == {"trace": "abc"}
    assert Delivery.objects.get().priority == 7
    assert f"{message.pk}</a> is on its way" in texts(page)
    assert LogEntry.objects.get().get_change_message() == f"Test message {message.pk} sent."


def test_a_test_message_is_published_to_its_topic(topic: Any, subscribe: Any, staff: Any) -> None:
    sent = topic("letters.sent")
    subscribe("letters.*", "archive")
    post(staff(*RIGHTS), sent, body="[1, null]")
    assert Message.objects.get().topic == sent
    assert Delivery.objects.get().queue.name == "archive"


def test_a_test_message_can_wait(letters: Queue, staff: Any) -> None:
    post(staff(*RIGHTS), letters, delay="60")
    assert Scheduled.objects.count() == 1


@pytest.mark.parametrize("body", ["null", "0", '""', "false", "[]", "{}"])
def test_every_json_value_is_a_body(letters: Queue, staff: Any, body: str) -> None:
    post(staff(*RIGHTS), letters, body=body)
    (text,) = run(connection_for(), "SELECT body::text FROM messaging_message")[0]
    assert text == body


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "required"),
        ("{", "This is not JSON: Expecting property name"),
        ("{'a': 1}", "This is not JSON"),
        ('{"a": NaN}', "$.a"),
        ('{"a": [1, Infinity]}', "$.a[1]"),
        ("1e999", "inf"),
        ('{"a": "\\u0000"}', "NUL"),
        ("a\0b", "Null characters"),
        ('"\\ud800"', "lone surrogate"),
        ("[" * 3_000, "This is"),
        ("[" * 100_000, "This is"),
        ("[" * 65 + "]" * 65, "64 levels"),
        ("9" * 5_000, "digits"),
        ("-" + "9" * 5_000, "digits"),
        ('"' + "x" * 1_100_000 + '"', "the limit is 1,048,576"),
    ],
)
def test_a_body_that_cannot_be_sent_is_an_error_of_its_field(
    letters: Queue, staff: Any, body: str, reason: str
) -> None:
    page = post(staff(*RIGHTS), letters, body=body)
    assert page.status_code == 200
    assert reason in " ".join(page.context["form"].errors["body"])
    assert not Message.objects.exists()


@pytest.mark.parametrize(
    "headers",
    [
        "{",
        "[]",
        "7",
        '{"a": {}}',
        '{"a": "x\\r\\ny"}',
        '{"x-messaging-id": 1}',
        '{"": 1}',
        '{"a": NaN}',
        "[" * 100_000,
        "\0",
    ],
)
def test_headers_that_cannot_be_sent_are_an_error_of_their_field(
    letters: Queue, staff: Any, headers: str
) -> None:
    page = post(staff(*RIGHTS), letters, headers=headers)
    assert page.context["form"].errors["headers"]
    assert not Message.objects.exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", "101"),
        ("priority", "x"),
        ("priority", "9" * 5_000),
        ("delay", "-1"),
        ("delay", "nan"),
        ("delay", "1e300"),
    ],
)
def test_an_option_out_of_range_is_an_error_of_its_field(
    letters: Queue, staff: Any, field: str, value: str
) -> None:
    page = post(staff(*RIGHTS), letters, **{field: value})
    assert page.context["form"].errors[field]
    assert not Message.objects.exists()


def test_the_page_says_that_the_queue_is_paused(letters: Queue, staff: Any) -> None:
    control.pause(letters)
    page = staff(*RIGHTS).get(address("queue", "send", letters.pk))
    assert "The queue is paused" in visible(page)


def test_sending_takes_its_own_permission(letters: Queue, staff: Any) -> None:
    for client in (staff("view_queue", "change_queue", "purge_queue"), staff("publish_message")):
        assert client.get(address("queue", "send", letters.pk)).status_code == 403
        assert post(client, letters).status_code == 403
        data = {"action": "send_test_message", "_selected_action": letters.pk, "index": "0"}
        assert client.post(address("queue"), data).status_code == 403
    assert not Message.objects.exists()


def test_the_list_leads_to_the_page_of_the_one_queue_chosen(letters: Queue, staff: Any) -> None:
    client = staff(*RIGHTS)
    data = {"action": "send_test_message", "index": "0"}
    page = client.post(address("queue"), data | {"_selected_action": letters.pk})
    assert page.headers["Location"] == address("queue", "send", letters.pk)
    both = [letters.pk, letters.dead_letter_queue_id]
    page = client.post(address("queue"), data | {"_selected_action": both}, follow=True)
    assert "one, and only one" in texts(page)


@pytest.mark.parametrize("pk", ["0", "abc", "9" * 30, "_00"])
def test_a_queue_that_does_not_exist_has_no_page(root: Client, db: None, pk: str) -> None:
    assert root.get(f"{address('queue')}{pk}/send/").status_code == 404
