"""Lists of the admin: every address answers, none counts or sorts a large table."""

import re
from typing import Any

import pytest
from admin_pages import MODELS, address, texts, visible
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rows import hold, keyed

from messaging import send_many
from messaging.admin import lists
from messaging.models import Attempt, Idempotency, Lane, Message, Queue

HOT = ("message", "attempt", "deadletter", "scheduled", "lease", "idempotency")


@pytest.mark.parametrize("model", MODELS)
def test_every_list_and_every_row_has_a_page(
    model: str, everything: dict[str, int], root: Client
) -> None:
    assert root.get(address(model)).status_code == 200
    page = root.get(address(model, "change", everything[model]))
    assert page.status_code == 200
    assert root.get(address(model, "history", everything[model])).status_code == 200


WRONG = (
    "name=%00",
    "name__exact=%00",
    "name__in=%00",
    "name__regex=(",
    "payload__a%22=1",
    "body__a%22=1",
    "id=abc",
    "id=99999999999999999999",
    "id__in=1,x",
    "queue__id__exact=abc",
    "queue__id__exact=99999999999999999999",
    "queue__id__exact=%00",
    "queue__id__exact=" + "9" * 5000,
    "queue__isnull=maybe",
    "queue__name__startswith=a",
    "reason=%00",
    "reason__exact=nonsense",
    "is_active__exact=maybe",
    "origin__id__exact=-1",
    "o=zzz",
    "o=-1.99.%00",
    "p=abc",
    "p=99999",
    "p=-1",
    "q=%00",
    "q=" + "9" * 5000,
    "q=%22%27;--",
    "all=",
    "e=1",
    "_facets=True",
    "%00=1",
    "undeclared=1&e=1",
)


@pytest.mark.parametrize("model", MODELS)
def test_no_address_breaks_a_list(model: str, everything: dict[str, int], root: Client) -> None:
    for query in WRONG:
        page = root.get(f"{address(model)}?{query}")
        assert page.status_code in (200, 302), query
        if page.status_code == 302:
            assert page.headers["Location"].endswith("?e=1"), query


@pytest.mark.parametrize(
    "query", ["name=letters", "queue__name=letters", "body__n=1", "id=1", "created_at__year=2025"]
)
def test_a_field_that_no_filter_declares_is_not_looked_up(
    query: str, everything: dict[str, int], root: Client
) -> None:
    for model in MODELS:
        page = root.get(f"{address(model)}?{query}")
        assert page.headers["Location"].endswith("?e=1")


@pytest.mark.parametrize("model", MODELS)
def test_no_address_breaks_a_row(model: str, everything: dict[str, int], root: Client) -> None:
    for pk in ("abc", "_00", "99999999999999999999", "9" * 5000, "1_2F2", "0"):
        for view in ("change", "history", "delete"):
            page = root.get(f"{address(model)}{pk}/{view}/")
            assert page.status_code in (302, 403, 404), (pk, view)


@pytest.mark.parametrize("term", ["%00", "9" * 5000, "let"])
def test_no_term_breaks_the_choice_of_a_queue(
    term: str, everything: dict[str, int], root: Client
) -> None:
    where = "app_label=messaging&model_name=subscription&field_name=queue"
    page = root.get(f"/admin/autocomplete/?{where}&term={term}")
    assert page.status_code == 200


@pytest.mark.parametrize("model", HOT)
def test_no_list_counts_scans_or_sorts_a_large_table(
    model: str, everything: dict[str, int], bury: Any, root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists.GuardedAdmin, "list_per_page", 1)
    send_many("letters", range(3), delay=60)
    hold(Queue.objects.get(name="letters"), 3)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE messaging_scheduled, messaging_lease, messaging_lane")
    bury(3)
    for number in range(3):
        Idempotency.objects.create(scope="s", key=str(number))
        Attempt.objects.create(
            message_id=1, queue_id=1, attempt=number, outcome="retry", worker="w", duration=0
        )
    origin = f"origin__id__exact={everything['queue']}"
    queue = f"queue__id__exact={everything['queue']}"
    for query in ("", "q=1", "p=2", origin if model == "deadletter" else queue):
        page, statements = _statements(root, f"{address(model)}?{query}")
        hot = [sql for sql in statements if f'FROM "messaging_{model}"' in sql]
        assert page.status_code == 302 or len(hot) >= 2
        in_window = model == "message" and query == queue
        for sql in hot:
            assert "COUNT" not in sql or re.search(r"LIMIT 10001\) subquery$", sql), sql
            assert "LIMIT" in sql or "q=" in query, sql
            assert f"Seq Scan on messaging_{model}" not in _plan(sql), sql
            sorts = re.search(r"(?<!Incremental )Sort  ", _plan(sql))
            assert not sorts or in_window or "q=" in query, sql
        assert not in_window or all('"id" > ' in sql for sql in hot[1:])


def _statements(client: Client, url: str) -> tuple[Any, list[str]]:
    with CaptureQueriesContext(connection) as queries:
        page = client.get(url)
    return page, [query["sql"] for query in queries.captured_queries]


