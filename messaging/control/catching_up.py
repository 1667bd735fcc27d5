"""Catch up: have a subscription begin in the past, with no gap and no double where it begins.

Publishers are kept out for a moment. What has committed by then is what a replay brings, as an
operation; whoever publishes afterwards reads the subscription.
"""

import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import OperationRefused, QueueDisabled
from ..feed import Cursor
from ..models import Operation, Subscription
from ..signals import logger, printable
from ..store import subscriptions
from ..store.connection import connection_for
from ..store.filters import Filter
from .operating import begin
from .replaying import Counted, Since, beginning, counted, meant_by, snapshot

# How long publishers are kept waiting at once, and between two tries not, seconds. Shorter than it
# takes PostgreSQL to look for a deadlock.
LOCK_WAIT = 0.5
PAUSE = 0.2
# How long it is tried, seconds.
PATIENCE = 30.0

T = TypeVar("T")


class Past(NamedTuple):
    """From where on a subscription is to begin, and how many messages that is at least."""

    since: int | str
    found: Counted


def look_back(subscription: Subscription, since: Since, *, using: str | None = None) -> Past:
    """Check from where on a subscription that is not stored yet begins, and count."""
    if subscription.queue.is_disabled:
        raise QueueDisabled(subscription.queue.name)
    now = snapshot(using=using)
    begins = beginning(since, Cursor.parse(now))
    queue, options = meant_by(subscription, since=begins, upto=now, using=using)
    return Past(begins, counted(connection_for(using), queue, options, Filter()))


def while_nobody_publishes(connection: BaseDatabaseWrapper, act: Callable[[], T]) -> T:
    """Do something in a transaction of its own that no publisher overlaps."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            with transaction.atomic(using=connection.alias):
                subscriptions.keep_publishers_out(connection, LOCK_WAIT)
                return act()
        except TimeoutError as error:
            if time.monotonic() > end:
                raise OperationRefused(
                    f"Nothing was subscribed: for {PATIENCE:g} seconds there was always some "
                    f"transaction that had published {LOCK_WAIT:g} seconds ago and not ended. "
                    f"Try again, or find it in pg_stat_activity."
                ) from error
        time.sleep(PAUSE)  # publishers have their turn


def begin_catching_up(
    subscription: Subscription, past: Past, *, using: str | None = None
) -> Operation:
    """Begin to bring a subscription what is committed already, while nobody publishes."""
    queue, options = meant_by(
        subscription, since=past.since, upto=snapshot(using=using), using=using
    )
    operation = begin(
        "replay",
        queue=queue,
        to=queue,
        options=options | {"subscription": subscription.pk, "samples": past.found.samples},
        total=past.found.number,
        is_exact=False,  # more may have come since it was counted
        using=using,
    )
    logger.info(
        "Subscription begins in the past subscription=%s since=%s operation=%s",
        printable(subscription),
        past.since,
        operation.pk,
    )
    return operation
