"""Filters: the options by which commands say which messages they mean."""

import json
import re
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from ..control import Filter
from ..exceptions import InvalidOption
from ..store.filters import State

SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def seconds(text: str) -> float:
    """Return an age such as ``90``, ``15m`` or ``2d`` in seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if found is None:
        raise ArgumentTypeError(f"{text[:40]!r} is no age; use seconds, or such as 15m, 2h, 7d")
    return float(found[1]) * SECONDS[found[2] or "s"]


def pair(text: str) -> tuple[str, Any]:
    """Return the name and the value of ``name=value``; the value is JSON, or else text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ArgumentTypeError(f"{text[:40]!r} is no condition; use NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def message_id(text: str) -> int:
    """Return an id that the database can hold."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and 0 < int(text) < 2**63):
        raise ArgumentTypeError(f"{text[:40]!r} is no id; use 1 to {2**63 - 1}")
    return int(text)


def add_filter_arguments(parser: ArgumentParser, *, states: bool = True) -> None:
    """Add the options of a filter; a message is meant when it fulfils all that are given."""
    group = parser.add_argument_group("which messages, all conditions together")
    if states:
        group.add_argument(
            "--state", action="append", choices=[str(state) for state in State],
            help="May be repeated.",
        )  # fmt: skip
    group.add_argument(
        "--header", type=pair, action="append", metavar="NAME=VALUE",
        help="The value is JSON, or else text; may be repeated.",
    )  # fmt: skip
    group.add_argument(
        "--body", type=pair, action="append", metavar="PATH=VALUE",
        help="A field of the body, such as customer.country=GB; may be repeated.",
    )  # fmt: skip
    group.add_argument("--key", help="The ordering or fairness key.")
    group.add_argument("--error", metavar="TEXT", help="Part of the last error's name or text.")
    group.add_argument("--topic", help="What it was published to.")
    group.add_argument("--older-than", type=seconds, metavar="AGE", help="Such as 90, 15m, 2d.")
    group.add_argument("--newer-than", type=seconds, metavar="AGE")
    group.add_argument(
        "--message", type=message_id, action="append", metavar="ID",
        help="A message's id; may be repeated.",
    )  # fmt: skip


def filter_of(options: dict[str, Any]) -> Filter | None:
    """Return what the options describe, None where none of them is given."""
    given = {
        "state": options.get("state"),
        "headers": _together("header", options["header"]),
        "body": _together("body", options["body"]),
        "key": options["key"],
        "error": options["error"],
        "topic": options["topic"],
        "older_than": options["older_than"],
        "newer_than": options["newer_than"],
        "ids": options["message"],
    }
    given = {name: value for name, value in given.items() if value is not None}
    return Filter(**given) if given else None


def _together(option: str, pairs: list[tuple[str, Any]] | None) -> dict[str, Any] | None:
    if pairs is None:
        return None
    if len(dict(pairs)) < len(pairs):
        raise InvalidOption(option, pairs[-1][0], "name each header or field once")
    return dict(pairs)
