"""A second reading of what filters mean, in as few words as possible, for the tests to compare."""

import ipaddress
import re
from contextlib import suppress
from decimal import Decimal

COMPARE = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def takes(policy, document):
    """Tell whether a filter takes a message with these headers or this body."""
    if policy is None:
        return True
    return isinstance(document, dict) and _object(policy, document)


def _object(policy, document):
    return all(
        any(_object(choice, document) for choice in wanted)
        if key == "$or"
        else _nested(wanted, document.get(key))
        if isinstance(wanted, dict)
        else _list(wanted, document.get(key, []))
        for key, wanted in policy.items()
    )


def _nested(policy, value):
    objects = [item for item in _items(value) if isinstance(item, dict)]
    return any(_object(policy, item) for item in objects or [{}])


def _list(wanted, value):
    values = [item for item in _items(value) if not isinstance(item, list | dict)]
    exists = any(item is not None and item != "" for item in values)
    return any(
        not exists if one == {"exists": False} else any(_matches(one, item) for item in values)
        for one in wanted
    )


def _items(value):
    return value if isinstance(value, list) else [value]


def _matches(wanted, value):
    if not isinstance(wanted, dict):
        return _same(wanted, value)
    ((name, operand),) = wanted.items()
    if name == "exists":
        return value is not None and value != ""
    if name == "anything-but":
        if not isinstance(operand, dict):
            return not any(_same(item, value) for item in _items(operand))
        ((name, operand),) = operand.items()
        return not any(_matches({name: item}, value) for item in _items(operand))
    if name == "numeric":
        pairs = zip(operand[::2], operand[1::2], strict=True)
        return _is_number(value) and all(
            COMPARE[sign](_exact(value), _exact(limit)) for sign, limit in pairs
        )
    return isinstance(value, str) and TEXT[name](operand, value)


def _is_within(network, address):
    with suppress(ValueError):
        return ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    return False


def _looks_like(pattern, value):
    found = re.sub(
        r"\\([\\*])|(\*)|(.)",
        lambda part: ".*" if part[2] else re.escape(part[1] or part[3]),
        pattern,
        flags=re.DOTALL,
    )
    return re.fullmatch(found, value, re.DOTALL) is not None


TEXT = {
    "prefix": lambda word, value: value.startswith(word),
    "suffix": lambda word, value: value.endswith(word),
    "equals-ignore-case": lambda word, value: value.lower() == word.lower(),
    "wildcard": _looks_like,
    "cidr": _is_within,
}


def _same(one, other):
    if _is_number(one) and _is_number(other):
        return _exact(one) == _exact(other)
    return type(one) is type(other) and one == other


def _is_number(value):
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _exact(number):
    return Decimal(repr(number))
