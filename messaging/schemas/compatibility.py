"""Compatibility: tell whether one schema accepts all that another one accepts.

In doubt it does not: keywords that are not compared have to be the same in both.
"""

from collections.abc import Mapping
from typing import Any

from ..encoding import path_of
from ..exceptions import IncompatibleSchema
from .validation import Validator, resolve

TYPES = frozenset(("null", "boolean", "integer", "number", "string", "array", "object"))
LOWEST = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
HIGHEST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
# What says nothing about which values are accepted.
SILENT = frozenset(
    (
        *("$schema", "$id", "$comment", "$defs", "definitions"),
        *("title", "description", "default", "deprecated", "examples", "readOnly", "writeOnly"),
        *("contentEncoding", "contentMediaType", "contentSchema"),
    )
)
COMPARED = frozenset(
    ("type", "enum", "const", "required", "properties", "additionalProperties", "items")
) | {*LOWEST, *HIGHEST}
Difference = tuple[tuple[str | int, ...], str]


def check_compatible(before: Any, after: Any, promise: str) -> None:
    """Refuse a new version that breaks the promise: IncompatibleSchema has the path and reason."""
    if promise in ("backward", "full") and (found := difference(after, before)):
        raise IncompatibleSchema(
            path_of(found[0]), f"the last version accepts what this one does not ({found[1]})"
        )
    if promise in ("forward", "full") and (found := difference(before, after)):
        raise IncompatibleSchema(
            path_of(found[0]), f"this accepts what the last version does not ({found[1]})"
        )


def difference(wide: Any, narrow: Any) -> Difference | None:
    """Return where ``wide`` may refuse what ``narrow`` accepts, and why; None: nowhere."""
    return _Comparison(wide, narrow).compare(wide, narrow, ())


class _Comparison:
    def __init__(self, wide: Any, narrow: Any) -> None:
        self._wide, self._narrow = wide, narrow
        # References compared on the way here: what they lead to is being compared already.
        self._open: set[tuple[int, int]] = set()

    def compare(self, wide: Any, narrow: Any, path: tuple[str | int, ...]) -> Difference | None:
        wide, narrow = _plain(wide, self._wide), _plain(narrow, self._narrow)
        if wide is True or narrow is False:
            return None
        if wide is False:
            return path, "nothing is accepted here"
        narrow = {} if narrow is True else narrow
        if (id(wide), id(narrow)) in self._open:
            return None
        self._open.add((id(wide), id(narrow)))
        try:
            return self._values(wide, narrow, path)
        finally:
            self._open.discard((id(wide), id(narrow)))

    def _values(self, wide: Any, narrow: Any, path: Any) -> Difference | None:
        if "const" in narrow or "enum" in narrow:
            for value in [narrow["const"]] if "const" in narrow else narrow["enum"]:
                if fault := Validator(wide, self._wide).fault(value):
                    return path, fault.reason
            return None
        if "const" in wide or "enum" in wide:
            return path, "only some values are accepted"
        for keyword in ("patternProperties", "prefixItems"):
            if wide.get(keyword) != narrow.get(keyword) or _has_reference(wide.get(keyword)):
                return (*path, keyword), f"{keyword} is another and cannot be compared"
        types = _types(narrow)
        if types - _types(wide) - ({"integer"} if "number" in _types(wide) else set()):
            return path, "its types are fewer"
        for keyword in wide.keys() - COMPARED - SILENT:
            if wide[keyword] != narrow.get(keyword) or _has_reference(wide[keyword]):
                return (*path, keyword), f"{keyword} is another and cannot be compared"
        for keyword in (*LOWEST, *HIGHEST):
            if keyword in wide and not _is_kept(keyword, wide[keyword], narrow.get(keyword)):
                return (*path, keyword), f"{keyword} is stricter"
        return self._parts(wide, narrow, path, types)

    def _parts(self, wide: Any, narrow: Any, path: Any, types: Any) -> Difference | None:
        if "object" in types:
            for name in wide.get("required", ()):
                if name not in narrow.get("required", ()):
                    return (*path, name), "it is required"
            names = [*wide.get("properties", {}), *narrow.get("properties", {})]
            for name in dict.fromkeys(names):
                found = self.compare(_property(wide, name), _property(narrow, name), (*path, name))
                if found:
                    return found
            others = wide.get("additionalProperties", True)
            if found := self.compare(others, narrow.get("additionalProperties", True), path):
                return found[0], f"other properties: {found[1]}"
        if "array" in types:
            return self.compare(wide.get("items", True), narrow.get("items", True), (*path, 0))
        return None


def _plain(schema: Any, root: Any) -> Any:
    """Follow a reference that stands alone."""
    while (
        isinstance(schema, Mapping) and "$ref" in schema and not schema.keys() - SILENT - {"$ref"}
    ):
        schema = resolve(root, schema["$ref"])
    return schema


def _is_kept(keyword: str, wide: float, narrow: float | None) -> bool:
    if narrow is None:
        return False
    return wide <= narrow if keyword in LOWEST else wide >= narrow


def _types(schema: Any) -> frozenset[str]:
    found = schema.get("type", TYPES)
    types = frozenset((found,)) if isinstance(found, str) else frozenset(found)
    return types | {"integer"} if "number" in types else types


def _property(schema: Any, name: str) -> Any:
    properties = schema.get("properties", {})
    return properties[name] if name in properties else schema.get("additionalProperties", True)


def _has_reference(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "$ref" in value or any(map(_has_reference, value.values()))
    return isinstance(value, list) and any(map(_has_reference, value))
