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
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from django.core.serializers.json import DjangoJSONEncoder
from django.utils.functional import Promise

from . import conf
from .exceptions import InvalidMessage, PayloadTooLarge
from .names import shown

MAX_DEPTH = 64
MAX_PATH = 200
MAX_INTEGER_DIGITS = 4300
INTEGER_LIMIT = 10**MAX_INTEGER_DIGITS
RESERVED_PREFIX = "x-messaging-"
PRIORITIES = range(-100, 101)
# What is longer would end after the year 9999, which Python's datetime cannot hold.
MAX_SECONDS = 7_900 * 365 * 86_400


def check_priority(priority: object) -> int:
    """Return the priority, or raise InvalidMessage."""
    if isinstance(priority, bool) or not isinstance(priority, int) or priority not in PRIORITIES:
        raise InvalidMessage(
            f"{shown(priority)} is no priority: use an integer from -100 to 100, higher first.",
            path="priority",
        )
    return priority


def check_key(key: object, *, what: str) -> str:
    """Return an ordering key or deduplication id of 1 to 200 characters, or raise."""
    return check_text(key, what=what, limit=200)


def check_text(text: object, *, what: str, limit: int) -> str:
    """Return a text of 1 to ``limit`` characters that can be stored, or raise InvalidMessage."""
    if not isinstance(text, str) or not 1 <= len(text) <= limit or _unstorable(text):
        raise InvalidMessage(
            f"{shown(text)} is no {what}: use a string of 1 to {limit} characters, without NUL "
            f"and lone surrogates.",
            path=what,
        )
    return text


