"""Payloads in the admin: shown as they are stored, to those who may see them."""

import re
from typing import Any

import pytest
from admin_pages import address, visible
from django.db import connection
from django.utils import timezone
from rows import hold, keyed

from messaging import control, publish, send
from messaging.admin import payloads
from messaging.models import (
    DeadLetter,
    Delivery,
    Idempotency,
    Lane,
    Lease,
    Message,
    Queue,
    Subscription,
)

RIGHTS = ("view_message", "view_deadletter", "view_idempotency")
DIGITS = "9" * 5_000


def stored(table: str, pk: int, column: str, text: str) -> None:
    """Put JSON into a row that Python would not have written."""
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {column} = %s::jsonb WHERE id = %s", [text, pk])


def test_a_body_is_shown_indented_and_in_short_in_the_list(letters: Queue, staff: Any) -> None:
    message_id = send("letters", {"order": {"id": 42}}, headers={"trace": "abc"})
    client = staff(*RIGHTS, "view_payload")
    text = client.get(address("message", "change", message_id)).content.decode()
    assert "&quot;order&quot;: {\n    &quot;id&quot;: 42\n  }" in text
    assert "&quot;trace&quot;: &quot;abc&quot;" in text
    assert '{"order": {"id": 42}}'.replace('"', "&quot;") in (
        client.get(address("message")).content.decode()
    )


def test_a_payload_is_hidden_from_who_may_not_see_it(letters: Queue, bury: Any, staff: Any) -> None:
    (dead,) = bury(body={"secret": 1}, headers={"secret": 2})
    message_id = send("letters", {"secret": 1}, headers={"secret": 2})
    record = Idempotency.objects.create(scope="s", key="k", result={"secret": 3})
    client = staff(*RIGHTS, "redrive_deadletter")
    for url in (
        address("message"),
        address("message", "change", message_id),
        address("deadletter"),
        address("deadletter", "change", dead.pk),
        address("deadletter", "operate", "redrive") + f"?id={dead.pk}",
        address("idempotency", "change", record.pk),
    ):
        page = client.get(url)
        assert page.status_code == 200
        assert "secret" not in page.content.decode()


@pytest.mark.parametrize("text", [DIGITS, f'{{"n": -{DIGITS}}}'])
def test_a_body_that_python_cannot_decode_is_shown_as_it_is_stored(
    letters: Queue, bury: Any, root: Any, text: str
) -> None:
    (dead,) = bury()
    message_id = send("letters", 1)
    record = Idempotency.objects.create(scope="s", key="k")
    stored("messaging_message", message_id, "body", text)
    stored("messaging_deadletter", dead.pk, "body", text)
    stored("messaging_idempotency", record.pk, "result", text)
    for model, pk in (
        ("message", message_id),
        ("deadletter", dead.pk),
        ("idempotency", record.pk),
    ):
        assert root.get(address(model)).status_code == 200
        page = root.get(address(model, "change", pk))
        assert "Python cannot decode it" in visible(page)
        assert text[-500:].replace('"', "&quot;") in page.content.decode()
    page = root.get(address("deadletter", "operate", "discard") + f"?id={dead.pk}")
    assert page.status_code == 200


@pytest.mark.parametrize("depth", [65, 500, 5_000])
def test_a_body_too_deep_for_lines_is_shown_on_one(letters: Queue, root: Any, depth: int) -> None:
    message_id = send("letters", 1)
    stored("messaging_message", message_id, "body", "[" * depth + "]" * depth)
    assert root.get(address("message")).status_code == 200
    page = root.get(address("message", "change", message_id))
    assert "[" * depth + "]" * depth in page.content.decode()


