"""Match: what a subscription's filter may say, and what it says in words.

The language of SNS filter policies (SNS: FilterPolicy, FilterPolicyScope). PostgreSQL compiles and
evaluates it (migration 0006); what is refused here is refused there, in the same words.
"""

import ipaddress
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from .exceptions import InvalidFilter

SCOPES = ("headers", "body")
MAX_DEPTH = 5
MAX_VALUES = 256
MAX_BYTES = 65_536
MAX_TEXT = 1_000
MAX_NUMBER = 10**30

WORDS = ("prefix", "suffix", "wildcard", "equals-ignore-case")
OPERATORS = tuple(sorted({"anything-but", "cidr", "exists", "numeric", *WORDS}))
SIMPLE_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_-]*", re.ASCII)
WILDCARD = re.compile(r"(?:[^\\]|\\[\\*])*", re.DOTALL)
ESCAPED = re.compile(r"\\[\\*]")
NETWORK = re.compile(r"[0-9.]+/[0-9]{1,2}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*/[0-9]{1,3}", re.ASCII)


class Part(NamedTuple):
    """One key of a filter, where it is, and a filter of this key alone."""

    place: str
    filter: dict[str, Any]
    wanted: Any


def check_filter(value: object, scope: object = "headers") -> None:
    """Refuse what is no filter, or raise InvalidFilter with the place; None is no filter."""
    if scope not in SCOPES:
        raise InvalidFilter(
            "$", f"{_shown(scope)} is no part of a message; filter on headers or body."
        )
    if value is None:
        return
    _check_json(value, "$", 0)
    size = len(json.dumps(value, ensure_ascii=False).encode())
    if size > MAX_BYTES:
        raise InvalidFilter("$", f"it takes {size} bytes of JSON; use 65,536 at most.")
    count = sum(1 for _ in _scalars(value))
    if count > MAX_VALUES:
        raise InvalidFilter("$", f"it has {count} values; use 256 at most.")
    _check_object(value, "$", scope, 1)


def parts(value: dict[str, Any], place: str = "$") -> Iterator[Part]:
    """Give each key that has a list of values, and each ``$or``, as filters of their own."""
    for key, wanted in value.items():
        there = _at(place, key)
        if isinstance(wanted, dict):
            for part in parts(wanted, there):
                yield part._replace(filter={key: part.filter})
        else:
            yield Part(there, {key: wanted}, wanted)


def _check_json(value: object, place: str, depth: int) -> None:
    """Refuse what jsonb cannot hold, before it is looked at as a filter."""
    if depth > 32:
        raise InvalidFilter(place, "it is nested too deeply; use 5 levels of objects at most.")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InvalidFilter(place, f"{_shown(key)} is no key; use strings.")
            _check_json(key, place, depth)
            _check_json(item, _at(place, key), depth + 1)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _check_json(item, f"{place}[{number}]", depth + 1)
    elif isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidFilter(place, f"{ascii(value)[:80]} has characters of no text; remove it.")
    elif not isinstance(value, int | float | None):
        raise InvalidFilter(place, f"{_shown(value)} is no JSON; use what JSON has.")


def _check_object(value: Any, place: str, scope: object, depth: int) -> None:
    if not isinstance(value, dict):
        raise InvalidFilter(
            place,
            f'{_shown(value)} is no filter; use an object such as {{"country": ["GB", "IE"]}}.',
        )
    if not value:
        raise InvalidFilter(place, "{} is empty; name a key, or leave the filter out.")
    if depth > MAX_DEPTH:
        raise InvalidFilter(place, "it is nested too deeply; use 5 levels of objects at most.")
    for key, wanted in value.items():
        there = _at(place, key)
        if key == "$or":
            if not isinstance(wanted, list | tuple) or len(wanted) < 2:
                raise InvalidFilter(
                    there, f"{_shown(wanted)} is no choice; use a list of 2 filters or more."
                )
            for number, choice in enumerate(wanted):
                _check_object(choice, f"{there}[{number}]", scope, depth + 1)
        elif isinstance(wanted, list | tuple):
            _check_list(wanted, there)
        elif not isinstance(wanted, dict):
            raise InvalidFilter(there, f"{_shown(wanted)} is no list; put the values into a list.")
        elif scope == "headers":
            raise InvalidFilter(
                there,
                f"{_shown(wanted)} is an object, and headers hold none; use a list of values, or "
                f"filter on the body.",
            )
        else:
            _check_object(wanted, there, scope, depth + 1)


