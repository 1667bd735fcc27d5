"""Definitions: what people configure as JSON, known by names and never by ids."""

import json
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, NamedTuple

from django.db import models

from ..exceptions import InvalidDefinitions
from ..models import Queue, Schedule, Schema, Subscription, Topic, Webhook

VERSION = 1
LARGEST = 2**63
# In the order in which they need each other.
KINDS: dict[str, type[Queue | Topic | Schema | Subscription | Schedule | Webhook]] = {
    "queues": Queue,
    "topics": Topic,
    "schemas": Schema,
    "subscriptions": Subscription,
    "schedules": Schedule,
    "webhooks": Webhook,
}
IDENTITIES = {
    "queues": ("name",),
    "topics": ("name",),
    "schemas": ("topic", "version"),
    "subscriptions": ("pattern", "queue"),
    "schedules": ("name",),
    "webhooks": ("name",),
}
# What people set otherwise than in a form.
SET_BY_VERBS = {"topics": ("schema",), "schemas": ("version",)}

# What a value has to be in JSON, by the kind of its column.
VALUES: tuple[tuple[type[models.Field], tuple[type, ...], str], ...] = (
    (models.BooleanField, (bool,), "true or false"),
    (models.IntegerField, (int,), "a whole number"),
    (models.FloatField, (int, float), "a number"),
    (models.CharField, (str,), "text"),
    (models.ForeignKey, (str,), "the name of a queue or topic"),
)


class Definition(NamedTuple):
    """One row as the document has it, and where: ``queues[2]``."""

    kind: str
    place: str
    values: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        return {name: self.values[name] for name in IDENTITIES[self.kind]}

    @property
    def what(self) -> str:
        return f"{self.kind.removesuffix('s')} {' → '.join(map(str, self.identity.values()))}"


def fields_of(kind: str) -> dict[str, models.Field]:
    """Return the columns that a definition has: what people edit, without ids and states."""
    return {
        field.name: field
        for field in KINDS[kind]._meta.concrete_fields
        if (field.editable or field.name in SET_BY_VERBS.get(kind, ())) and not field.primary_key
    }


def value_of(row: models.Model, field: models.Field) -> Any:
    """Return what a definition says of a column: of a queue its name, of a schema its version."""
    value = getattr(row, field.name)
    if isinstance(value, Schema):
        return value.version
    return value.name if isinstance(value, Queue | Topic) else value


def parse(text: str | bytes) -> list[Definition]:
    """Read a document, or raise InvalidDefinitions with the line or the field that is wrong."""
    document = _load(text)
    if not isinstance(document, dict):
        raise InvalidDefinitions("The document", "it is no object: use what was exported")
    if unknown := document.keys() - {"version", *KINDS}:
        raise InvalidDefinitions(
            f"{min(unknown)!r}", f"it is unknown; use version, {', '.join(KINDS)}"
        )
    if document.get("version") != VERSION:
        raise InvalidDefinitions("'version'", f"it is not {VERSION}, the only one that is known")
    found: list[Definition] = []
    places: dict[str, str] = {}
    for definition in _definitions(document):
        _check(definition)
        first = places.setdefault(definition.what, definition.place)
        if first != definition.place:
            raise InvalidDefinitions(definition.place, f"{definition.what} is defined at {first}")
        found.append(definition)
    return found


def _load(text: str | bytes) -> Any:
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
    except InvalidDefinitions:
        raise
    except UnicodeDecodeError as error:
        raise InvalidDefinitions(f"Byte {error.start}", "it is no UTF-8") from error
    except json.JSONDecodeError as error:
        place = f"Line {error.lineno}, column {error.colno}"
        reason = f"{error.msg[:1].lower()}{error.msg[1:]}; is the document cut off?"
        raise InvalidDefinitions(place, reason) from error
    except (RecursionError, ValueError) as error:  # such as 5,000 digits
        raise InvalidDefinitions("The document", "a value in it is too long or too deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise InvalidDefinitions(f"{double!r}", "it comes twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise InvalidDefinitions("The document", f"{name} is no JSON")


def _definitions(document: dict[str, Any]) -> Iterator[Definition]:
    for kind in KINDS:
        rows = document.get(kind, [])
        if not isinstance(rows, list):
            raise InvalidDefinitions(f"{kind!r}", "it is no list")
        for number, values in enumerate(rows):
            place = f"{kind}[{number}]"
            if not isinstance(values, dict):
                raise InvalidDefinitions(place, "it is no object")
            yield Definition(kind, place, values)


def _check(definition: Definition) -> None:
    fields = fields_of(definition.kind)
    for name in IDENTITIES[definition.kind]:
        if name not in definition.values:
            raise InvalidDefinitions(definition.place, f"{name} is missing")
    for name, value in definition.values.items():
        place = f"{definition.place}, {name}"
        if name not in fields:
            close = get_close_matches(name, fields, n=1)
            remedy = f"did you mean {close[0]}?" if close else f"use {', '.join(fields)}"
            raise InvalidDefinitions(place, f"it is unknown; {remedy}")
        if value is None and fields[name].null:
            continue
        for column, kinds, wanted in VALUES:
            if fields[name].related_model is Schema:
                kinds, wanted = (int,), "the number of a version"
            if isinstance(fields[name], column) and (
                not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)
            ):
                raise InvalidDefinitions(place, f"{ascii(value)[:80]} is not {wanted}")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise InvalidDefinitions(place, "the number is too large")
        if isinstance(value, str) and not _can_be_stored(value):
            raise InvalidDefinitions(place, f"{ascii(value)[:80]} has characters of no text")


def _can_be_stored(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
