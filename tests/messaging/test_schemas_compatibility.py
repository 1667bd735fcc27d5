"""A new version of a schema is compatible only when all bodies of the other one are valid."""

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from messaging.exceptions import IncompatibleSchema, InvalidSchema
from messaging.schemas import Validator, check_compatible, check_document, difference

OBJECT = {"type": "object"}
CLOSED = {"type": "object", "additionalProperties": False}
AMOUNT = {"$ref": "#/$defs/amount"}


def defined(amount: Any, **schema: Any) -> Any:
    return {"$defs": {"amount": amount}, **schema}


def nested(levels: int, leaf: Any) -> Any:
    """Return a schema that two references of each level lead through, again and again."""
    inner = [
        {"properties": {"a": {"$ref": f"#/$defs/{n + 1}"}, "b": {"$ref": f"#/$defs/{n + 1}"}}}
        for n in range(levels)
    ]
    definitions = {str(number): schema for number, schema in enumerate([*inner, leaf])}
    return {"$defs": definitions, "$ref": "#/$defs/0"}


# Two schemas of which the first accepts all that the second one does.
WIDER: list[tuple[Any, Any]] = [
    ({}, {"type": "string", "minLength": 2}),
    ({"type": "number"}, {"type": "integer"}),
    ({"type": ["string", "null"]}, {"type": "string"}),
    ({"type": ["string", "integer"], "minLength": 1}, {"type": "integer"}),
    ({"enum": ["a", "b", "c"]}, {"enum": ["c", "a"]}),
    ({"enum": [1, 2]}, {"const": 1.0}),
    ({"type": "string"}, {"enum": ["a", "b"]}),
    ({"minimum": 1, "maximum": 5}, {"minimum": 1.5, "maximum": 5}),
    ({"exclusiveMinimum": 1}, {"exclusiveMinimum": 2}),
    ({"type": "string", "maxLength": 9}, {"type": "string", "maxLength": 8}),
    ({"required": ["a"]}, {"required": ["b", "a"]}),
    (OBJECT | {"properties": {"a": {}}}, OBJECT),
    (CLOSED | {"properties": {"a": {"type": "string"}}}, CLOSED),
    (OBJECT | {"additionalProperties": {"type": "number"}}, CLOSED),
    (OBJECT | {"properties": {"a": {"type": "string"}}}, CLOSED),
    ({"items": {"type": "number"}}, {"items": {"type": "integer"}}),
    ({"type": "array", "minItems": 1}, {"type": "array", "minItems": 2, "uniqueItems": True}),
    ({"type": ["string", "integer"]}, {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
    ({"anyOf": [{"type": "string"}, {"minimum": 1}]}, {"minimum": 2}),
    ({"anyOf": [{"const": 1}, {"const": 2}, OBJECT]}, {"anyOf": [{"const": 2}, CLOSED]}),
    ({"anyOf": [{"type": "string"}, OBJECT]}, {"oneOf": [{"type": "string"}, CLOSED]}),
    ({"oneOf": [{"type": "string"}, OBJECT]}, {"oneOf": [{"type": "string"}, OBJECT]}),
    ({"allOf": [OBJECT, {"required": ["a"]}]}, OBJECT | {"required": ["a"]}),
    (OBJECT | {"required": ["a"]}, {"allOf": [OBJECT | {"required": ["a"]}, {"minProperties": 1}]}),
    (defined({"type": "number"}, **AMOUNT), defined({"type": "integer"}, **AMOUNT)),
    (defined({"minimum": 0}, anyOf=[AMOUNT]), defined({"minimum": 0}, anyOf=[AMOUNT])),
    (defined({"minimum": 0}, **AMOUNT, type="number"), {"type": "integer", "minimum": 3}),
    (
        {"type": "object", "properties": {"next": {"$ref": "#"}, "n": {"type": "number"}}},
        {"type": "object", "properties": {"next": {"$ref": "#"}, "n": {"type": "integer"}}},
    ),
    ({"contains": OBJECT, "minContains": 2}, {"contains": OBJECT, "minContains": 2, "maxItems": 3}),
    ({"enum": list(range(5_000))}, {"enum": list(range(4_000))}),
    (nested(8, {}), nested(8, {"type": "string"})),
]
# The first refuses something that the second accepts, or that cannot be told; where it is said.
OTHERS: list[tuple[Any, Any, str]] = [
    (False, {}, "$"),
    ({"type": "integer"}, {"type": "number"}, "$"),
    ({"type": "string"}, {}, "$"),
    ({"enum": ["a"]}, {"enum": ["a", "b"]}, "$"),
    ({"enum": [1]}, {"enum": [True]}, "$"),
    ({"const": 1}, {"type": "integer"}, "$"),
    ({"enum": [1, 2], "minimum": 2}, {"enum": [1]}, "$"),
    ({"minimum": 2}, {"minimum": 1}, "$.minimum"),
    ({"maximum": 2}, {}, "$.maximum"),
    ({"maxLength": 2}, {"type": ["string", "null"]}, "$.maxLength"),
    ({"required": ["a", "b"]}, {"required": ["a"]}, "$.b"),
    (OBJECT | {"properties": {"a": {"type": "string"}}}, OBJECT, "$.a"),
    (CLOSED, CLOSED | {"properties": {"a": {}}}, "$.a"),
    (CLOSED, OBJECT, "$"),
    ({"items": {"type": "integer"}}, {"items": {"type": "number"}}, "$[0]"),
    ({"anyOf": [{"type": "string"}]}, {"anyOf": [{"type": "string"}, OBJECT]}, "$.anyOf"),
    ({"anyOf": [{"type": "string"}, OBJECT]}, {"type": ["string", "object"]}, "$.anyOf"),
    ({"oneOf": [{"minimum": 1}, {"minimum": 2}]}, {"minimum": 1}, "$.oneOf"),
    ({"allOf": [OBJECT, {"required": ["a"]}]}, OBJECT, "$.a"),
    (defined({"minimum": 2}, oneOf=[AMOUNT]), defined({"minimum": 1}, oneOf=[AMOUNT]), "$.oneOf"),
    (
        defined({"type": "integer"}, **AMOUNT, minimum=0),
        defined({"type": "number"}, **AMOUNT, minimum=0),
        "$",
    ),
    ({"not": {"const": 1}}, {"not": {"const": True}}, "$.not"),
    ({"contains": OBJECT}, {"contains": OBJECT, "minContains": 0}, "$.contains"),
    (
        {"properties": {"ab": {"type": "string"}}, "patternProperties": {"^a": {}}} | CLOSED,
        {"patternProperties": {"^a": {}}} | CLOSED,
        "$.ab",
    ),
    (nested(40, {"type": "string"}), nested(40, {}), "$" + ".a" * 40),
    (nested(40, {}), nested(40, {"type": "string"}), "$"),  # too much work to tell
]


@pytest.mark.parametrize(("wide", "narrow"), WIDER)
def test_what_accepts_all_that_the_last_version_did_is_compatible(wide: Any, narrow: Any) -> None:
    assert difference(wide, narrow) is None
    check_compatible(narrow, wide, "backward")
    check_compatible(wide, narrow, "forward")


@pytest.mark.parametrize(("wide", "narrow", "place"), OTHERS)
def test_what_does_not_is_refused_with_its_place(wide: Any, narrow: Any, place: str) -> None:
    for promise, before, after in (("backward", narrow, wide), ("forward", wide, narrow)):
        with pytest.raises(IncompatibleSchema) as refused:
            check_compatible(before, after, promise)
        assert refused.value.path == place
        check_compatible(before, after, "none")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"type": "integer"}, {"type": "number"}, "this accepts what the last version does not"),
        ({"type": "number"}, {"type": "integer"}, "the last version accepts what this one does"),
    ],
)
def test_full_compatibility_goes_both_ways(before: Any, after: Any, told: str) -> None:
    with pytest.raises(IncompatibleSchema, match=told):
        check_compatible(before, after, "full")
    check_compatible(before, before | {"title": "Amount"}, "full")


