"""Keywords: what each word of JSON Schema (draft 2020-12) asks of a value.

In the messages that are refused nothing is shown of the value but its type and where it is.
"""

import json
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any, Protocol

from .formats import has_format
from .patterns import compiled

# As many digits as the longest integer and the smallest float have together.
EXACT = Context(prec=6_000, Emax=999_999, Emin=-999_999)
SHOWN = 100


class TooMuch(Exception):
    """The work has come to its limit."""


@dataclass(slots=True)
class Wrong:
    """What is wrong; where in the value and in the schema, from the inside to the outside."""

    reason: str
    path: list[str | int] = field(default_factory=list)
    rule: list[str | int] = field(default_factory=list)

    def at(self, path: str | int | None, rule: str | int | None = None) -> "Wrong":
        """Say that this is inside of something."""
        if path is not None:
            self.path.append(path)
        if rule is not None:
            self.rule.append(rule)
        return self


class Checking(Protocol):
    """What goes on with a part of the value."""

    def check(self, schema: Any, value: Any) -> Wrong | None: ...

    def spend(self, steps: int) -> None: ...

    def resolved(self, reference: str) -> Any: ...


Rule = Callable[[Checking, Any, Any, Any], Wrong | None]


def type_of(value: Any) -> str:
    """Return the type of a value by its name in JSON Schema."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer"
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    return _TYPES[type(value)]


_TYPES = {str: "string", dict: "object", list: "array", type(None): "null"}


def identity(value: Any) -> Hashable:
    """Return what two values have in common exactly when JSON Schema takes them for equal."""
    if isinstance(value, bool):
        return ("boolean", value)
    if isinstance(value, list):
        return ("array", tuple(map(identity, value)))
    if isinstance(value, dict):
        return frozenset((key, identity(item)) for key, item in value.items())
    return value  # type: ignore[no-any-return]


def shown(wanted: Any) -> str:
    """Return what a schema wants, shortened."""
    text = json.dumps(wanted, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _identified(check: Checking, value: Any) -> Hashable:
    check.spend(_size(value))
    return identity(value)


def _size(value: Any) -> int:
    """Count the parts of a value."""
    if isinstance(value, dict):
        return 1 + sum(map(_size, value.values()))
    return 1 + sum(map(_size, value)) if isinstance(value, list) else 1


def _type(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    found = type_of(value)
    types = [wanted] if isinstance(wanted, str) else wanted
    if found in types or (found == "integer" and "number" in types):
        return None
    article = "an" if found[0] in "aeiou" else "a"
    return Wrong(f"it is {article} {found}, not {' or '.join(types)}")


def _const(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    check.spend(_size(wanted))
    if _identified(check, value) == identity(wanted):
        return None
    return Wrong(f"it is not {shown(wanted)}")


def _enum(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    check.spend(_size(wanted))
    found = _identified(check, value)
    if any(found == identity(each) for each in wanted):
        return None
    return Wrong(f"it is none of {shown(wanted)}")


def _limit(is_kept: Callable[[Any, Any], bool], words: str) -> Rule:
    def limit(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
        if not _is_number(value) or is_kept(value, wanted):
            return None
        return Wrong(f"it is not {words} {wanted}")

    return limit


def _length(kind: type, is_kept: Callable[[int, Any], bool], words: str) -> Rule:
    def length(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
        if not isinstance(value, kind) or is_kept(len(value), wanted):  # type: ignore[arg-type]
            return None
        return Wrong(f"it has {len(value):,} {words} {wanted}")  # type: ignore[arg-type]

    return length


def is_multiple(value: float, wanted: float) -> bool:
    """Tell whether a number is a multiple of another, as they are written in decimal."""
    if isinstance(value, int) and isinstance(wanted, int):
        return value % wanted == 0
    return not EXACT.remainder(Decimal(repr(value)), Decimal(repr(wanted)))


def _multiple_of(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    if not _is_number(value) or is_multiple(value, wanted):
        return None
    return Wrong(f"it is no multiple of {wanted}")


def _pattern(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    if not isinstance(value, str) or _is_in(check, wanted, value):
        return None
    return Wrong(f"it does not match the pattern {shown(wanted)}")


def _is_in(check: Checking, pattern: str, text: str) -> bool:
    check.spend(len(text) // 8)
    return compiled(pattern).is_in(text, check.spend)


def _format(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    if not isinstance(value, str) or has_format(value, wanted):
        return None
    return Wrong(f"it is no {wanted}")


def _required(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    if not isinstance(value, dict):
        return None
    check.spend(len(wanted) // 8)
    missing = next((name for name in wanted if name not in value), None)
    return None if missing is None else Wrong("it is missing").at(missing)


def _dependent_required(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    if not isinstance(value, dict):
        return None
    for name, others in wanted.items():
        check.spend(1 + len(others) // 8)
        missing = next((each for each in others if each not in value), None)
        if name in value and missing is not None:
            return Wrong(f"it is missing, and {shown(name)} is there").at(missing, name)
    return None


def _properties(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    if not isinstance(value, dict):
        return None
    check.spend(len(wanted) // 8)
    for name, part in wanted.items():
        if name in value and (wrong := check.check(part, value[name])):
            return wrong.at(name, name)
    return None


def _pattern_properties(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    if not isinstance(value, dict):
        return None
    for pattern, part in wanted.items():
        for name, item in value.items():
            check.spend(1)
            if _is_in(check, pattern, name) and (wrong := check.check(part, item)):
                return wrong.at(name, pattern)
    return None


def _additional_properties(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    if not isinstance(value, dict):
        return None
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    check.spend(len(value) // 8)
    for name, item in value.items():
        if name in known or any(_is_in(check, pattern, name) for pattern in patterns):
            continue
        if wrong := check.check(wanted, item):
            return wrong.at(name)
    return None


def _property_names(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    if not isinstance(value, dict):
        return None
    for name in value:
        if wrong := check.check(wanted, name):
            wrong.reason = f"of its name: {wrong.reason}"
            return wrong.at(name)
    return None


def _dependent_schemas(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    if not isinstance(value, dict):
        return None
    for name, part in wanted.items():
        if name in value and (wrong := check.check(part, value)):
            return wrong.at(None, name)
    return None


def _prefix_items(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    if not isinstance(value, list):
        return None
    for position, (part, item) in enumerate(zip(wanted, value, strict=False)):
        if wrong := check.check(part, item):
            return wrong.at(position, position)
    return None


def _items(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    if not isinstance(value, list):
        return None
    for position in range(len(schema.get("prefixItems", ())), len(value)):
        if wrong := check.check(wanted, value[position]):
            return wrong.at(position)
    return None


def _contains(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    if not isinstance(value, list):
        return None
    count = sum(check.check(wanted, item) is None for item in value)
    least, most = schema.get("minContains", 1), schema.get("maxContains", len(value))
    if least <= count <= most:
        return None
    wished = f"at least {least}" if count < least else f"at most {most}"
    return Wrong(f"{count:,} of its items are as the schema asks, {wished} should be")


def _unique_items(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    if not wanted or not isinstance(value, list):
        return None
    seen = set()
    for position, item in enumerate(value):
        known = _identified(check, item)
        if known in seen:
            return Wrong("it is there before").at(position)
        seen.add(known)
    return None


def _all_of(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    for number, part in enumerate(wanted):
        if wrong := check.check(part, value):
            return wrong.at(None, number)
    return None


def _any_of(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    wrongs = []
    for number, part in enumerate(wanted):
        wrong = check.check(part, value)
        if wrong is None:
            return None
        wrongs.append(wrong.at(None, number))
    return _closest(wrongs)


def _one_of(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    wrongs = []
    for number, part in enumerate(wanted):
        if wrong := check.check(part, value):
            wrongs.append(wrong.at(None, number))
    fitting = len(wanted) - len(wrongs)
    if fitting == 1:
        return None
    if fitting:
        return Wrong(f"it fits {fitting} of {len(wanted)} alternatives, and one is wanted")
    return _closest(wrongs)


def _closest(wrongs: list[Wrong]) -> Wrong:
    """Return what is wrong by the alternative that went furthest into the value."""
    furthest = max(wrongs, key=lambda wrong: len(wrong.path))
    if furthest.path or len(wrongs) == 1:
        return furthest
    return Wrong(f"it fits none of {len(wrongs)} alternatives, such as: {furthest.reason}")


def _not(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    return None if check.check(wanted, value) else Wrong("it is what the schema excludes")


def _if(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    branch = "else" if check.check(wanted, value) else "then"
    wrong = check.check(schema.get(branch, True), value)
    return wrong and wrong.at(None, branch)


def _reference(check: Checking, wanted: Any, value: Any, schema: Any) -> Wrong | None:
    return check.check(check.resolved(wanted), value)


KEYWORDS: dict[str, Rule] = {
    "$ref": _reference,
    "type": _type,
    "const": _const,
    "enum": _enum,
    "minimum": _limit(lambda value, wanted: value >= wanted, "at least"),
    "maximum": _limit(lambda value, wanted: value <= wanted, "at most"),
    "exclusiveMinimum": _limit(lambda value, wanted: value > wanted, "more than"),
    "exclusiveMaximum": _limit(lambda value, wanted: value < wanted, "less than"),
    "multipleOf": _multiple_of,
    "minLength": _length(str, lambda size, wanted: size >= wanted, "characters, not at least"),
    "maxLength": _length(str, lambda size, wanted: size <= wanted, "characters, not at most"),
    "pattern": _pattern,
    "format": _format,
    "minItems": _length(list, lambda size, wanted: size >= wanted, "items, not at least"),
    "maxItems": _length(list, lambda size, wanted: size <= wanted, "items, not at most"),
    "uniqueItems": _unique_items,
    "contains": _contains,
    "prefixItems": _prefix_items,
    "items": _items,
    "minProperties": _length(dict, lambda size, wanted: size >= wanted, "members, not at least"),
    "maxProperties": _length(dict, lambda size, wanted: size <= wanted, "members, not at most"),
    "required": _required,
    "dependentRequired": _dependent_required,
    "properties": _properties,
    "patternProperties": _pattern_properties,
    "additionalProperties": _additional_properties,
    "propertyNames": _property_names,
    "dependentSchemas": _dependent_schemas,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _one_of,
    "not": _not,
    "if": _if,
}
