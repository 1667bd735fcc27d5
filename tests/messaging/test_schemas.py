"""A topic with a schema takes what the version that counts asks for, and nothing else."""

from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from messaging import InvalidMessage, consuming, control, publish, publish_many
from messaging.exceptions import IncompatibleSchema, InvalidSchema
from messaging.models import Message, Topic
from messaging.schemas import Validator
from messaging.store import validating
from messaging.sync import synchronise

pytestmark = pytest.mark.usefixtures("bare")

ORDER = {
    "type": "object",
    "required": ["id", "lines"],
    "properties": {
        "id": {"type": "integer"},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
    },
    "$defs": {"line": {"type": "object", "properties": {"price": {"type": "number"}}}},
}
GOOD = {"id": 1, "lines": [{"price": 1.5}]}
BAD = {"id": 1, "lines": [{"price": 1}, {}, {"price": "secret"}]}


@pytest.fixture
def placed(topic: Callable[..., Topic]) -> Topic:
    """Return a topic whose schema counts."""
    found = topic()
    control.add_schema(found.name, ORDER)
    control.use_schema(found.name, 1)
    return found


@pytest.mark.parametrize("options", [{}, {"delay": 60}, {"deduplication_id": "a"}])
def test_a_body_is_refused_with_its_path(placed: Topic, options: dict[str, Any]) -> None:
    publish(placed.name, GOOD, **options)
    with pytest.raises(InvalidMessage, match=r"version 1, #/properties/lines") as refused:
        publish(placed.name, BAD, **options)
    assert refused.value.path == "$.lines[2].price"
    assert refused.value.index is None
    assert "secret" not in str(refused.value)
    assert Message.objects.count() == 1


@pytest.mark.parametrize("count", [2, 600])
def test_a_batch_is_refused_with_the_index_and_nothing_is_stored(placed: Topic, count: int) -> None:
    with pytest.raises(InvalidMessage) as refused:
        publish_many(placed.name, [GOOD] * (count - 1) + [BAD])
    assert refused.value.index == count - 1
    assert not Message.objects.exists()
    assert len(publish_many(placed.name, [GOOD] * count)) == count


def test_another_version_counts_at_once(placed: Topic) -> None:
    publish(placed.name, GOOD)
    Topic.objects.update(compatibility="none")
    control.add_schema(placed.name, {"type": "string"})
    publish(placed.name, GOOD)
    assert control.use_schema(placed.name, 2)
    with pytest.raises(InvalidMessage, match="version 2"):
        publish(placed.name, GOOD)
    publish(placed.name, "text")
    control.use_schema(placed.name, None)
    publish(placed.name, 5)


def test_a_known_version_costs_one_statement(
    placed: Topic, django_assert_num_queries: Callable[..., Any]
) -> None:
    publish(placed.name, GOOD)
    with django_assert_num_queries(1):
        publish(placed.name, GOOD)


def test_the_same_document_is_no_new_version(placed: Topic) -> None:
    assert control.add_schema(placed.name, ORDER).version == 1
    assert len(control.schemas(placed.name)) == 1


def test_a_document_that_python_alone_takes_for_the_same_is_a_new_version(
    topic: Callable[..., Topic],
) -> None:
    name = topic(compatibility="none").name
    assert control.add_schema(name, {"const": 1}).version == 1
    assert control.add_schema(name, {"const": True}).version == 2
    assert control.add_schema(name, {"const": True}).version == 2


def test_a_new_version_keeps_what_the_topic_promises(placed: Topic) -> None:
    stricter = ORDER | {"required": ["id", "lines", "customer"]}
    with pytest.raises(IncompatibleSchema, match=r"\$\.customer: .*required"):
        control.add_schema(placed.name, stricter)
    assert control.add_schema(placed.name, ORDER | {"required": ["id"]}).version == 2


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"$ref": "https://example.com/order.json"}, "$"),
        ({"$ref": "#"}, "$"),
        ({"type": "strng"}, "$.type"),
        ({"properties": {"at": {"format": "datetime"}}}, "$.properties.at.format"),
        ({"pattern": "(a)\\1"}, "$.pattern"),
        ({"unevaluatedProperties": False}, "$.unevaluatedProperties"),
        ([], "$"),
    ],
)
def test_what_is_no_usable_schema_is_refused_with_its_path(
    topic: Callable[..., Topic], document: Any, path: str
) -> None:
    with pytest.raises(InvalidSchema) as refused:
        control.add_schema(topic().name, document)
    assert refused.value.path.startswith(path)


def test_no_pattern_keeps_a_publisher_busy() -> None:
    validator = Validator({"pattern": "^(a+)+$"})
    assert validator.fault("a" * 100_000) is None
    assert validator.fault("a" * 100_000 + "b") is not None


def test_a_declared_schema_is_the_first_version_and_never_overwrites(
    declared: consuming.Declarations,
) -> None:
    consuming.declare_topic("orders.placed", schema=ORDER)
    synchronise()
    with pytest.raises(InvalidMessage):
        publish("orders.placed", BAD)
    consuming.declare_topic("orders.placed", schema={"type": "string"})
    synchronise()
    assert [each.document for each in control.schemas("orders.placed")] == [ORDER]


def test_a_wrong_schema_is_refused_where_it_is_declared() -> None:
    with pytest.raises(InvalidSchema):
        consuming.declare_topic("orders.placed", schema={"type": "strng"})


def test_a_version_that_changes_meanwhile_is_the_one_that_counts(
    placed: Topic, monkeypatch: pytest.MonkeyPatch
) -> None:
    Topic.objects.update(compatibility="none")
    control.add_schema(placed.name, {"type": "string"})
    checked = validating._checked

    def check(*args: Any) -> Any:
        found = checked(*args)
        control.use_schema(placed.name, 2)
        return found

    monkeypatch.setattr(validating, "_checked", check)
    with pytest.raises(InvalidMessage, match="version 2"):
        publish(placed.name, GOOD)
    assert not Message.objects.exists()


@pytest.mark.parametrize(
    "schema",
    [
        {"enum": [1, "a", [1, True], None]},
        {"const": {"a": 1.0}},
        {"type": ["integer", "null"]},
        {"multipleOf": 2},
        {"minItems": 2, "uniqueItems": True},
        {"contains": {"type": "integer"}, "maxContains": 1},
        {"prefixItems": [{"type": "integer"}], "items": {"type": "boolean"}},
        {"properties": {"a": {"minimum": 1}}, "additionalProperties": {"type": "string"}},
        {"patternProperties": {"^a": {"type": "integer"}}, "additionalProperties": False},
        {"propertyNames": {"maxLength": 1}, "dependentRequired": {"a": ["b"]}},
        {"oneOf": [{"type": "integer"}, {"minimum": 2}]},
        {"anyOf": [{"type": "string", "minLength": 2}, {"not": {"type": ["string", "object"]}}]},
        {"if": {"type": "object"}, "then": {"minProperties": 2}, "else": {"type": "array"}},
    ],
)
def test_what_is_accepted_is_what_another_validator_accepts(schema: Any) -> None:
    values: list[Any] = [1, 2.0, 1.5, True, None, "a", "ab", [], [1, True], [1, 1], [1, "x"], [2]]
    values += [{}, {"a": 1}, {"a": 1.0}, {"a": 0, "b": "x"}, {"b": 3}, {"a": 1, "ab": 2}]
    theirs = Draft202012Validator(schema)
    ours = Validator(schema)
    accepted = [value for value in values if ours.fault(value) is None]
    assert accepted == [value for value in values if theirs.is_valid(value)]
