"""Release scheduled deliveries before their time, or cancel them."""

from collections.abc import Iterable, Sequence

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..models import Scheduled
from ..store import operations, receipts
from ..store.connection import connection_for
from .batches import announced, in_batches
from .history import Operator, name_of, recorded


def retry_now(ids: Iterable[int], *, by: Operator = "", using: str | None = None) -> int:
    """Make scheduled deliveries ready at once; return how many there were."""

    def release_batch(connection: BaseDatabaseWrapper, batch: Sequence[int]) -> int:
        return announced(connection, operations.release(connection, batch))

    with recorded(
        "Scheduled deliveries made ready", Scheduled, by, kind="retry_now", using=using
    ) as done:
        in_batches(ids, release_batch, done, using)
    return done.count


def cancel(ids: Iterable[int], *, by: Operator = "", using: str | None = None) -> int:
    """Delete scheduled deliveries, which then never happen; return how many there were.

    The message itself stays in the log for its retention.
    """

    def cancel_batch(connection: BaseDatabaseWrapper, batch: Sequence[int]) -> int:
        gone = operations.cancel(connection, batch)
        receipts.keep_of(connection, gone, by=name_of(by), outcome=receipts.CANCELLED)
        return len(gone)

    with recorded(
        "Scheduled deliveries cancelled", Scheduled, by, kind="cancel", using=using
    ) as done:
        in_batches(ids, cancel_batch, done, using)
    return done.count


def cancel_message(message_id: int, *, by: Operator = "", using: str | None = None) -> int:
    """Delete the scheduled deliveries of a message; return how many queues will not get it.

    0: it has been delivered already, or is ready to be.
    """
    connection = connection_for(using)
    with recorded(
        "Message cancelled", Scheduled, by, kind="cancel", using=using, message=int(message_id)
    ) as done:
        with transaction.atomic(using=connection.alias):
            gone = operations.cancel_message(connection, message_id)
            receipts.keep_of(connection, gone, by=name_of(by), outcome=receipts.CANCELLED)
        done.count = len(gone)
    return done.count
