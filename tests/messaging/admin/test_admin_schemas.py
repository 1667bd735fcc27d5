"""Schemas in the admin: added and chosen by those who may, and refused by the field."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from admin_pages import address, texts, version_of, visible
from django.contrib.admin.models import LogEntry
from django.test import Client

from messaging import InvalidMessage, control, publish
from messaging.models import Topic

ORDER = {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}
STRICTER = ORDER | {"required": ["id", "customer"]}
WIDER = {"type": "object"}


@pytest.fixture
def placed(bare: None, topic: Callable[..., Topic]) -> Topic:
    """Return a topic with one version, which counts."""
    found = topic()
    control.add_schema(found.name, ORDER, by="olga")
    control.use_schema(found.name, 1)
    return found


def page_of(topic: Topic) -> str:
    return address("topic", "schemas", topic.pk)


def add(client: Client, topic: Topic, document: Any) -> Any:
    """Send a version by the form: JSON, or text as it is."""
    text = document if isinstance(document, str) else json.dumps(document)
    return client.post(page_of(topic), {"document": text, "add": "Add"}, follow=True)


def use(client: Client, topic: Topic, version: int | str) -> Any:
    """Choose a version by the form."""
    return client.post(page_of(topic), {"version": version, "use": "Use"}, follow=True)


def errors(page: Any, form: str) -> str:
    """Return what the fields of a form are refused for."""
    return " ".join(str(each) for each in page.context[form].errors.values())


def test_the_page_of_a_topic_shows_its_versions(placed: Topic, root: Client) -> None:
    control.add_schema(placed.name, WIDER)
    text = visible(root.get(address("topic", "change", placed.pk)))
    assert "by olga: counts" in text
    assert text.index("version 2,") < text.index("version 1,")
    assert page_of(placed) in root.get(address("topic", "change", placed.pk)).content.decode()


def test_a_version_is_added_and_counts_once_it_is_chosen(placed: Topic, staff: Any) -> None:
    client = staff("view_topic", "change_topic", "add_schema")
    assert texts(add(client, placed, WIDER)) == "Version 2 was added."
    with pytest.raises(InvalidMessage):
        publish(placed.name, {})
    assert texts(use(client, placed, 2)) == "Version 2 counts."
    publish(placed.name, {})
    assert "Version 2: counts" in visible(client.get(page_of(placed)))
    assert texts(use(client, placed, "")) == "No schema counts."
    publish(placed.name, "anything")
    notes = LogEntry.objects.order_by("pk").values_list("change_message", "object_id")
    told = ["Schema version 2 added.", "Schema version 2 is used.", "No schema is used."]
    assert list(notes) == [(note, str(placed.pk)) for note in told]
    assert control.schemas(placed.name)[0].created_by == "staff0"


def test_the_same_document_is_said_to_be_no_new_version(placed: Topic, root: Client) -> None:
    assert "this is what version 1 says" in texts(add(root, placed, ORDER))
    assert len(control.schemas(placed.name)) == 1
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ("", "required"),
        ('{"type": ', "This is not JSON: Expecting value (line 1, column 9)"),
        ('{"minimum": NaN}', "$.minimum"),
        ([], "Invalid schema at $: "),
        (
            {"properties": {"at": {"format": "datetime"}}},
            "Invalid schema at $.properties.at.format",
        ),
        ({"$ref": "https://example.com/order.json"}, "nothing is fetched"),
        (STRICTER, "Invalid schema at $.customer: "),
        ({"type": "object", "properties": {"id": {"type": "string"}}}, "$.id"),
        ({"description": "x" * 70_000}, "65,536 are the most"),
    ],
)
def test_a_wrong_or_incompatible_document_is_refused_by_the_field(
    placed: Topic, root: Client, document: Any, told: str
) -> None:
    page = add(root, placed, document)
    assert page.status_code == 200
    assert told in errors(page, "add")
    if document and isinstance(document, str):
        assert document in page.context["add"]["document"].value()
    assert len(control.schemas(placed.name)) == 1


def test_what_a_topic_promises_is_part_of_its_form(placed: Topic, root: Client) -> None:
    where = address("topic", "change", placed.pk)
    values = {
        "description": "",
        "compatibility": "none",
        "deduplication_window": 300,
        "retention": 60,
        "version": version_of(root.get(where)),
    }
    assert root.post(where, values).status_code == 302
    assert "Version 2 was added." in texts(add(root, placed, STRICTER))
    assert root.post(where, values | {"compatibility": "some"}).status_code == 200
    placed.refresh_from_db()
    assert (placed.compatibility, placed.schema and placed.schema.version) == ("none", 1)


@pytest.mark.parametrize("version", ["2", "x", "9" * 30])
def test_a_version_that_there_is_not_is_refused_by_the_field(
    placed: Topic, root: Client, version: str
) -> None:
    page = use(root, placed, version)
    assert "not one of the available choices" in errors(page, "use")
    placed.refresh_from_db()
    assert placed.schema is not None


@pytest.mark.parametrize(
    ("rights", "may_add", "may_use"),
    [
        (("view_topic",), False, False),
        (("view_topic", "view_schema"), False, False),
        (("change_topic",), False, True),
        (("view_topic", "add_schema"), True, False),
    ],
)
def test_who_may_only_look_sees_the_versions_and_is_refused_the_rest(
    placed: Topic,
    staff: Any,
    caplog: pytest.LogCaptureFixture,
    rights: tuple[str, ...],
    may_add: bool,
    may_use: bool,
) -> None:
    client = staff(*rights)
    page = client.get(page_of(placed))
    assert "&quot;integer&quot;" in page.content.decode()
    assert (page.context["add"] is not None, page.context["use"] is not None) == (may_add, may_use)
    with caplog.at_level(logging.WARNING, "messaging"):
        assert add(client, placed, WIDER).status_code == (200 if may_add else 403)
        assert use(client, placed, "").status_code == (200 if may_use else 403)
    refused = [name for name in ("add_schema", "use_schema") if f"operation={name}" in caplog.text]
    assert refused == ["add_schema"] * (not may_add) + ["use_schema"] * (not may_use)
    assert len(control.schemas(placed.name)) == 1 + may_add
    placed.refresh_from_db()
    assert (placed.schema is None) is may_use


@pytest.mark.parametrize("rights", [(), ("add_schema", "publish_message"), ("change_queue",)])
def test_who_may_not_see_a_topic_sees_no_version(
    placed: Topic, staff: Any, rights: tuple[str, ...]
) -> None:
    client = staff(*rights)
    assert client.get(page_of(placed)).status_code == 403
    assert add(client, placed, WIDER).status_code == 403
    assert use(client, placed, "").status_code == 403
    assert len(control.schemas(placed.name)) == 1


def test_a_form_of_another_site_is_refused(placed: Topic, staff: Any) -> None:
    client = staff("view_topic", "change_topic", "add_schema", strict=True)
    assert use(client, placed, "").status_code == 403
    assert add(client, placed, WIDER).status_code == 403


@pytest.mark.parametrize("number", ["0", "x", "9" * 30])
def test_a_topic_that_there_is_not_has_no_page(placed: Topic, root: Client, number: str) -> None:
    assert root.get(address("topic", "schemas", number)).status_code == 404


def test_the_one_that_counts_is_offered_however_old_it_is(
    placed: Topic, root: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("messaging.admin.schemas.NEWEST", 1)
    control.add_schema(placed.name, WIDER)
    control.add_schema(placed.name, {})
    page = root.get(page_of(placed))
    assert [each.version for each, _ in page.context["versions"]] == [3, 1]
    assert "Only the newest 1" in visible(page)
