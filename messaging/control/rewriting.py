"""Rewrite the bodies of messages that wait, by a function."""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from ..encoding import encode_body
from ..exceptions import InvalidMessage
from ..store import editing, places
from ..store.places import Place
from ..store.searching import Row, Section
from .batches import announced
from .looking import decode


class Rewriting:
    """One call of ``edit_matching``: it changes each message once, wherever it is found again."""

    def __init__(self, change: Callable[[Any], Any], by: str) -> None:
        self._change = change
        self._by = by
        self._edited: set[int] = set()

    def act(self, connection: BaseDatabaseWrapper, section: Section, rows: Sequence[Row]) -> int:
        """Rewrite some of the messages, in this transaction; return how many have changed."""
        changed, _ = self.rewrite(connection, [row.message_id for row in rows])
        return changed

    def rewrite(
        self, connection: BaseDatabaseWrapper, message_ids: Iterable[int]
    ) -> tuple[int, set[int]]:
        """Rewrite messages; return how many have changed, and those that nobody else has."""
        ids = sorted(set(message_ids) - self._edited)
        found = places.find_many(connection, ids)
        skipped: list[tuple[int, int | None, int, int]] = []
        locked = [each for each in ids if _hold(connection, found.get(each, ()), skipped)]
        # Read behind the locks: until then somebody else could edit them.
        changed = 0
        for message_id, body in sorted(editing.bodies(connection, locked).items()):
            self._edited.add(message_id)
            new = self._rewritten(message_id, body)
            if new is not None:
                editing.change(connection, message_id, headers=None, body=new, by=self._by)
                changed += 1
        # Workers may have skipped them meanwhile.
        announced(connection, skipped)
        return changed, set(locked)

    def _rewritten(self, message_id: int, text: str | None) -> str | None:
        """Return the new body as JSON text; None: it stays."""
        if text is None:
            return None
        try:
            body = decode(text)
        except (ValueError, RecursionError):
            return None
        before = _canonical(body)
        new = self._change(body)
        if new is None and _canonical(body) != before:
            raise InvalidMessage(
                f"the function has changed the body of message {message_id} in place and returned "
                f"None; have it return the new body."
            )
        try:
            encoded = encode_body(new)
        except InvalidMessage as error:
            raise InvalidMessage(
                f"{error.reason} It would be the new body of message {message_id}.",
                path=error.path,
            ) from error
        return None if _canonical(decode(encoded)) == before else encoded


def _canonical(body: Any) -> str:
    """Return what tells bodies apart: 1, 1.0 and True are equal to Python."""
    return json.dumps(body, sort_keys=True, default=str)


def _hold(
    connection: BaseDatabaseWrapper,
    found: Sequence[Place],
    skipped: list[tuple[int, int | None, int, int]],
) -> bool:
    """Keep workers from a message; tell whether nobody has it. Adds what they will skip."""
    if not found or any(place.state == "leased" for place in found):
        return False
    for place in found:
        held = editing.lock(connection, place)
        if held is None:
            return False
        if held.id is not None:
            skipped.append((place.queue_id, held.priority, held.id, 1))
    return True
