"""Commands that begin operations, and those that steer them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management.base import CommandError
from test_commands import bury, letters, refused, run  # noqa: F401 - the fixtures too

from messaging import control, send_many
from messaging.models import DeadLetter, Delivery, Message, Operation, Queue

pytestmark = pytest.mark.django_db


def test_purge_deletes_what_a_filter_describes(letters: Queue) -> None:  # noqa: F811
    send_many("letters", [{"n": number % 2} for number in range(6)])
    answer = json.loads(run("purge", "letters", "--body", "n=1", "--yes", "--json"))
    assert (answer["state"], answer["done"], answer["kind"]) == ("done", 3, "purge")
    assert Delivery.objects.count() == 3


def test_a_dry_run_begins_nothing(letters: Queue, queue: Any) -> None:  # noqa: F811
    queue("others")
    send_many("letters", range(3))
    facts = {"number": 3, "is_exact": True}
    for name, *args in (
        ("purge", "letters", "--newer-than", "1h"),
        ("move", "letters", "others"),
    ):
        answer = json.loads(run(name, *args, "--dry-run", "--json"))
        assert answer == {f"would_{name}": facts}
    assert not Operation.objects.exists()
    assert "--yes" in refused("move", "letters", "others")
    assert not Operation.objects.exists()


def test_messages_are_moved_and_edited(letters: Queue, queue: Any) -> None:  # noqa: F811
    queue("others")
    send_many("letters", [{"n": 1}] * 3)
    run("edit_messages", "letters", "--patch", '{"n": 2}', "--yes")
    assert {message.body["n"] for message in Message.objects.all()} == {2}
    run("move", "letters", "others", "--yes")
    assert Delivery.objects.filter(queue__name="others").count() == 3


def test_a_group_of_dead_letters_is_redriven(letters: Queue, bury: Any) -> None:  # noqa: F811
    first, *_ = bury(3)
    DeadLetter.objects.filter(pk=first).update(fingerprint="a")
    answer = json.loads(run("redrive", "--group", "a", "--yes", "--json"))
    assert (answer["done"], DeadLetter.objects.count()) == (1, 2)


def test_what_is_left_to_the_workers_is_listed_cancelled_and_resumed(
    letters: Queue,  # noqa: F811
) -> None:
    send_many("letters", range(3))
    begun = json.loads(run("purge", "letters", "--background", "--yes", "--json"))
    number = str(begun["operation"])
    assert (begun["state"], Delivery.objects.count()) == ("running", 3)
    assert [each["operation"] for each in json.loads(run("operations", "--json"))] == [int(number)]
    assert "cancelled" in run("operations", "cancel", number)
    assert "nothing to cancel" in refused("operations", "cancel", number)
    assert "running" in run("operations", "resume", number)
    assert control.run_operation(int(number)).done == 3
    assert "done, 3 of 3" in run("operations", "show", number)
    assert "unknown" in refused("operations", "show", "9999999")
    assert "take one" in refused("operations", "cancel")


def test_ctrl_c_cancels_what_can_be_resumed(
    letters: Queue,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    send_many("letters", range(3))

    def interrupted(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(control, "run_operation", interrupted)
    with pytest.raises(CommandError, match="cancelled") as caught:
        run("purge", "letters", "--rate", "5", "--yes")
    assert caught.value.returncode == 1
    assert Operation.objects.get().state == "cancelled"


@pytest.mark.parametrize("wrong", [["--rate", "0"], ["--body", "x"], ["--older-than", "soon"]])
def test_what_makes_no_sense_is_refused(letters: Queue, wrong: list[str]) -> None:  # noqa: F811
    with pytest.raises(CommandError):
        run("purge", "letters", *wrong)
    assert not Operation.objects.exists()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "command",
    [
        ["operations"],
        ["purge", "letters", "--body", "n=1", "--yes"],
        ["move", "letters", "letters.dlq", "--yes"],
        ["edit_messages", "letters", "--patch", "{}", "--yes"],
        ["redrive", "--all", "--error", "x", "--yes"],
    ],
    ids=lambda command: command[0],
)
def test_each_command_runs_from_a_shell(
    letters: Queue,  # noqa: F811
    database_url: str,
    command: list[str],
) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", *command, "--json"],
        cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