NAMES = ("a", "ab", "b")
BODIES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 2, 3, 1.5, 1.0, "", "a", "ab", "abc"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=6,
)
# Every small value: what one version alone refuses is mostly among them.
SMALL = [None, True, 0, 1, 2, 3, 1.5, "", "a", "ab", "abc", [{}], [{"a": 1}], {"a": {"b": 1}}]
SMALL += [
    list(each) for size in range(3) for each in itertools.product((1, True, "a"), repeat=size)
]
SMALL += [
    dict(zip(names, values, strict=True))
    for size in range(4)
    for names in itertools.combinations(NAMES, size)
    for values in itertools.product((1, "ab"), repeat=size)
]
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
NUMBERS = st.integers(0, 3)
DEFINITIONS = ("one", "two")


def schemas(inner: Any) -> Any:
    """Return a strategy of schemas whose keywords are chosen at random."""
    parts = st.lists(inner, min_size=1, max_size=3)
    properties = st.dictionaries(st.sampled_from(NAMES), inner, max_size=2)
    keywords: dict[str, Any] = {
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
        "enum": st.lists(BODIES, min_size=1, max_size=3),
        "const": BODIES,
        "required": st.lists(st.sampled_from(NAMES), max_size=2, unique=True),
        "properties": properties,
        "additionalProperties": inner,
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=1),
        "propertyNames": inner,
        "items": inner,
        "prefixItems": parts,
        "contains": inner,
        "uniqueItems": st.booleans(),
        "anyOf": parts,
        "oneOf": parts,
        "allOf": parts,
        "not": inner,
        "if": inner,
        "then": inner,
        "else": inner,
        "$ref": st.sampled_from([f"#/$defs/{name}" for name in DEFINITIONS]),
    }
    limits = ("Length", "Items", "Properties", "Contains", "imum")
    keywords |= {f"{end}{what}": NUMBERS for end in ("min", "max") for what in limits}
    # Half of them are the ones that people use, which are compared.
    common = ["type", "enum", "required", "properties", "additionalProperties", "items", "anyOf"]
    names = st.sampled_from(common) | st.sampled_from(sorted(keywords))
    chosen = st.lists(names, min_size=1, max_size=3, unique=True)
    return chosen.flatmap(lambda names: st.fixed_dictionaries({n: keywords[n] for n in names}))


