"""Documents: refuse schemas that are wrong, or that could not be checked in a time that is known.

No reference ever leads out of a document, so nothing is fetched from anywhere.
"""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, best_match

from ..encoding import encode_body, path_of
from ..exceptions import InvalidMessage, InvalidSchema
from .formats import FORMATS
from .keywords import identity
from .patterns import Unsupported, compiled
from .validation import resolve

DRAFT = "https://json-schema.org/draft/2020-12/schema"
MAX_BYTES = 65_536
MAX_DEPTH = 32
# So many schemas may be asked about one value, references followed.
MAX_AT_ONCE = 1_000

# Keywords that hold a schema, a list of them, or schemas by name.
SINGLE = ("additionalProperties", "propertyNames", "items", "contains", "not", "if", "then", "else")
LISTS = ("prefixItems", "allOf", "anyOf", "oneOf")
BY_NAME = ("properties", "patternProperties", "dependentSchemas", "$defs", "definitions")
# Those of them that ask about the same value, not about a part of it.
OF_THE_SAME = frozenset(("allOf", "anyOf", "oneOf", "not", "if", "then", "else"))

REFUSED = {
    "$anchor": "give the place as '#/$defs/name'",
    "$dynamicAnchor": "use $ref",
    "$dynamicRef": "use $ref",
    "$recursiveAnchor": "use $ref",
    "$recursiveRef": "use $ref",
    "$vocabulary": "leave it out",
    "unevaluatedItems": "use items beside prefixItems",
    "unevaluatedProperties": "use additionalProperties",
    # Of older drafts, where they would be ignored in silence.
    "additionalItems": "use items beside prefixItems",
    "dependencies": "use dependentRequired or dependentSchemas",
}
Steps = tuple[str | int, ...]


def check_document(document: Any) -> None:
    """Refuse what is no usable JSON Schema: InvalidSchema has the place and the reason."""
    if not isinstance(document, Mapping):
        raise InvalidSchema("$", 'a schema is an object, such as {"type": "object"}')
    _check_json(document)
    if document.get("$schema", DRAFT) not in (DRAFT, f"{DRAFT}#"):
        raise InvalidSchema("$['$schema']", f"the draft is {DRAFT}, or not named")
    parts = dict(_parts(document, ()))
    for steps, part in parts.items():
        if isinstance(part, Mapping):
            _check_keywords(part, steps)
    _check_by_its_own_schema(document)
    for steps, part in parts.items():
        if isinstance(part, Mapping):
            _check_words(part, steps)
    _References(document, parts).check()


def is_same(document: Any, other: Any) -> bool:
    """Tell whether two documents are the same JSON: 1 is 1.0, and not true as in Python."""
    return identity(document) == identity(other)


def _check_json(document: Any) -> None:
    try:
        size = len(encode_body(document).encode())
    except InvalidMessage as error:
        raise InvalidSchema(error.path, error.reason) from error
    if size > MAX_BYTES:
        raise InvalidSchema("$", f"it takes {size:,} bytes of JSON, {MAX_BYTES:,} are the most")
    _check_depth(document, ())


