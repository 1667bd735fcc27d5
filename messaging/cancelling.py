"""Cancel: take back what is scheduled, by its message's id."""

from django.db import transaction

from .exceptions import InvalidMessage
from .sources import source
from .store import operations, receipts
from .store.connection import connection_for


def cancel(message_id: int, *, using: str | None = None) -> int:
    """Cancel the deliveries of a message that are due later; return how many queues lose it.

    Joins the caller's transaction. 0 means that it was too late: the message is ready, or has been
    delivered. Raises InvalidMessage for what is no id.
    """
    if isinstance(message_id, bool) or not isinstance(message_id, int) or message_id < 1:
        raise InvalidMessage(
            f"{message_id!r:.80} is no message id; use what send() or publish() returned."
        )
    if message_id >= 2**63:
        raise InvalidMessage(
            f"{message_id} is no message id: the largest is {2**63 - 1}; use what send() returned."
        )
    connection = connection_for(using)
    with transaction.atomic(using=connection.alias, savepoint=False):
        gone = operations.cancel_message(connection, message_id)
        receipts.keep_of(connection, gone, by=source(), outcome=receipts.CANCELLED)
    return len(gone)