PARTS = st.recursive(st.booleans() | schemas(st.booleans()), schemas, max_leaves=4)
DOCUMENTS = st.builds(
    lambda schema, one, two: {**schema, "$defs": {"one": one, "two": two}},
    schemas(PARTS),
    st.booleans() | schemas(st.booleans()),
    st.booleans() | schemas(st.booleans()),
)


@st.composite
def versions(draw: Any) -> tuple[Any, Any]:
    """Draw a schema, and another one that is often nearly the same."""
    old = draw(DOCUMENTS)
    return old, draw(st.just(changed(draw, old)) | DOCUMENTS)


def changed(draw: Any, schema: Any) -> Any:
    """Change one keyword somewhere in a schema: leave it out, or take that of another one."""
    if not isinstance(schema, dict) or not schema:
        return draw(PARTS)
    name = draw(st.sampled_from(sorted(schema)))
    value = schema[name]
    if name in ("$defs", "properties", "patternProperties") and value:
        inside = draw(st.sampled_from(sorted(value)))
        return schema | {name: value | {inside: changed(draw, value[inside])}}
    if isinstance(value, dict) and draw(st.booleans()):
        return schema | {name: changed(draw, value)}
    if draw(st.booleans()):
        return schema | draw(schemas(st.booleans()))
    return {each: schema[each] for each in schema if each != name or name == "$defs"}


@settings(max_examples=200, deadline=None)
@given(versions(), st.lists(BODIES, max_size=10))
def test_what_is_taken_for_compatible_accepts_every_body(pair: Any, bodies: list[Any]) -> None:
    old, new = pair
    try:
        check_document(old)
        check_document(new)
        check_compatible(old, new, "backward")
    except InvalidSchema:
        return
    for body in SMALL + bodies:
        if Validator(old).fault(body) is None:
            assert Validator(new).fault(body) is None, body