def _plan(sql: str) -> str:
    """Return how a statement runs where an index is worth its while."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {sql}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
        cursor.execute("SET LOCAL enable_seqscan = on")
    return plan


@pytest.mark.parametrize("model", MODELS)
def test_a_list_takes_as_many_statements_for_fifty_rows_as_for_one(
    model: str, everything: dict[str, int], bury: Any, root: Client
) -> None:
    root.get(address(model))
    _, few = _statements(root, address(model))
    send_many("letters", range(60))
    send_many("letters", range(60), delay=60)
    hold(Queue.objects.get(name="letters"), 60)
    for number in range(60):
        keyed("letters", number, key=f"key {number}")
    bury(60)
    for number in range(60):
        Queue.objects.create(name=f"q{number}")
    _, many = _statements(root, address(model))
    assert len(many) == len(few)
    assert len(few) <= 12


def test_a_list_with_more_than_it_counts_says_so(
    bury: Any, root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "COUNT_LIMIT", 120)
    bury(130)
    page = root.get(address("deadletter"))
    assert "120+ dead letters" in visible(page)
    assert "All 120+ selected" in page.content.decode()
    assert root.get(address("deadletter") + "?p=3").status_code == 200
    assert root.get(address("deadletter") + "?p=4").status_code == 302


def test_a_list_stays_in_its_order_whatever_the_address_asks(letters: Queue, root: Client) -> None:
    send_many("letters", range(3))
    newest = list(Message.objects.order_by("-pk").values_list("pk", flat=True))
    page = root.get(address("message") + "?o=1.2.3")
    assert [row.pk for row in page.context["cl"].result_list] == newest


def test_a_list_that_takes_too_long_is_given_up_and_says_so(
    letters: Queue, root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "PATIENCE", 0.2)
    monkeypatch.setattr(lists, "bounded_count", _endless)
    page = root.get(address("message"))
    assert page.status_code == 503
    assert "Narrow the filter" in texts(page)


def _endless(rows: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(60)")
    return 0


def test_a_message_is_found_by_its_id(letters: Queue, root: Client) -> None:
    first, _ = send_many("letters", range(2))
    page = root.get(address("message") + f"?q={first}")
    assert [row.pk for row in page.context["cl"].result_list] == [first]
    page = root.get(address("message") + "?q=nothing")
    assert list(page.context["cl"].result_list) == []


def test_a_dead_letter_is_found_by_message_and_by_fingerprint(bury: Any, root: Client) -> None:
    first, second = *bury(fingerprint="a" * 32), *bury(fingerprint="b" * 32)
    for term, found in ((first.message_id, first), ("b" * 32, second), (second.pk, second)):
        page = root.get(address("deadletter") + f"?q={term}")
        assert found in page.context["cl"].result_list


def test_an_idempotency_record_is_found_by_scope_and_key(
    everything: dict[str, int], root: Client
) -> None:
    for term, count in (("charge", 1), ("charge 1", 1), ("charge 2", 0), ("refund", 0)):
        page = root.get(address("idempotency"), {"q": term})
        assert len(page.context["cl"].result_list) == count


def test_a_filter_offers_a_hundred_queues_and_the_chosen_one(letters: Queue, root: Client) -> None:
    Queue.objects.bulk_create(Queue(name=f"a{number:03}") for number in range(150))
    page = root.get(address("scheduled") + f"?queue__id__exact={letters.pk}")
    (chosen,) = page.context["cl"].filter_specs
    assert len(chosen.lookup_choices) == 101
    assert (letters.pk, "letters") in chosen.lookup_choices


def test_the_list_of_what_is_scheduled_shows_no_token_of_a_key(
    everything: dict[str, int], root: Client
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """WITH token AS (DELETE FROM messaging_delivery WHERE lane_id IS NOT NULL RETURNING *)
            INSERT INTO messaging_scheduled
                (queue_id, priority, message_id, attempt, lane_id, due_at)
            SELECT queue_id, 0, 0, 1, lane_id, now() + interval '1 hour' FROM token"""
        )
    page = root.get(address("scheduled"))
    assert [row.pk for row in page.context["cl"].result_list] == [everything["scheduled"]]
    assert "waits until" in visible(root.get(address("lane")))


def test_keys_are_found_by_their_state_and_by_the_whole_key(letters: Queue, root: Client) -> None:
    keyed("letters", 1, 2, 3, key="customer 7")
    keyed("letters", 1, key="customer 70")
    Lane.objects.filter(key="customer 7").update(parked_at=timezone.now())
    page = root.get(address("lane") + f"?parked=1&queue__id__exact={letters.pk}")
    (parked,) = page.context["cl"].result_list
    assert (parked.key, parked.waiting) == ("customer 7", 3)
    assert "parked since" in visible(page)
    page = root.get(address("lane"), {"q": "customer 7"})
    assert [row.key for row in page.context["cl"].result_list] == ["customer 7"]
    assert "parked keys" in visible(root.get(address("queue", "change", letters.pk)))


def test_a_list_shows_deliveries_of_a_queue_that_is_gone(
    everything: dict[str, int], letters: Queue, root: Client
) -> None:
    Queue.objects.filter(pk=letters.pk).delete()
    for model in ("message", "attempt", "deadletter", "scheduled", "lease", "lane"):
        page = root.get(address(model))
        assert "no longer exists" in visible(page)
        assert len(page.context["cl"].result_list) >= 1
        page = root.get(address(model, "change", everything[model]))
        assert "no longer exists" in visible(page)
