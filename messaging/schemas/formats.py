"""Formats: tell whether a text is a date, an address or another form that has a name."""

import datetime
import ipaddress
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

# What is longer has none of these forms.
MAX_LENGTH = 10_000

TIME = r"([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)"
_TIME = re.compile(TIME, re.ASCII | re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_DURATION = re.compile(
    r"P(?=\d|T\d)(\d+W|(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?)", re.ASCII
)
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_URI = re.compile(r"([A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+", re.ASCII)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:", re.ASCII)
_POINTER = re.compile(r"(/([^~/]|~[01])*)*")


def is_date(text: str) -> bool:
    """RFC 3339: 2026-07-31."""
    if not _DATE.fullmatch(text):
        return False
    with suppress(ValueError):
        datetime.date.fromisoformat(text)
        return True
    return False


def is_time(text: str) -> bool:
    """RFC 3339, with its offset: 10:30:00Z."""
    return _TIME.fullmatch(text) is not None


def is_date_time(text: str) -> bool:
    """RFC 3339: 2026-07-31T10:30:00+02:00."""
    return text[10:11] in ("T", "t") and is_date(text[:10]) and is_time(text[11:])


def is_duration(text: str) -> bool:
    """ISO 8601: P3DT4H."""
    return _DURATION.fullmatch(text) is not None


def is_hostname(text: str) -> bool:
    """RFC 1123: shop.example.com."""
    return len(text) <= 253 and all(_LABEL.fullmatch(label) for label in text.split("."))


def is_email(text: str) -> bool:
    """RFC 5321, without quotes and comments: jane@example.com."""
    local, at, host = text.rpartition("@")
    return (
        bool(at) and len(local) <= 64 and bool(_LOCAL_PART.fullmatch(local)) and (is_hostname(host))
    )


def is_ipv4(text: str) -> bool:
    """Four numbers: 192.0.2.1."""
    with suppress(ValueError):
        return str(ipaddress.IPv4Address(text)) == text
    return False


def is_ipv6(text: str) -> bool:
    """RFC 4291, without a zone: 2001:db8::1."""
    with suppress(ValueError):
        ipaddress.IPv6Address(text)
        return "%" not in text
    return False


def is_uri_reference(text: str) -> bool:
    """RFC 3986, absolute or not: /orders/42."""
    if text and not _URI.fullmatch(text):
        return False
    with suppress(ValueError):
        urlsplit(text)
        return True
    return False


def is_uri(text: str) -> bool:
    """RFC 3986, absolute: https://example.com/orders/42."""
    return _SCHEME.match(text) is not None and is_uri_reference(text)


def is_uuid(text: str) -> bool:
    """RFC 4122, with its dashes."""
    with suppress(ValueError):
        return str(uuid.UUID(text)) == text.lower()
    return False


def is_json_pointer(text: str) -> bool:
    """RFC 6901: /lines/2/price."""
    return _POINTER.fullmatch(text) is not None


FORMATS: dict[str, Callable[[str], bool]] = {
    "date": is_date,
    "date-time": is_date_time,
    "duration": is_duration,
    "email": is_email,
    "hostname": is_hostname,
    "ipv4": is_ipv4,
    "ipv6": is_ipv6,
    "json-pointer": is_json_pointer,
    "time": is_time,
    "uri": is_uri,
    "uri-reference": is_uri_reference,
    "uuid": is_uuid,
}


def has_format(text: str, name: str) -> bool:
    """Tell whether a text has the form that a name stands for."""
    return len(text) <= MAX_LENGTH and FORMATS[name](text)
