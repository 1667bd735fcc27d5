"""The page of semantics names every feature, and calls and tests that exist."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from django.core.management import load_command_class

PAGE = Path(__file__).resolve().parents[2] / "docs" / "semantics.md"
FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef

FEATURES = {
    "Sending": [
        "Transactions",
        "Batches",
        "Body",
        "Size",
        "Headers",
        "Names",
        "Priority",
        "Delay",
        "Expiry",
        "Deduplication",
        "Ordering key",
        "Correlation",
        "Uncertain commit",
    ],
    "Queues": [
        "Max deliveries and back-off",
        "Visibility timeout",
        "Dead-letter queue",
        "Max length",
        "Rate limit and concurrency limit",
        "Single active consumer",
        "Retention",
        "Fair share",
        "Pause and disable",
        "Purge, move, cancel, edit",
        "Delete",
    ],
    "Receiving": [
        "Exactly-once effects",
        "Transaction size",
        "Durability",
        "Leased consumers",
        "Settlement",
        "Retry",
        "Attempts",
        "Timeout",
        "Batch consumers",
        "Async consumers",
        "Graceful stop",
        "Pooler",
        "Idempotency",
        "Peek and search",
        "Explain",
        "Timeline",
    ],
    "Publish and subscribe": [
        "Filters",
        "Schema",
        "Live feed",
        "New subscriber",
        "Durable and ephemeral",
        "Push",
        "Replay and seek",
    ],
    "Requests and schedules": ["Request and reply", "Nobody's queues", "Schedules"],
    "Commands": [],
    "Dead letters": ["Redrive and discard", "Error groups"],
    "Operations": ["Operations on many messages"],
    "Bad input": [],
}


def sections() -> dict[str, str]:
    """Return the text below each heading of the second level."""
    _, *parts = re.split(r"^## (.+)\n", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def entries() -> Iterator[tuple[str, str]]:
    """Give each feature with its text."""
    for text in sections().values():
        _, *parts = re.split(r"^### (.+)\n", text, flags=re.MULTILINE)
        yield from zip(parts[::2], parts[1::2], strict=True)


def letters(sentence: str) -> str:
    """Return what a sentence and the name of a test that says it have in common."""
    return re.sub(r"[^a-z0-9]", "", sentence.lower())


@cache
def told_by(file: Path) -> set[str]:
    """Return what the tests of a file say: their names, also with those of their classes before."""
    told = set()
    for node in ast.parse(file.read_text()).body:
        inside, subject = [node], ""
        if isinstance(node, ast.ClassDef):
            inside, subject = node.body, letters(node.name.removeprefix("Test"))
        for test in inside:
            if isinstance(test, FUNCTION) and test.name.startswith("test_"):
                name = letters(test.name.removeprefix("test_"))
                told |= {name, subject + name}
    return told


def test_every_feature_has_its_entry_in_order() -> None:
    told = {
        title: re.findall(r"^### (.+)$", text, re.MULTILINE) for title, text in sections().items()
    }
    assert told == FEATURES


@pytest.mark.parametrize(("feature", "text"), list(entries()))
def test_every_feature_has_a_call_and_a_test(feature: str, text: str) -> None:
    assert re.search(r"^Call: `", text, re.MULTILINE)
    assert "](../tests/" in text


@pytest.mark.parametrize("title", list(sections()))
def test_every_test_that_is_linked_exists(title: str) -> None:
    links = re.findall(r"\[([^][]+)\]\(\.\./(tests/[^)]+)\)", sections()[title])
    assert links
    missing = [
        (sentence, file)
        for sentence, file in links
        if letters(sentence) not in told_by(PAGE.parents[1] / file)
    ]
    assert not missing


@pytest.mark.parametrize(("feature", "text"), list(entries()))
def test_every_call_that_is_named_exists(feature: str, text: str) -> None:
    for line in re.findall(r"^Call: (.+(?:\n.+)*)", text, re.MULTILINE):
        for call in re.findall(r"`([^`]+)`", line):
            check_command(call) if call.startswith("manage.py ") else check_call(call)


def check_call(call: str) -> None:
    """Find ``send(delay=)`` in messaging, ``Queue.weight`` in its models, ``control.pause()``."""
    path, _, rest = call.partition("(")
    first, *others = path.removeprefix("@").split(".")
    module = "messaging.models" if first in ("Queue", "Topic", "Subscription") else "messaging"
    found = getattr(importlib.import_module(module), first, None) or importlib.import_module(
        f"messaging.{first}"
    )
    for name in others:
        found = getattr(found, name)
    if rest:
        assert callable(found)
        options = set(re.findall(r"(\w+)=", rest))
        assert options <= set(inspect.signature(found).parameters)


def check_command(call: str) -> None:
    """Find a command and the options that are named."""
    _, name, *options = call.split()
    parser = load_command_class("messaging", name).create_parser("manage.py", name)
    assert {option for option in options if option.startswith("-")} <= set(
        parser._option_string_actions
    )
