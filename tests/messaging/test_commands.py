"""Commands of operators: what they do, what they refuse, and with which exit code."""

import builtins
import io
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone
from rows import hold, keyed

from messaging import send, send_many
from messaging.models import DeadLetter, Delivery, Lane, Queue, Scheduled

pytestmark = pytest.mark.django_db


@pytest.fixture
def letters(queue: Callable[..., Queue]) -> Queue:
    return queue("letters", dead_letter_queue=queue("letters.dlq"))


@pytest.fixture
def bury(letters: Queue) -> Callable[[int], list[int]]:
    """Return a function that makes dead letters of the queue."""

    def create(count: int) -> list[int]:
        return [
            DeadLetter.objects.create(
                message_id=10**9 + number,
                queue=letters.dead_letter_queue,
                origin=letters,
                priority=0,
                headers={},
                published_at=timezone.now(),
                attempts=1,
            ).pk
            for number in range(count)
        ]

    return create


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that says what a person at a terminal answers."""

    def answer(text: str) -> None:
        terminal = io.StringIO()
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", terminal)
        monkeypatch.setattr(builtins, "input", lambda question: text)

    return answer


def run(*args: str) -> str:
    out = io.StringIO()
    call_command(*args, stdout=out)
    return out.getvalue().strip()


def refused(*args: str) -> str:
    with pytest.raises(CommandError) as caught:
        call_command(*args)
    assert caught.value.returncode == 2
    return str(caught.value)


# sync_messaging


def test_sync_says_what_it_created_and_the_second_time_that_nothing_is_missing(
    declared: Any,
) -> None:
    declared.queues["parcels"] = {"max_deliveries": 3}
    declared.topics["parcels.sent"] = {}
    assert run("sync_messaging").splitlines() == [
        "Created queue parcels.dlq.",
        "Created queue parcels.",
        "Created topic parcels.sent.",
    ]
    assert Queue.objects.get(name="parcels").dead_letter_queue.name == "parcels.dlq"
    assert run("sync_messaging") == "Nothing is missing."


def test_sync_answers_in_json(declared: Any) -> None:
    declared.topics["parcels.sent"] = {}
    answer = json.loads(run("sync_messaging", "--json"))
    assert answer == {
        "queues": [],
        "topics": ["parcels.sent"],
        "subscriptions": [],
        "schedules": [],
    }


# queues


def test_queues_lists_what_waits_and_who_paused(letters: Queue, bury: Any) -> None:
    send_many("letters", range(3))
    send("letters", 1, delay=60)
    bury(2)
    run("queues", "pause", "letters", "--reason", "gateway down")
    first, second = run("queues", "list", "letters", "letters.dlq").splitlines()[1:]
    assert first.split()[:5] == ["letters", "3", "0", "1", "2"]
    assert "paused by" in first
    assert first.endswith("gateway down")
    assert second.split() == ["letters.dlq", "0", "0", "0", "2", "running"]


def test_queues_counts_what_waits_behind_keys_and_what_is_held(letters: Queue) -> None:
    hold(letters, 2)
    keyed("letters", *range(3))
    (facts,) = json.loads(run("queues", "list", "letters", "--json"))
    assert (facts["ready"]["number"], facts["in_flight"]["number"]) == (3, 2)
    assert run("queues", "list", "letters").splitlines()[1].split()[:3] == ["letters", "3", "2"]


def test_queues_says_in_json_whether_a_count_is_exact(
    letters: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("store.depths", "management.operators"):
        monkeypatch.setattr(f"messaging.{module}.COUNT_LIMIT", 2)
    send_many("letters", range(5))
    (facts,) = json.loads(run("queues", "list", "letters", "--json"))
    assert facts["ready"] == {"number": 2, "is_exact": False}
    assert facts["dead"] == {"number": 0, "is_exact": True}
    assert "2+" in run("queues", "list", "letters")


def test_queues_pauses_and_resumes_by_name(letters: Queue) -> None:
    assert run("queues", "pause", "letters") == "Queue letters is paused now."
    assert run("queues", "pause", "letters") == "Queue letters was paused already."
    assert json.loads(run("queues", "resume", "letters", "--json")) == [
        {"queue": "letters", "changed": True}
    ]
    assert run("queues", "resume", "letters") == "Queue letters was not paused."


def test_queues_disables_and_enables_by_name(letters: Queue) -> None:
    assert run("queues", "disable", "letters") == "Queue letters accepts nothing now."
    assert run("queues", "disable", "letters") == "Queue letters was disabled already."
    assert "disabled by" in run("queues", "list", "letters")
    assert run("queues", "enable", "letters") == "Queue letters accepts messages again."
    assert run("queues", "enable", "letters") == "Queue letters was not disabled."


def test_one_wrong_name_leaves_every_queue_as_it_is(letters: Queue) -> None:
    assert "Did you mean" in refused("queues", "pause", "letters", "lettrs")
    letters.refresh_from_db()
    assert not letters.is_paused


@pytest.mark.parametrize(
    "args",
    [
        ["pause"],
        ["resume", "letters", "--reason", "x"],
        ["disable", "letters", "--reason", "x"],
        ["pause", "a/b"],
    ],
)
def test_queues_refuses_what_makes_no_sense(letters: Queue, args: list[str]) -> None:
    assert refused("queues", *args)


# purge


def test_purge_deletes_what_waits_when_the_name_is_typed(letters: Queue, typed: Any) -> None:
    send_many("letters", range(3))
    send("letters", 1, delay=60)
    typed("letters")
    assert run("purge", "letters") == "Deleted 4 messages of queue letters."
    assert not Delivery.objects.exists()
    assert not Scheduled.objects.exists()


def test_purge_leaves_everything_when_another_name_is_typed(letters: Queue, typed: Any) -> None:
    send("letters", 1)
    typed("yes")
    assert refused("purge", "letters") == "Nothing was done."
    assert Delivery.objects.count() == 1


def test_purge_refuses_where_nobody_can_type(letters: Queue) -> None:
    send("letters", 1)
    assert "add --yes" in refused("purge", "letters")
    assert Delivery.objects.count() == 1


def test_purge_of_an_empty_queue_asks_nothing(letters: Queue) -> None:
    assert run("purge", "letters") == "Deleted 0 messages of queue letters."


def test_purge_does_not_ask_with_yes(letters: Queue) -> None:
    send("letters", 1)
    assert json.loads(run("purge", "letters", "--yes", "--json")) == {
        "queue": "letters",
        "purged": 1,
    }


def test_purge_deletes_what_waits_behind_keys_and_no_token(letters: Queue) -> None:
    keyed("letters", *range(3))
    assert run("purge", "letters", "--dry-run") == "Would delete 3 messages of queue letters."
    assert run("purge", "letters", "--yes") == "Deleted 3 messages of queue letters."
    assert not Delivery.objects.exists()


def test_a_dry_purge_only_counts(letters: Queue) -> None:
    send("letters", 1)
    assert run("purge", "letters", "--dry-run") == "Would delete 1 message of queue letters."
    assert Delivery.objects.count() == 1


def test_purge_takes_dead_letters_only_when_told_to(letters: Queue, bury: Any) -> None:
    bury(2)
    run("purge", "letters.dlq", "--yes")
    assert DeadLetter.objects.count() == 2
    assert run("purge", "letters.dlq", "--dead", "--yes").startswith("Deleted 2 dead letters")
    assert not DeadLetter.objects.exists()


def test_purge_names_the_queues_when_the_name_is_wrong(letters: Queue) -> None:
    assert "Did you mean 'letters'" in refused("purge", "lettrs", "--yes")


# redrive


def test_redrive_moves_the_dead_letters_given_without_asking(letters: Queue, bury: Any) -> None:
    first, second, _ = bury(3)
    assert run("redrive", "--id", str(first), "--id", str(second)) == "Redrove 2 dead letters."
    assert Delivery.objects.filter(queue=letters).count() == 2


def test_redrive_moves_those_of_a_queue(letters: Queue, bury: Any) -> None:
    bury(3)
    assert json.loads(run("redrive", "--queue", "letters", "--yes", "--json")) == {"redriven": 3}


def test_redrive_of_all_asks_first(letters: Queue, bury: Any, typed: Any) -> None:
    bury(3)
    typed("no")
    assert refused("redrive", "--all") == "Nothing was done."
    typed("yes")
    assert run("redrive", "--all") == "Redrove 3 dead letters."


@pytest.mark.parametrize("which", [["--all"], ["--queue", "letters"]])
def test_redrive_of_many_refuses_where_nobody_can_type(
    letters: Queue, bury: Any, which: list[str]
) -> None:
    bury(2)
    assert "add --yes" in refused("redrive", *which)
    assert DeadLetter.objects.count() == 2


@pytest.mark.parametrize("which", [["--all"], ["--queue", "letters"], ["--id", "1"]])
def test_a_dry_redrive_only_counts(letters: Queue, bury: Any, which: list[str]) -> None:
    ids = bury(2)
    which = [str(ids[0]) if part == "1" else part for part in which]
    expected = "1 dead letter" if "--id" in which else "2 dead letters"
    assert run("redrive", "--dry-run", *which) == f"Would redrive {expected}."
    assert DeadLetter.objects.count() == 2


def test_redrive_of_a_queue_without_a_name_is_not_a_redrive_of_all(
    letters: Queue, bury: Any
) -> None:
    bury(2)
    assert "Invalid queue name" in refused("redrive", "--queue", "", "--yes")
    assert DeadLetter.objects.count() == 2


@pytest.mark.parametrize("text", ["0", "-1", "abc", "9" * 5000, str(2**63), "٣"])
def test_redrive_refuses_an_id_that_cannot_be_one(text: str) -> None:
    with pytest.raises(CommandError, match="is no id"):
        call_command("redrive", "--id", text)


def test_redrive_says_when_the_queue_is_gone(letters: Queue, bury: Any) -> None:
    (dead,) = bury(1)
    Queue.objects.filter(pk=letters.pk).delete()
    assert "no longer exists" in refused("redrive", "--id", str(dead))


def test_redrive_moves_dead_letters_to_another_queue(
    letters: Queue, bury: Any, queue: Callable[..., Queue]
) -> None:
    other = queue("other")
    bury(2)
    assert "Did you mean 'other'" in refused("redrive", "--all", "--to", "othr", "--yes")
    assert "the one that holds them" in refused("redrive", "--all", "--to", "letters.dlq", "--yes")
    assert run("redrive", "--all", "--to", "other", "--yes") == "Redrove 2 dead letters."
    assert Delivery.objects.filter(queue=other).count() == 2


# keys


def test_keys_lists_what_is_parked_and_lets_it_go_on(letters: Queue) -> None:
    keyed("letters", 1, 2, key="customer 7")
    assert run("keys", "letters") == "No key is parked."
    assert "neither is parked nor waits" in refused("keys", "letters", "--release", "customer 7")
    Delivery.objects.all().delete()
    Lane.objects.update(parked_at="2026-01-01T00:00Z", tokens=0)
    assert run("keys", "letters") == ("customer 7  2 waiting, parked since 2026-01-01 00:00 UTC")
    (facts,) = json.loads(run("keys", "letters", "--json"))
    assert (facts["key"], facts["waiting"]["number"]) == ("customer 7", 2)
    assert run("keys", "letters", "--release", "customer 7") == (
        "Key customer 7 of queue letters goes on."
    )
    assert Delivery.objects.count() == 1
    assert run("keys", "letters") == "No key is parked."
