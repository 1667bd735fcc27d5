"""Edit a message that waits."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..encoding import encode_body, encode_headers
from ..exceptions import InvalidOption, OperationRefused
from ..models import Message
from ..store import editing, places, searching
from ..store.connection import Rows, connection_for
from ..store.places import Place
from .batches import announced
from .history import Done, Operator, name_of, recorded
from .queues import join_lanes

SECONDS = 10.0
# What is not given stays as it is; None is a body like any other.
UNCHANGED: Final = object()


def edit(
    message_id: int,
    *,
    body: Any = UNCHANGED,
    headers: Mapping[str, Any] | Any = UNCHANGED,
    dry_run: bool = False,
    by: Operator = "",
    using: str | None = None,
) -> int:
    """Give a message that waits another body or headers; return in how many places it waits.

    Checked like a message that is sent. What it said before is kept with who edited it, for as long
    as the message (``control.timeline``). On every queue where it waits and in its dead letters; a
    queue that has handled it has handled the old one. Its deduplication id still stands for what
    was sent. OperationRefused while it is handled or held, or when it waits nowhere.
    """
    if body is UNCHANGED and headers is UNCHANGED:
        raise InvalidOption("body", "unchanged", "give a body, headers, or both")
    new_body = None if body is UNCHANGED else encode_body(body)
    new_headers = None if headers is UNCHANGED else encode_headers(headers)
    number = int(message_id)
    connection = connection_for(using)
    join_lanes(connection)
    with _recorded(number, dry_run, by, using) as done:
        with (
            searching.bounded(connection, SECONDS, f"Looking for message {number}"),
            transaction.atomic(using=connection.alias),
        ):
            found = places.find(connection, number)
            skipped = _hold(connection, number, found)
            if dry_run:  # gives the locks back
                transaction.set_rollback(True, using=connection.alias)
            else:
                who = name_of(by)[:150]
                editing.change(connection, number, headers=new_headers, body=new_body, by=who)
                # Workers may have skipped them meanwhile.
                announced(connection, skipped)
        done.count = len(found)
    return done.count


def _recorded(
    message_id: int, dry_run: bool, by: Operator, using: str | None
) -> AbstractContextManager[Done]:
    """Record an edit; a dry run is none."""
    if dry_run:
        return nullcontext(Done())
    return recorded("Message edited", Message, by, kind="edit", using=using, message=message_id)


def _hold(connection: BaseDatabaseWrapper, message_id: int, found: list[Place]) -> Rows:
    """Keep workers from a message; return (queue, priority, id, 1) of what they skip."""
    if not found:
        if editing.exists(connection, message_id):
            raise OperationRefused(
                f"Message {message_id} waits nowhere: it was handled, cancelled or purged, or has "
                f"expired. Send a new one."
            )
        raise OperationRefused(f"Message {message_id} is unknown: the log does not hold it.")
    skipped = []
    for place in found:
        if place.state == "leased":
            until = place.at.isoformat(" ", "seconds")
            raise OperationRefused(
                f"Message {message_id} is in flight: {place.by} holds it until {until}. Release "
                f"its lease first, or wait."
            )
        held = editing.lock(connection, place)
        if held is None:
            raise OperationRefused(
                f"Message {message_id}, or another one of its key, is being handled at this "
                f"moment. Nothing was changed: try again."
            )
        if held.id is not None:
            skipped.append((place.queue_id, held.priority, held.id, 1))
    return skipped
