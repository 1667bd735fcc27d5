"""Each command from a shell: its answer, its JSON and its exit code."""

import json
import os
import queue as queues
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from messaging import consumer, consuming, publish, send
from messaging.models import Message, Queue, Subscription, Topic, Webhook
from messaging.testing import drain

CHECKOUT = Path(__file__).resolve().parents[2]
COMMANDS = CHECKOUT / "messaging" / "management" / "commands"
PAGE = CHECKOUT / "docs" / "semantics.md"
DEADLINE = 60

pytestmark = pytest.mark.usefixtures("way_past_a_pooler")


@pytest.fixture
def environment(database_url: str) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": database_url}


@pytest.fixture
def shell(environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs manage.py as a shell would."""

    def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=CHECKOUT,
            env=environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )

    return run


@pytest.fixture
def told(shell: Any) -> Callable[..., Any]:
    """Return a function that runs a command that succeeds, and gives its JSON."""

    def run(*arguments: str, given: str = "") -> Any:
        done = shell(*arguments, "--json", "--database", "default", given=given)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture
def letters(transactional_db: None) -> Queue:
    letters = Queue.objects.create(name="letters")
    Topic.objects.create(name="mail.sent")
    Subscription.objects.create(pattern="mail.*", queue=letters)
    return letters


def bodies() -> list[Any]:
    return list(Message.objects.order_by("id").values_list("body", flat=True))


def test_a_message_is_sent_with_its_options(letters: Queue, told: Any, shell: Any) -> None:
    arguments = ("send_message", "letters", '{"n": 1}', "--header", "tenant=7", "--header")
    answer = told(*arguments, "tries:=7", "--key", "k", "--correlation-id", "c")
    message = Message.objects.get(pk=answer["messages"][0]["id"])
    assert (message.body, message.headers) == ({"n": 1}, {"tenant": "7", "tries": 7})
    assert (message.ordering_key, message.correlation_id) == ("k", "c")
    told("send_message", "letters", "-", given='"from stdin"')
    assert bodies()[1:] == ["from stdin"]
    done = shell("send_message", "letters", "null", "--deduplication-id", "once")
    again = shell("send_message", "letters", "null", "--deduplication-id", "once")
    assert (done.returncode, again.returncode) == (0, 0)
    assert re.fullmatch(r"Message \d+ was there before\.\n", again.stdout)
    assert Message.objects.count() == 3


def test_a_file_is_sent_as_a_whole_or_not_at_all(letters: Queue, told: Any, shell: Any) -> None:
    answer = told("send_message", "letters", "--file", "-", given='1\n\n"two"\n')
    assert [each["duplicate"] for each in answer["messages"]] == [False, False]
    assert bodies() == [1, "two"]
    done = shell("send_message", "letters", "--file", "-", given="3\nfour\n")
    assert done.returncode == 2
    assert "Line 2 is no JSON" in done.stderr
    assert bodies() == [1, "two"]


def test_what_cannot_be_sent_is_refused(letters: Queue, shell: Any) -> None:
    for arguments, reason in [
        (("send_message", "lettrs", "1"), "Did you mean 'letters'"),
        (("send_message", "letters", "NaN"), "not JSON"),
        (("send_message", "letters", "1", "--priority", "101"), "101"),
        (("send_message", "letters"), "Give one body, or --file"),
        (("publish_message", "mail.snt", "1"), "Did you mean 'mail.sent'"),
    ]:
        done = shell(*arguments)
        assert (done.returncode, reason in done.stderr) == (2, True), done.stderr
    assert bodies() == []


def test_a_dry_run_stores_nothing_and_says_who_would_receive(letters: Queue, told: Any) -> None:
    Subscription.objects.create(pattern="orders.#", queue=letters)
    answer = told("publish_message", "mail.sent", "1", "--dry-run")
    assert answer["messages"] == [{"id": None, "duplicate": False}]
    receivers = {each["pattern"]: each for each in answer["receivers"]}
    assert receivers["mail.*"]["receives"]
    assert not receivers["orders.#"]["receives"]
    assert "does not match" in receivers["orders.#"]["why"]
    told("send_message", "letters", "1", "--dry-run")
    assert bodies() == []
    told("publish_message", "mail.sent", "1")
    assert bodies() == [1]


def test_the_topics_are_listed(letters: Queue, told: Any, shell: Any) -> None:
    message_id = publish("mail.sent", 1)
    (facts,) = told("topics", "mail.sent")
    assert (facts["subscriptions"], facts["last_message"]) == (1, message_id)
    assert facts["last_minute"] == {"number": 1, "is_exact": True}
    assert "mail.sent" in shell("topics").stdout
    assert shell("topics", "mail.snt").returncode == 2


def test_a_search_goes_on_from_the_shell(letters: Queue, told: Any, shell: Any) -> None:
    for number in range(3):
        send("letters", {"n": number}, headers={"tenant": "a"})
    pages, after = [], []
    for _ in range(4):
        page = told("search", "letters", "--header", "tenant=a", "--limit", "1", *after)
        pages += [seen["body"]["n"] for seen in page["messages"]]
        if page["next"] is None:
            break
        after = ["--after", page["next"]]
    assert pages == [2, 1, 0]
    assert "looked at the newest 1 message" in shell("search", "--limit", "1").stdout
    for wrong in ("x", "ready/1/x/1", "ready/1/99999/1", "scheduled/1/never/1", "ready/1/0/-1"):
        assert shell("search", "--after", wrong).returncode == 2


def test_a_message_is_explained_and_traced(letters: Queue, told: Any, shell: Any) -> None:
    message_id = publish("mail.sent", {"n": 1})
    (why,) = told("explain", str(message_id))
    assert why["cause"] == "no_worker"
    assert "No worker serves" in shell("explain", str(message_id)).stdout
    receivers = told("explain", "--receivers", "mail.sent", "--body", "1")
    assert [each["queue"] for each in receivers if each["receives"]] == ["letters"]
    found = told("timeline", str(message_id))
    assert [event["what"] for event in found["events"]] == ["published", "routed"]
    assert "Published to topic mail.sent" in shell("timeline", str(message_id)).stdout
    assert shell("explain", "999999999").returncode == 2
    assert shell("timeline", "abc").returncode == 2


@pytest.mark.direct("a process of its own listens, and finds no way past a pooler")
def test_the_doctor_names_what_is_wrong_with_the_fix(letters: Queue, told: Any, shell: Any) -> None:
    found = told("doctor")
    assert found["is_well"]
    assert "wake-up" in [each["what"] for each in found["findings"] if each["level"] == "ok"]
    Queue.objects.get_or_create(name="payments")
    send("payments", 1)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE messaging_topic DISABLE TRIGGER messaging_bind_topic")
    try:
        done = shell("doctor", "--json")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE messaging_topic ENABLE TRIGGER messaging_bind_topic")
    assert done.returncode == 1
    errors = {each["what"]: each for each in json.loads(done.stdout)["findings"] if each["fix"]}
    assert "messaging_bind_topic" in errors["triggers"]["text"]
    assert "runworker payments" in errors["workers"]["fix"]


class Tail:
    """A tail that runs, and the lines that it has written."""

    def __init__(self, environment: dict[str, str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "tail", "--json", *arguments],
            cwd=CHECKOUT,
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lines: queues.Queue[str] = queues.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)

    def next(self) -> Any:
        return json.loads(self._lines.get(timeout=DEADLINE))

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE)


@pytest.fixture
def tail(environment: dict[str, str]) -> Iterator[Callable[..., Tail]]:
    started: list[Tail] = []

    def start(*arguments: str) -> Tail:
        started.append(Tail(environment, *arguments))
        return started[-1]

    yield start
    for each in started:
        each.process.kill()
        each.process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_tail_goes_on_behind_its_last_event_without_a_gap(
    letters: Queue, tail: Any, until: Any, number: signal.Signals
) -> None:
    first = tail("mail.#")
    seen: list[Any] = []

    def is_following() -> bool:
        publish("mail.sent", "is anybody there")
        return not first._lines.empty()

    until(is_following, DEADLINE)
    last = publish("mail.sent", "last")
    while not seen or seen[-1]["id"] != last:
        seen.append(first.next())
    assert first.end(number) == 0
    missed = [publish("mail.sent", n) for n in range(150)]
    second = tail("mail.#", "--since", seen[-1]["cursor"], "--count", "150")
    assert [second.next()["id"] for _ in missed] == missed
    assert second.process.wait(DEADLINE) == 0


def test_a_tail_shows_what_contains_a_text_alone(letters: Queue, told: Any, tail: Any) -> None:
    from messaging import following

    start = following.here().write("mail.sent")
    for body in ("dull", "Shiny", "x" * 20_000 + "shiny"):
        publish("mail.sent", body)
    found = tail("mail.sent", "--since", start, "--filter", "SHINY", "--count", "2")
    assert [len(found.next()["body"]) for _ in range(2)] == [5, 20_005]


def test_a_tail_of_what_does_not_exist_is_refused(letters: Queue, shell: Any) -> None:
    for arguments in (["mail.snt"], ["a b"], [], ["--all", "--since", "x"], ["x", "--all"]):
        assert shell("tail", *arguments).returncode == 2


def test_webhooks_are_listed_disabled_and_enabled(letters: Queue, told: Any, shell: Any) -> None:
    Webhook.objects.create(name="partner", queue=letters, url="https://example.com/", secret="s")
    assert [row["name"] for row in told("webhooks")] == ["partner"]
    told("webhooks", "disable", "partner", "--reason", "moved away")
    assert "moved away" in shell("webhooks").stdout
    assert told("webhooks", "enable", "partner") == [{"webhook": "partner", "changed": True}]
    assert told("webhooks", "enable", "partner") == [{"webhook": "partner", "changed": False}]
    assert shell("webhooks", "enable", "nobody").returncode == 2


def test_the_page_names_every_command() -> None:
    section = PAGE.read_text().partition("\n## Commands\n")[2].partition("\n## ")[0]
    told = set(re.findall(r"^\| `(\w+)", section, re.MULTILINE))
    assert told == {file.stem for file in COMMANDS.glob("[a-z]*.py")}


def test_a_drained_message_is_found_completed(
    letters: Queue, told: Any, declared: consuming.Declarations
) -> None:
    consumer("letters")(lambda message: None)
    message_id = send("letters", "done")
    drain("letters")
    found = told("search", "--state", "completed", "--message", str(message_id))
    assert [(seen["id"], seen["state"]) for seen in found["messages"]] == [
        (message_id, "completed")
    ]
