"""Compatibility: tell whether one schema accepts all that another one accepts.

In doubt it does not: keywords that are not compared have to be the same in both.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ..encoding import path_of
from ..exceptions import IncompatibleSchema
from .keywords import TooMuch, identity, shown
from .patterns import compiled
from .validation import MAX_STEPS, Check, resolve

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
    (
        *("type", "enum", "const", "required", "properties", "additionalProperties", "items"),
        *("$ref", "allOf", "anyOf", *LOWEST, *HIGHEST),
    )
)
# What a limit is about; of all others it is numbers.
ABOUT = {"Length": "string", "Items": "array", "Properties": "object"}
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
    try:
        return _Comparison(wide, narrow).compare(wide, narrow, ())
    except (TooMuch, RecursionError):
        return (), f"it takes more than {MAX_STEPS:,} steps to compare them"


class _Comparison:
    def __init__(self, wide: Any, narrow: Any) -> None:
        self._wide, self._narrow = wide, narrow
        self._check = Check(wide)
        # Pairs on the way here: what they lead to is being compared already.
        self._open: set[tuple[int, int]] = set()
        # Whether a reference to a definition means the same in both.
        definitions = [_definitions(wide), _definitions(narrow)]
        self._is_same_definition = identity(definitions[0]) == identity(definitions[1]) and all(
            map(_is_to_definition, _references(definitions[0]))
        )

    def compare(self, wide: Any, narrow: Any, path: tuple[str | int, ...]) -> Difference | None:
        self._check.spend(10)
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
            return self._alternatives(wide, narrow, path)
        finally:
            self._open.discard((id(wide), id(narrow)))

    def _alternatives(self, wide: Any, narrow: Any, path: Any) -> Difference | None:
        """Compare the whole, else what it is a part of, else each of its alternatives."""
        found = self._values(wide, narrow, path)
        if found is None:
            return None
        for part in self._conjuncts(narrow, self._narrow):
            if self.compare(wide, part, path) is None:
                return None
        for keyword in ("anyOf", "oneOf"):
            if keyword in narrow:
                each = [self.compare(wide, part, path) for part in narrow[keyword]]
                if not any(each):
                    return None
                found = next(filter(None, each))
        return found

    def _values(self, wide: Any, narrow: Any, path: Any) -> Difference | None:
        if "const" in narrow or "enum" in narrow:
            return self._enumerated(wide, narrow, path)
        if "const" in wide or "enum" in wide:
            return path, "only some values are accepted"
        types = _types(narrow)
        if types - _types(wide):
            return path, "its types are fewer"
        for part in self._conjuncts(wide, self._wide):
            if found := self.compare(part, narrow, path):
                return found
        if "anyOf" in wide and not self._is_any_of(wide["anyOf"], narrow, path):
            return (*path, "anyOf"), "none of the alternatives is known to accept it"
        for keyword in ("patternProperties", "prefixItems", *(wide.keys() - COMPARED - SILENT)):
            if not self._is_same(keyword, wide, narrow):
                return (*path, keyword), f"{keyword} is another and cannot be compared"
        for keyword in (*LOWEST, *HIGHEST):
            if keyword not in wide or not _is_about(keyword, types):
                continue
            if not _is_kept(keyword, wide[keyword], narrow.get(keyword)):
                return (*path, keyword), f"{keyword} is stricter"
        return self._parts(wide, narrow, path, types)

    def _enumerated(self, wide: Any, narrow: Any, path: Any) -> Difference | None:
        """Hold every value against the schema; of a long list in one look."""
        allowed = set(map(identity, wide["enum"])) if "enum" in wide else None
        rest = {keyword: wanted for keyword, wanted in wide.items() if keyword != "enum"}
        for value in [narrow["const"]] if "const" in narrow else narrow["enum"]:
            if allowed is not None and identity(value) not in allowed:
                return path, f"it is none of {shown(wide['enum'])}"
            if wrong := self._check.check(rest, value):
                return path, wrong.reason
        return None

    def _conjuncts(self, schema: Any, root: Any) -> Iterator[Any]:
        """Yield the schemas that a value has to fulfil as well."""
        if "$ref" in schema:
            yield resolve(root, schema["$ref"])
        yield from schema.get("allOf", ())

    def _is_any_of(self, parts: Any, narrow: Any, path: Any) -> bool:
        def is_in_one(schema: Any) -> bool:
            return any(self.compare(part, schema, path) is None for part in parts)

        return is_in_one(narrow) or any(
            keyword in narrow and all(map(is_in_one, narrow[keyword]))
            for keyword in ("anyOf", "oneOf")
        )

    def _is_same(self, keyword: str, wide: Any, narrow: Any) -> bool:
        if keyword == "contains" and not all(
            self._is_same(each, wide, narrow) for each in ("minContains", "maxContains")
        ):
            return False
        if keyword not in wide or keyword not in narrow:
            return keyword not in wide and keyword not in narrow
        references = list(_references(wide[keyword]))
        if references and not (
            self._is_same_definition and all(map(_is_to_definition, references))
        ):
            return False
        return identity(wide[keyword]) == identity(narrow[keyword])

    def _parts(self, wide: Any, narrow: Any, path: Any, types: Any) -> Difference | None:
        if "object" in types:
            for name in wide.get("required", ()):
                if name not in narrow.get("required", ()):
                    return (*path, name), "it is required"
            names = [*wide.get("properties", {}), *narrow.get("properties", {})]
            for name in dict.fromkeys(names):
                # What a pattern is for is no additional property; what it asks is the same in both.
                known = True if self._has_pattern(narrow, name) else _property(narrow, name)
                if found := self.compare(_property(wide, name), known, (*path, name)):
                    return found
            others = wide.get("additionalProperties", True)
            if found := self.compare(others, narrow.get("additionalProperties", True), path):
                return found[0], f"other properties: {found[1]}"
        if "array" in types:
            return self.compare(wide.get("items", True), narrow.get("items", True), (*path, 0))
        return None

    def _has_pattern(self, schema: Any, name: str) -> bool:
        """Tell whether a property is there by a pattern alone."""
        return name not in schema.get("properties", {}) and any(
            compiled(pattern).is_in(name, self._check.spend)
            for pattern in schema.get("patternProperties", ())
        )


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


def _is_about(keyword: str, types: frozenset[str]) -> bool:
    for ending, name in ABOUT.items():
        if keyword.endswith(ending):
            return name in types
    return "integer" in types


def _definitions(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return {}
    return {name: schema[name] for name in ("$defs", "definitions") if name in schema}


def _is_to_definition(reference: str) -> bool:
    return reference.startswith(("#/$defs/", "#/definitions/"))


def _references(value: Any) -> Iterator[str]:
    """Yield all references, and what only looks like one."""
    if isinstance(value, Mapping):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)