def check_seconds(value: object, *, what: str) -> float:
    """Return a time of at most 7,900 years in seconds, or raise InvalidMessage."""
    seconds = value.total_seconds() if isinstance(value, datetime.timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or seconds != seconds:
        raise InvalidMessage(f"{shown(value)} is no {what}: use seconds or a timedelta.", path=what)
    if seconds > MAX_SECONDS:
        raise InvalidMessage(
            f"{shown(value)} is too long: a {what} is at most {MAX_SECONDS:,} seconds "
            f"(7,900 years).",
            path=what,
        )
    return float(max(seconds, -MAX_SECONDS))


def check_lifetime(value: object) -> float:
    """Return the seconds until a message expires, more than none, or raise InvalidMessage."""
    seconds = check_seconds(value, what="expires_in")
    if seconds <= 0:
        raise InvalidMessage(
            f"{shown(value)} is no expires_in: a message that expires at once is never delivered; "
            f"use more than 0 seconds.",
            path="expires_in",
        )
    return seconds


def check_message_id(value: object) -> str:
    """Return a sender's own message id as text, or raise InvalidMessage."""
    try:
        known = value if isinstance(value, uuid.UUID) else uuid.UUID(value)  # type: ignore[arg-type]
    except (AttributeError, TypeError, ValueError):
        known = None
    if known is None or known.version != 7:
        raise InvalidMessage(
            f"{shown(value)} is no message_id: use a UUID of version 7, such as new_message_id() "
            f"makes.",
            path="message_id",
        )
    return str(known)


def encode_body(body: Any, *, index: int | None = None) -> str:
    """Return the body as JSON text, or raise InvalidMessage with the JSON path.

    Tuples become arrays; ``datetime``, ``date``, ``time``, ``timedelta``, ``Decimal``, ``UUID`` and
    lazy strings become strings as Django's JSON encoder makes them.
    """
    limit = conf.MAX_BODY_BYTES
    text = _encode_simple(body)
    if text is None:
        _Inspection(limit, index=index).inspect(body)
        text = json.dumps(body, cls=DjangoJSONEncoder, ensure_ascii=False, separators=(",", ":"))
    size = len(text) if text.isascii() else len(text.encode())
    if size > limit:
        raise PayloadTooLarge(size, limit, index=index)
    return text


# Text this long, or this many objects and arrays, are worth a look before they are written out.
SIMPLE_LENGTH = 65_536
SIMPLE_CONTAINERS = 50
_TEXT = frozenset((str,))
_SCALARS = frozenset((str, int, float, bool, type(None)))
# A circle has more containers than are let through.
_write_simple = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


def _encode_simple(body: Any) -> str | None:
    """Encode a small object of plain types, as most bodies are, in a fifth of the time.

    None is no verdict: whatever is unusual or wrong goes the long way, which knows what to say.
    """
    if type(body) is not dict:
        return None
    containers: list[Any] = [body]
    length = 0
    for container in containers:
        if type(container) is dict:
            if not _TEXT.issuperset(map(type, container)):
                return None
            container = container.values()
        for item in container:
            kind = type(item)
            if kind is str:
                length += len(item)
            elif kind is dict or kind is list:
                containers.append(item)
            elif kind not in _SCALARS:
                return None
        if length > SIMPLE_LENGTH or len(containers) > SIMPLE_CONTAINERS:
            return None
    try:
        text = _write_simple(body)
    except ValueError:  # NaN, a circle, an integer too long
        return None
    if "\\u0000" in text or not (text.isascii() or _is_unicode(text)):
        return None
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode_body(text: str) -> Any:
    """Return what PostgreSQL gave as JSON text."""
    return json.loads(text)


def encode_headers(headers: Mapping[str, Any] | None) -> str:
    """Return the headers as JSON text, or raise InvalidMessage."""
    if headers is None or headers == {}:
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


def digest_of(body: str, destination: str = "") -> bytes:
    """Return what encoded bodies have in common exactly when they mean the same JSON.

    With a destination: and go the same way.
    """
    canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{destination}{canonical}".encode()).digest()


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
    _Inspection(conf.MAX_HEADERS_BYTES, root=path).inspect(value)


class _Inspection:
    """Walk a value once and refuse what JSON or PostgreSQL cannot hold.

    ``size`` is a lower bound of the JSON's bytes, so that what is far too large, or holds the same
    list again and again, is refused before it is written out.
    """

    def __init__(self, limit: int, *, root: str = "$", index: int | None = None) -> None:
        self.limit = limit
        self.root = root
        self.index = index
        self.size = 0
        # Where in the value we are; made into a path only when something is wrong there.
        self.steps: list[str | int] = []

    def inspect(self, value: Any) -> None:
        if isinstance(value, str):
            self._inspect_text(value)
        elif value is None or isinstance(value, bool):
            pass
        elif isinstance(value, int):
            if abs(value) >= INTEGER_LIMIT:
                self._refuse(f"an integer has at most {MAX_INTEGER_DIGITS:,} digits.")
            self._grow(value.bit_length() // 4)
        elif isinstance(value, float):
            if not math.isfinite(value):
                self._refuse(f"{value!r} is not JSON; send None or a string instead.")
        elif isinstance(value, dict):
            self._enter(value)
            for key, item in value.items():
                if not isinstance(key, str):
                    self._refuse(f"an object's key is a string, not {shown(key)}.")
                self.steps.append(key)
                self._inspect_text(key)
                self.inspect(item)
                self.steps.pop()
        elif isinstance(value, list | tuple):
            self._enter(value)
            for position, item in enumerate(value):
                self.steps.append(position)
                self.inspect(item)
                self.steps.pop()
        else:
            self._inspect_other(value)

    def _inspect_other(self, value: Any) -> None:
        if isinstance(value, Promise):
            self._inspect_text(str(value))
        elif isinstance(value, datetime.time) and value.tzinfo is not None:
            self._refuse("a time with a time zone is not JSON; send a datetime.")
        elif not isinstance(
            value,
            datetime.date | datetime.time | datetime.timedelta | decimal.Decimal | uuid.UUID,
        ):
            self._refuse(
                f"{type(value).__module__}.{type(value).__qualname__} is not JSON; send a str, "
                f"number, bool, None, list or dict, or a date, Decimal or UUID."
            )

    def _inspect_text(self, text: str) -> None:
        self._grow(len(text))
        if reason := _unstorable(text):
            self._refuse(reason)

    def _enter(self, container: Collection[Any]) -> None:
        if len(self.steps) >= MAX_DEPTH:
            self._refuse(f"nested deeper than {MAX_DEPTH} levels (or circular).")
        # Each item takes a character at least, and a comma or bracket.
        self._grow(2 * len(container))

    def _grow(self, size: int) -> None:
        self.size += size
        if self.size > self.limit:
            what = "body" if self.root == "$" else "headers"
            raise PayloadTooLarge(self.size, self.limit, what=what, index=self.index)

    def _refuse(self, reason: str) -> None:
        raise InvalidMessage(reason, path=path_of(self.steps, self.root), index=self.index)


def path_of(steps: Iterable[str | int], root: str = "$") -> str:
    """Return the JSON path of a place in a value, shortened."""
    return (root + "".join(map(_step, steps)))[:MAX_PATH]


def _step(step: str | int) -> str:
    if isinstance(step, str) and len(step) <= 80 and step.isidentifier():
        return f".{step}"
    return f"[{step if isinstance(step, int) else json.dumps(step[:80])}]"


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
