"""Signing keys: what `MESSAGING["WEBHOOK_SECRETS"]` holds, known by its name everywhere else."""

import base64
import binascii
import hmac
from typing import Any

from django.conf import settings

from . import conf
from .exceptions import InvalidSecret

PREFIX = "whsec_"
# Standard Webhooks: 24 to 64 bytes.
SHORTEST, LONGEST = 24, 64


def keys_of(name: str) -> list[bytes]:
    """Return the keys that sign under a name, or raise InvalidSecret without showing any."""
    secrets: dict[str, Any] = conf.WEBHOOK_SECRETS
    if name not in secrets:
        known = ", ".join(sorted(map(str, secrets))) or "none"
        raise InvalidSecret(name, f"there is no such secret; known: {known}")
    value = secrets[name]
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise InvalidSecret(name, "the list is empty; use one secret, or several in a rotation")
    return [_key(name, each) for each in values]


def _key(name: str, secret: Any) -> bytes:
    form = f"use '{PREFIX}' and {SHORTEST} to {LONGEST} random bytes in base64"
    if not isinstance(secret, str) or not secret.startswith(PREFIX):
        raise InvalidSecret(name, f"it does not start with '{PREFIX}'; {form}")
    encoded = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        # Chained it would tell what the secret is.
        raise InvalidSecret(name, f"it is not base64; {form}") from None
    if not SHORTEST <= len(key) <= LONGEST:
        raise InvalidSecret(name, f"the key has {len(key)} bytes; {form}")
    if _is_the_projects_own(encoded.encode(), key):
        raise InvalidSecret(name, "it is the project's SECRET_KEY; use a key of its own")
    return key


def _is_the_projects_own(*keys: bytes) -> bool:
    own = settings.SECRET_KEY.encode()
    return any(hmac.compare_digest(key, own) for key in keys)