def test_a_large_body_is_shown_in_part_and_not_read_for_the_list(
    letters: Queue, root: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payloads, "SHOWN", 100)
    monkeypatch.setattr(payloads, "PREVIEWED", 50)
    message_id = send("letters", "x" * 10_000)
    page = root.get(address("message", "change", message_id))
    assert "These are the first 100 of 10002 characters." in visible(page)
    assert "x" * 100 not in page.content.decode()
    assert "(large)" in visible(root.get(address("message")))


def test_a_dead_letter_without_a_payload_says_so(letters: Queue, bury: Any, root: Any) -> None:
    (dead,) = bury(body=None)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE messaging_deadletter SET body = NULL")
    assert "There is none." in visible(root.get(address("deadletter", "change", dead.pk)))
    assert root.get(address("deadletter")).status_code == 200


def test_a_body_cannot_turn_the_text_around_it(letters: Queue, root: Any) -> None:
    message_id = send("letters", "\u202egnp.exe\u2066")
    for url in (address("message"), address("message", "change", message_id)):
        html = root.get(url).content.decode()
        assert "\u202e" not in html
        assert "\\u202e" in html


def test_a_message_says_where_its_dead_letters_are_and_what_failed(
    everything: dict[str, int], root: Any
) -> None:
    text = visible(root.get(address("message", "change", everything["message"])))
    assert "Dead letter of queue letters, held in letters.dlq." in text
    assert "0.250 s" in text
    handled = send("letters", 1)
    Delivery.objects.filter(message_id=handled).delete()
    assert "no dead letter exists" in visible(root.get(address("message", "change", int(handled))))


def test_a_message_says_where_it_waits(letters: Queue, topic: Any, root: Any) -> None:
    def told(message_id: int) -> str:
        return visible(root.get(address("message", "change", int(message_id))))

    topic("letters.sent")
    Subscription.objects.create(pattern="letters.sent", queue=letters)
    assert "Ready on queue letters, delivery 1." in told(send("letters", 1))
    assert "Ready on queue letters, delivery 1." in told(publish("letters.sent", 1))
    assert "Scheduled for queue letters at" in told(send("letters", 1, delay=60))
    (keyed_id,) = keyed("letters", 1, key="customer 7")
    assert "Waits behind key customer 7 on queue letters, delivery 1." in told(keyed_id)
    Lane.objects.update(parked_at=timezone.now())
    assert "Waits behind key customer 7 on queue letters, which is parked since" in told(keyed_id)
    Delivery.objects.all().delete()
    hold(letters, worker="web/1")
    held = Lease.objects.get()
    assert "Of queue letters, held by web/1 until" in told(held.message_id)


def test_a_message_shows_what_it_carries_and_which_one_caused_it(letters: Queue, root: Any) -> None:
    cause = send("letters", 1, correlation_id="trace 5")
    effect = Message.objects.create(
        queue=letters, headers={}, causation_id=int(cause), correlation_id="trace 5", reply_to="me"
    )
    page = root.get(address("message", "change", effect.pk))
    assert "trace 5" in visible(page)
    assert "Reply to: me" in visible(page)
    assert f'href="{address("message", "change", int(cause))}"' in page.content.decode()


def test_a_dead_letter_tells_why_and_after_which_attempts(
    everything: dict[str, int], root: Any
) -> None:
    text = visible(root.get(address("deadletter", "change", everything["deadletter"])))
    for part in ("max deliveries", "ValueError", "no such letter", "Traceback", "w1", "retry"):
        assert part in text


def test_a_dead_letter_tells_of_each_death_of_its_message(letters: Queue, root: Any) -> None:
    message_id = int(send("letters", 1))
    for reason in ("wrong address", "still wrong"):
        control.dead_letter(letters, [message_id], reason=reason, by="olga")
        dead = DeadLetter.objects.get()
        text = visible(root.get(address("deadletter", "change", dead.pk)))
        control.redrive([dead.pk])
    assert "Reason: manual" in text
    history = text.partition("Failed attempts, and deaths:")[2]
    assert re.search("manual +still wrong +olga .* manual +wrong address +olga", history), history
