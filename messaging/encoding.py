"""Encode: turn bodies and headers into JSON text that PostgreSQL can hold, or refuse them.

Everything is checked before any SQL runs, so that a bad message costs nothing and names the JSON
path of what is wrong.
"""

import datetime
import decimal
import hashlib
import json
import math
import uuid
from collections.abc import Mapping
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.utils.functional import Promise

from . import conf
from .exceptions import InvalidMessage, PayloadTooLarge
from .names import shown

MAX_DEPTH = 64
MAX_INTEGER_DIGITS = 4300
INTEGER_LIMIT = 10**MAX_INTEGER_DIGITS
RESERVED_PREFIX = "x-messaging-"
PRIORITIES = range(-100, 101)


def check_priority(priority: object) -> int:
    """Return the priority, or raise InvalidMessage."""
    if isinstance(priority, bool) or not isinstance(priority, int) or priority not in PRIORITIES:
        raise InvalidMessage(
            f"{shown(priority)} is no priority: use an integer from -100 to 100, higher first.",
            path="priority",
        )
    return priority


def check_key(key: object, *, what: str) -> str:
    """Return an ordering key or deduplication id of 1 to 200 printable characters."""
    if not isinstance(key, str) or not 1 <= len(key) <= 200 or _unstorable(key):
        raise InvalidMessage(
            f"{shown(key)} is no {what}: use a string of 1 to 200 characters without NUL.",
            path=what,
        )
    return key


def encode_body(body: Any, *, index: int | None = None) -> str:
    """Return the body as JSON text, or raise InvalidMessage with the JSON path.

    Tuples become arrays; ``datetime``, ``date``, ``time``, ``timedelta``, ``Decimal``, ``UUID`` and
    lazy strings become strings as Django's JSON encoder makes them.
    """
    limit = conf.MAX_BODY_BYTES
    _Inspection(limit, index).inspect(body, "$", 0)
    text = json.dumps(body, cls=DjangoJSONEncoder, ensure_ascii=False, separators=(",", ":"))
    size = len(text.encode())
    if size > limit:
        raise PayloadTooLarge(size, limit, index=index)
    return text


def encode_headers(headers: Mapping[str, Any] | None) -> str:
    """Return the headers as JSON text, or raise InvalidMessage."""
    if not headers:
        return "{}"
    if not isinstance(headers, Mapping):
        raise InvalidMessage(
            f"{shown(headers)} are no headers: use a mapping of strings to JSON scalars.",
            path="headers",
        )
    for key, value in headers.items():
        _check_header(key, value)
    text = json.dumps(dict(headers), ensure_ascii=False, separators=(",", ":"))
    size, limit = len(text.encode()), conf.MAX_HEADERS_BYTES
    if size > limit:
        raise PayloadTooLarge(size, limit, what="headers")
    return text


def digest_of(body: str) -> bytes:
    """Return what two encoded bodies have in common exactly when they mean the same JSON."""
    canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).digest()


def _check_header(key: object, value: object) -> None:
    path = f"headers[{shown(key)}]"
    if not isinstance(key, str) or not 1 <= len(key) <= 200 or not key.isprintable():
        raise InvalidMessage("a header's name is 1 to 200 printable characters.", path=path)
    if key.lower().startswith(RESERVED_PREFIX):
        raise InvalidMessage(f"names starting with {RESERVED_PREFIX!r} are reserved.", path=path)
    if value is not None and not isinstance(value, str | int | float | bool):
        raise InvalidMessage(
            f"a header is a string, number, boolean or None, not {type(value).__name__}.", path=path
        )
    if isinstance(value, str) and ("\r" in value or "\n" in value):
        raise InvalidMessage("a header's value has no line breaks.", path=path)
    _Inspection(conf.MAX_HEADERS_BYTES, None).inspect(value, path, 0)


class _Inspection:
    """Walk a body once and refuse what JSON or PostgreSQL cannot hold."""

    def __init__(self, limit: int, index: int | None) -> None:
        self.limit = limit
        self.index = index
        self.size = 0

    def inspect(self, value: Any, path: str, depth: int) -> None:
        if isinstance(value, str):
            self._inspect_text(value, path)
        elif value is None or isinstance(value, bool):
            pass
        elif isinstance(value, int):
            if abs(value) >= INTEGER_LIMIT:
                self._refuse(f"an integer has at most {MAX_INTEGER_DIGITS:,} digits.", path)
        elif isinstance(value, float):
            if not math.isfinite(value):
                self._refuse(f"{value!r} is not JSON; send None or a string instead.", path)
        elif isinstance(value, dict):
            self._descend(depth, path)
            for key, item in value.items():
                if not isinstance(key, str):
                    self._refuse(f"an object's key is a string, not {shown(key)}.", path)
                at = f"{path}.{key}" if key.isidentifier() else f"{path}[{json.dumps(key[:80])}]"
                self._inspect_text(key, at)
                self.inspect(item, at, depth + 1)
        elif isinstance(value, list | tuple):
            self._descend(depth, path)
            for position, item in enumerate(value):
                self.inspect(item, f"{path}[{position}]", depth + 1)
        elif isinstance(value, Promise):
            self._inspect_text(str(value), path)
        elif isinstance(value, datetime.time) and value.tzinfo is not None:
            self._refuse("a time with a time zone is not JSON; send a datetime.", path)
        elif not isinstance(
            value,
            datetime.datetime
            | datetime.date
            | datetime.time
            | datetime.timedelta
            | decimal.Decimal
            | uuid.UUID,
        ):
            self._refuse(
                f"{type(value).__module__}.{type(value).__qualname__} is not JSON; send a str, "
                f"number, bool, None, list or dict, or a date, Decimal or UUID.",
                path,
            )

    def _inspect_text(self, text: str, path: str) -> None:
        self.size += len(text)
        if self.size > self.limit:
            what = "headers" if path.startswith("headers") else "body"
            raise PayloadTooLarge(self.size, self.limit, what=what, index=self.index)
        if reason := _unstorable(text):
            self._refuse(reason, path)

    def _descend(self, depth: int, path: str) -> None:
        if depth >= MAX_DEPTH:
            self._refuse(f"nested deeper than {MAX_DEPTH} levels (or circular).", path[:200])

    def _refuse(self, reason: str, path: str) -> None:
        raise InvalidMessage(reason, path=path, index=self.index)


def _unstorable(text: str) -> str | None:
    """Say why PostgreSQL cannot store this text, if it cannot."""
    if text.isascii():
        return "NUL characters cannot be stored; remove them." if "\0" in text else None
    if "\0" in text:
        return "NUL characters cannot be stored; remove them."
    try:
        text.encode()
    except UnicodeEncodeError:
        return "a lone surrogate is not Unicode text; decode the text properly."
    return None
