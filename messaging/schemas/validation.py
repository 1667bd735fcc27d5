"""Validate: find the first place where a value is not what a schema asks for.

Every step counts, and there is a limit to them: neither a schema that asks the same again and again
nor a body made for the purpose can keep a publisher busy.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..encoding import path_of
from .keywords import KEYWORDS, TooMuch, Wrong

# About three seconds of work.
MAX_STEPS = 1_000_000
MAX_RULE = 200


class Fault(NamedTuple):
    """What is wrong: the path in the body, why, and the place in the schema that says so."""

    path: str
    reason: str
    rule: str


class Validator:
    """A schema that was checked, ready to hold any number of values against.

    ``root`` is the document that its references lead into, where it is a part of one.
    """

    def __init__(self, schema: Any, root: Any = None) -> None:
        self._schema = schema
        self._root = schema if root is None else root

    def fault(self, value: Any) -> Fault | None:
        """Return what is wrong with a value, the deepest place where there are several."""
        try:
            wrong = Check(self._root).check(self._schema, value)
        except (TooMuch, RecursionError):
            reason = (
                f"it takes more than {MAX_STEPS:,} steps to tell whether this is what the schema "
                f"asks for: send less at a time, or have a simpler schema"
            )
            return Fault("$", reason, "#")
        if wrong is None:
            return None
        rule = "#" + "".join(f"/{_escaped(step)}" for step in reversed(wrong.rule))
        return Fault(path_of(reversed(wrong.path)), wrong.reason, rule[:MAX_RULE])


class Check:
    """One value on its way through a schema."""

    __slots__ = ("_root", "left")

    def __init__(self, root: Any) -> None:
        self._root = root
        self.left = MAX_STEPS

    def spend(self, steps: int) -> None:
        """Count work, and give up when it is too much."""
        self.left -= steps
        if self.left < 0:
            raise TooMuch

    def check(self, schema: Any, value: Any) -> Wrong | None:
        """Return the first thing that is wrong with a value."""
        self.spend(1)
        if schema is True:
            return None
        if schema is False:
            return Wrong("it is not allowed")
        for keyword, wanted in schema.items():
            rule = KEYWORDS.get(keyword)
            if rule is None:
                continue
            self.spend(1)
            wrong = rule(self, wanted, value, schema)
            if wrong is not None:
                wrong.rule.append(keyword)
                return wrong
        return None

    def resolved(self, reference: str) -> Any:
        """Return the part of the document that a reference leads to."""
        return resolve(self._root, reference)


def resolve(root: Any, reference: str) -> Any:
    """Return the part of a document that ``#/$defs/line`` leads to, or raise LookupError."""
    found = root
    for step in reference.removeprefix("#").split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        found = found[step] if isinstance(found, Mapping) else found[int(step)]
    return found


def _escaped(step: str | int) -> str:
    return str(step).replace("~", "~0").replace("/", "~1")
