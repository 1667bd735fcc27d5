"""Freeze a filter as JSON, so that whoever carries an operation out means the same messages."""

import datetime
import json
from typing import Any

from ..encoding import encode_body
from ..models import Operation
from ..store.filters import Filter

AGES = ("older_than", "newer_than")


def frozen(wanted: Filter) -> dict[str, Any]:
    """Return what is given of a filter as JSON values."""
    values: dict[str, Any] = {
        "state": [str(state) for state in wanted.states],
        "headers": dict(wanted.headers),
        "body": [
            [path if isinstance(path, str) else list(path), json.loads(encode_body(value))]
            for path, value in wanted.body.items()
        ],
        "key": wanted.key,
        "error": wanted.error,
        "topic": wanted.topic,
        "ids": None if wanted.ids is None else [int(each) for each in wanted.ids],
    }
    for name in AGES:
        age = getattr(wanted, name)
        values[name] = age.total_seconds() if isinstance(age, datetime.timedelta) else age
    # No ids are a condition that nothing fulfils; nothing else that is empty is a condition.
    return {
        name: value
        for name, value in values.items()
        if value not in (None, [], {}) or (name == "ids" and value is not None)
    }


def thawed(operation: Operation) -> Filter:
    """Return the filter of an operation; ages are those at its beginning."""
    given = {
        name: value
        for name, value in operation.filter.items()
        if name in Filter.__dataclass_fields__
    }
    if "body" in given:
        given["body"] = {
            path if isinstance(path, str) else tuple(path): value for path, value in given["body"]
        }
    now = getattr(operation, "now", None)
    if now is not None:
        since = max(0.0, (now - operation.created_at).total_seconds())
        given |= {name: given[name] + since for name in AGES if name in given}
    return Filter(**given)