def _check_list(values: Any, place: str) -> None:
    if not values:
        raise InvalidFilter(place, "[] is empty; name one value at least.")
    for number, value in enumerate(values):
        there = f"{place}[{number}]"
        if not isinstance(value, dict):
            _check_scalar(value, there)
            continue
        if len(value) != 1:
            raise InvalidFilter(
                there, f'{_shown(value)} is not one operator; use one such as {{"prefix": "eu-"}}.'
            )
        ((name, operand),) = value.items()
        _check_operator(name, operand, _at(there, name))


def _check_operator(name: str, operand: Any, place: str) -> None:
    if name not in OPERATORS:
        raise InvalidFilter(
            place, f"{json.dumps(name[:80])} is unknown; use one of {', '.join(OPERATORS)}."
        )
    if name == "anything-but":
        _check_anything_but(operand, place)
    elif name == "numeric":
        _check_numeric(operand, place)
    elif name == "exists":
        if not isinstance(operand, bool):
            raise InvalidFilter(place, f"{_shown(operand)} is neither true nor false.")
    else:
        _check_text(name, operand, place)


def _check_anything_but(operand: Any, place: str) -> None:
    name = None
    if isinstance(operand, dict):
        name = ", ".join(sorted(operand))
        if name not in WORDS:
            raise InvalidFilter(
                place, f"{_shown(operand)} is unknown; use one of {', '.join(WORDS)}."
            )
        place, operand = _at(place, name), operand[name]
    several = isinstance(operand, list | tuple)
    if several and not operand:
        raise InvalidFilter(place, "[] is empty; name one value at least.")
    for number, value in enumerate(operand if several else [operand]):
        there = f"{place}[{number}]" if several else place
        if name is None:
            _check_scalar(value, there)
        else:
            _check_text(name, value, there)


def _check_numeric(operand: Any, place: str) -> None:
    signs = list(operand[::2]) if isinstance(operand, list | tuple) else []
    numbers = list(operand[1::2]) if signs else []
    known = len(numbers) == len(signs) and all(
        isinstance(number, int | float) and not isinstance(number, bool) for number in numbers
    )
    single = len(signs) == 1 and signs[0] in ("=", "<", "<=", ">", ">=")
    double = len(signs) == 2 and signs[0] in (">", ">=") and signs[1] in ("<", "<=")
    if not known or not (single or double):
        raise InvalidFilter(
            place,
            f'{_shown(operand)} is no comparison; use [">=", 100], or [">", 0, "<=", 150] for a '
            f"range.",
        )
    for number, value in enumerate(numbers):
        _check_scalar(value, f"{place}[{2 * number + 1}]")
    if double and numbers[0] >= numbers[1]:
        raise InvalidFilter(
            place, f"{_shown(operand)} is an empty range; put the smaller number first."
        )


def _check_text(name: str, operand: Any, place: str) -> None:
    if not isinstance(operand, str) or not 1 <= len(operand) <= MAX_TEXT:
        raise InvalidFilter(
            place, f"{_shown(operand)} is no text to compare with; use 1 to 1,000 characters."
        )
    if name == "wildcard":
        if not WILDCARD.fullmatch(operand):
            raise InvalidFilter(
                place,
                f"{_shown(operand)} has a lone backslash; write \\* for an asterisk, \\\\ for a "
                f"backslash.",
            )
        if "**" in ESCAPED.sub(".", operand):
            raise InvalidFilter(place, f"{_shown(operand)} has two asterisks in a row; use one.")
    if name == "cidr" and not _is_network(operand):
        raise InvalidFilter(
            place,
            f"{_shown(operand)} is no network; use one such as 10.0.0.0/24 or 2001:db8::/32.",
        )


def _is_network(text: str) -> bool:
    if not NETWORK.fullmatch(text):
        return False
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _check_scalar(value: Any, place: str) -> None:
    if isinstance(value, dict | list | tuple):
        raise InvalidFilter(
            place, f"{_shown(value)} is no value; use a string, a number, true, false or null."
        )
    # Also refuses NaN.
    if isinstance(value, int | float) and not -MAX_NUMBER <= value <= MAX_NUMBER:
        raise InvalidFilter(
            place, f"{_shown(value)} is out of range; use numbers from -1e30 to 1e30."
        )


def _scalars(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _scalars(item)
    else:
        yield value


def _at(place: str, key: str) -> str:
    return f"{place}.{key if SIMPLE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)}"


def _shown(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)[:80]
    except (TypeError, ValueError):
        return ascii(value)[:80]
