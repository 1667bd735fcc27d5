"""Once: remember what was done, in the transaction that did it."""

import datetime
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import transaction

from .encoding import check_key, check_seconds, check_text, encode_body
from .exceptions import InvalidMessage
from .store import idempotency
from .store.connection import connection_for


class Once:
    """True for the first caller; carries the result that the first one saved."""

    def __init__(self, scope: str, key: str, first: bool, using: str | None) -> None:
        self._scope = scope
        self._key = key
        self._first = first
        self._using = using

    def __bool__(self) -> bool:
        return self._first

    def save(self, result: Any) -> None:
        """Store a JSON value for the callers to come."""
        text = encode_body(result)
        idempotency.save_result(connection_for(self._using), self._scope, self._key, text)

    @property
    def result(self) -> Any:
        """What the first caller saved, or None."""
        text = idempotency.result_of(connection_for(self._using), self._scope, self._key)
        return None if text is None else json.loads(text)


@contextmanager
def once(
    scope: str,
    key: object,
    *,
    window: float | datetime.timedelta | None = None,
    using: str | None = None,
) -> Iterator[Once]:
    """Run a block that is true once for each ``(scope, key)``.

    The record commits with the block's effects and vanishes with them. Of two callers at once, the
    second waits for the first, and is the first itself if that one rolls back. ``window`` in
    seconds forgets after a time; None remembers for ever (Stripe: Idempotency-Key). The block runs
    either way: ask ``if first:``.
    """
    check_text(scope, what="scope", limit=80)
    if key is None:  # such as the key of an object that was never saved
        raise InvalidMessage("None is no key: use what identifies this one effect.", path="key")
    text = check_key(str(key), what="key")
    seconds = None if window is None else check_seconds(window, what="window")
    if seconds is not None and seconds <= 0:
        raise InvalidMessage(f"window={window!r}: use more than 0 seconds, or None.", path="window")
    connection = connection_for(using)
    with transaction.atomic(using=connection.alias):
        first = idempotency.claim_once(connection, scope, text, seconds)
        yield Once(scope, text, first, using)
