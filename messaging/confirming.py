"""Confirm: find out what became of messages whose commit was cut off."""

import uuid
from collections.abc import Iterable
from typing import Any, TypeVar

from asgiref.sync import sync_to_async

from .encoding import check_message_id
from .store import confirming
from .store.connection import connection_for

Id = TypeVar("Id", bound=int | str | uuid.UUID)

# How long a transaction that is still storing one of the messages is waited for, seconds.
WAIT = 10.0


def confirm(ids: Iterable[Id], *, using: str | None = None) -> dict[Id, bool]:
    """Tell for each id whether its message is stored, after PublishUncertain.

    An id is what ``send`` returned, or the sender's own ``message_id``. The second kind is sure for
    at least seven days; the first is looked for in the log and the dead letters, and so for as long
    as the queue's retention keeps it. A transaction that has not ended yet is waited for; one that
    takes longer than 10 seconds raises PublishUncertain again.
    """
    asked = list(ids)
    numbers: dict[Any, int] = {each: int(each) for each in asked if isinstance(each, int)}
    keys: dict[Any, str] = {each: check_message_id(each) for each in asked if each not in numbers}
    if not asked:
        return {}
    connection = connection_for(using)
    lost, lost_keys = confirming.missing(
        connection, list(numbers.values()), list(keys.values()), WAIT
    )
    return {
        each: numbers[each] not in lost if each in numbers else keys[each] not in lost_keys
        for each in asked
    }


async def aconfirm(ids: Iterable[Id], **options: Any) -> dict[Id, bool]:
    """Tell from async code; the same as :func:`confirm`."""
    return await sync_to_async(confirm)(ids, **options)