def _check_depth(value: Any, steps: Steps) -> None:
    if len(steps) > MAX_DEPTH:
        raise InvalidSchema(path_of(steps), f"it is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, Mapping):
        for name, item in value.items():
            _check_depth(item, (*steps, name))
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            _check_depth(item, (*steps, position))


def _parts(schema: Any, steps: Steps) -> Iterator[tuple[Steps, Any]]:
    """Yield every schema in a schema, itself first, with its place."""
    yield steps, schema
    if not isinstance(schema, Mapping):
        return
    for keyword in SINGLE:
        if keyword in schema:
            yield from _parts(schema[keyword], (*steps, keyword))
    for keyword in LISTS:
        if isinstance(schema.get(keyword), list | tuple):
            for position, part in enumerate(schema[keyword]):
                yield from _parts(part, (*steps, keyword, position))
    for keyword in BY_NAME:
        if isinstance(schema.get(keyword), Mapping):
            for name, part in schema[keyword].items():
                yield from _parts(part, (*steps, keyword, name))


def _check_keywords(schema: Mapping[str, Any], steps: Steps) -> None:
    for keyword in schema:
        if keyword in REFUSED:
            place = path_of((*steps, keyword))
            raise InvalidSchema(place, f"{keyword} is not supported: {REFUSED[keyword]}")
    if steps and "$id" in schema:
        raise InvalidSchema(path_of((*steps, "$id")), "only the whole document may have an $id")


def _check_by_its_own_schema(document: Any) -> None:
    validator = Draft202012Validator(Draft202012Validator.META_SCHEMA)
    error: SchemaError | Any = best_match(validator.iter_errors(document))
    if error is not None:
        raise InvalidSchema(path_of(error.absolute_path), f"this is no JSON Schema: {_told(error)}")


def _told(error: Any) -> str:
    message = str(error.message)
    return message if len(message) <= 200 else f"{message[:200]}..."


def _check_words(schema: Mapping[str, Any], steps: Steps) -> None:
    patterns: list[tuple[Steps, Any]] = [
        (("patternProperties", each), each) for each in schema.get("patternProperties", ())
    ]
    if "pattern" in schema:
        patterns.append((("pattern",), schema["pattern"]))
    for place, pattern in patterns:
        try:
            compiled(pattern)
        except Unsupported as error:
            raise InvalidSchema(path_of((*steps, *place)), f"the pattern: {error}") from error
    if (name := schema.get("format")) is not None and name not in FORMATS:
        close = get_close_matches(name, FORMATS, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else f"use {', '.join(FORMATS)}"
        raise InvalidSchema(path_of((*steps, "format")), f"unknown format {name[:80]!r}; {remedy}")


class _References:
    """Where the references of a document lead, and how often one value would be asked about."""

    def __init__(self, document: Any, parts: Mapping[Steps, Any]) -> None:
        self._document = document
        self._parts = parts
        self._places = {id(part): steps for steps, part in parts.items()}
        self._counts: dict[Steps, int] = {}

    def check(self) -> None:
        for steps, part in self._parts.items():
            if isinstance(part, Mapping) and "$ref" in part:
                self._target(steps, part["$ref"])
        for steps in self._parts:
            self._count(steps, ())

    def _target(self, steps: Steps, reference: str) -> Steps:
        place = path_of((*steps, "$ref"))
        if reference != "#" and not reference.startswith("#/"):
            raise InvalidSchema(
                place,
                f"{reference[:80]!r} leads out of the document, and nothing is fetched: copy it "
                f"into $defs and use '#/$defs/name'",
            )
        try:
            found = resolve(self._document, reference)
        except (LookupError, TypeError, ValueError):
            found = None
        if isinstance(found, Mapping) and id(found) in self._places:
            return self._places[id(found)]
        raise InvalidSchema(place, f"{reference[:80]!r} leads to no schema of this document")

    def _count(self, steps: Steps, above: tuple[Steps, ...]) -> int:
        """Count the schemas that a schema asks about one and the same value."""
        if steps in above:
            place = path_of((*steps, "$ref"))
            raise InvalidSchema(place, "this leads back to itself, without going into the value")
        if steps not in self._counts:
            inside = [self._count(each, (*above, steps)) for each in self._same(steps)]
            self._counts[steps] = 1 + sum(inside)
        if self._counts[steps] > MAX_AT_ONCE:
            raise InvalidSchema(
                path_of(steps),
                f"with its references this asks one value for more than {MAX_AT_ONCE:,} schemas",
            )
        return self._counts[steps]

    def _same(self, steps: Steps) -> Iterator[Steps]:
        schema = self._parts[steps]
        if not isinstance(schema, Mapping):
            return
        if "$ref" in schema:
            yield self._target(steps, schema["$ref"])
        for keyword in OF_THE_SAME & schema.keys():
            if keyword in LISTS:
                yield from ((*steps, keyword, position) for position in range(len(schema[keyword])))
            else:
                yield (*steps, keyword)
        yield from (
            (*steps, "dependentSchemas", name) for name in schema.get("dependentSchemas", ())
        )
