"""Replay: have messages of the log wait again, for the queue they were for or for another one.

What is replayed is fixed when the replay begins: what a snapshot has seen. A message whose
transaction commits later, however low its id, is found by the next replay from that snapshot, and
none is found by both.
"""

import datetime
import time
from dataclasses import replace
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext_lazy as _

from .. import conf
from ..exceptions import InvalidOption, OperationRefused, QueueDisabled
from ..feed import BadCursor, Cursor
from ..models import Operation, OperationState, Queue, Subscription
from ..store import replaying, retention, searching, selected
from ..store.connection import connection_for
from ..store.depths import COUNT_LIMIT
from ..store.filters import Filter
from ..store.replaying import Page, Wanted, Way
from ..store.selected import Taken
from .batches import announced
from .freezing import frozen, thawed
from .history import Operator
from .kinds import existing
from .operating import SAMPLES, Step, begin, register, run
from .queues import find_queue

Since = datetime.datetime | int | str
SINCE = "use an aware datetime, the id of a message, or what control.snapshot() returned"
# How long a beginning counts, and one statement may take, seconds.
COUNT_FOR = 5.0
SECONDS = 10.0


def snapshot(*, using: str | None = None) -> str:
    """Return which transactions have ended, as a text from which a later replay can go on."""
    text, at, own = replaying.now(connection_for(using))
    cursor = Cursor.parse(f"{text}@{at}")
    if own is not None and cursor.snapshot.sees(own):
        seen = replace(cursor.snapshot, running=cursor.snapshot.running | {own})
        cursor = replace(cursor, snapshot=seen)
    return str(cursor)


def begin_replay(
    source: Queue | Subscription | str,
    *,
    since: Since,
    to: Queue | str | None = None,
    wanted: Filter | None = None,
    rate: float | None = None,
    by: Operator = "",
    upto: str | None = None,
    using: str | None = None,
) -> Operation:
    """Begin to have messages of the log wait again, each as new: for ``source``, or ``to``.

    ``source``: a queue, with what was sent to it and what its subscriptions bring; or one
    subscription. ``since``: an aware datetime or a message's id, from which on all are meant; or
    a snapshot, which has seen none of them. ``wanted``: a filter without a state. What ``upto``
    has not seen (default: now) is left out; ``options["upto"]`` of the operation is where the next
    replay goes on.
    """
    wanted = wanted or Filter()
    if wanted.states:
        raise InvalidOption("state", wanted.states[0], "messages are replayed in whatever state")
    queue, own, ways = _read(source, using)
    target = find_queue(to, using) if to is not None else queue
    if target.is_disabled:
        raise QueueDisabled(target.name)
    now = snapshot(using=using)
    upto = str(_cursor("upto", upto, Cursor.parse(now))) if upto is not None else now
    connection = connection_for(using)
    options: dict[str, Any] = {
        "since": _checked(since, Cursor.parse(now)),
        "upto": upto,
        "own": own,
        "ways": [list(way) for way in ways],
        "last_id": replaying.last_id(connection),
    }
    if isinstance(source, Subscription):
        options["source"] = str(source)
    samples, total, is_exact = _count(connection, _wanted(queue.pk, options), wanted, queue)
    return begin(
        "replay",
        queue=queue,
        to=target,
        filter=frozen(wanted),
        options=options | {"samples": [{"message": each} for each in samples]},
        rate=rate,
        total=total,
        is_exact=is_exact,
        by=by,
        using=using,
    )


def replay(source: Queue | Subscription | str, *, since: Since, **how: Any) -> int:
    """Carry out what :func:`begin_replay` begins, here and now; return how many wait again."""
    operation = run(begin_replay(source, since=since, **how), using=how.get("using"))
    if operation.state != OperationState.DONE:
        reason = operation.error or f"It was {operation.state} after {operation.done:,} messages."
        raise OperationRefused(f"Operation {operation.pk}: {reason}")
    return operation.done


class Replay:
    """Messages of the log, once more."""

    name, label, permission = "replay", _("Replay"), "consume_queue"

    def step(self, connection: BaseDatabaseWrapper, operation: Operation, limit: int) -> Step:
        """Have the next messages wait again."""
        retention.keep_log(connection)
        queue = existing(connection, operation.queue_id)
        to = existing(connection, operation.to_id)
        page = _page(
            connection,
            _wanted(queue.pk, operation.options),
            thawed(operation),
            queue,
            after=operation.position.get("after", replaying.FIRST),
            limit=limit,
        )
        back = to.pk == queue.pk
        taken = [
            # The log knows neither the priority nor the expiry of what was sent.
            Taken(None, 0, found.message_id, 0, None, None, subscription if back else None)
            for found in page.rows
            for subscription in found.subscriptions
        ]
        done = announced(connection, selected.place(connection, to.pk, taken)) if taken else 0
        if page.next is None:
            return Step(done, {}, finished=True)
        return Step(done, {"after": list(page.next)})


def _read(
    source: Queue | Subscription | str, using: str | None
) -> tuple[Queue, int | None, list[Way]]:
    """Return the queue, the same where its own messages are meant, and what brings others."""
    if isinstance(source, Subscription):
        return source.queue, None, [_way(source)]
    queue = find_queue(source, using)
    rows = Subscription.objects.using(using or conf.DATABASE)
    active = rows.filter(queue=queue.pk, is_active=True).order_by("pk")
    return queue, queue.pk, [_way(each) for each in active]


def _way(subscription: Subscription) -> Way:
    each = subscription
    return Way(each.pk, each.pattern, each.filter, str(each.filter_scope))


def _wanted(queue_id: int, options: dict[str, Any]) -> Wanted:
    since = options["since"]
    is_snapshot = isinstance(since, str) and "@" in since
    is_time = isinstance(since, str) and not is_snapshot
    return Wanted(
        queue_id=queue_id,
        own=options["own"],
        ways=[Way(*way) for way in options["ways"]],
        upto=str(Cursor.parse(options["upto"]).snapshot),
        last_id=options["last_id"],
        since_time=datetime.datetime.fromisoformat(since) if is_time else None,
        since_id=since if isinstance(since, int) else 0,
        since_snapshot=str(Cursor.parse(since).snapshot) if is_snapshot else None,
    )


def _checked(since: Since, now: Cursor) -> int | str:
    """Return the beginning as a JSON value; InvalidOption for what is none."""
    if isinstance(since, datetime.datetime):
        if since.tzinfo is None:
            raise InvalidOption("since", since.isoformat(), SINCE)
        if since.timestamp() > now.at + 1:
            raise InvalidOption("since", since.isoformat(), "use a time that has come")
        return since.isoformat()
    if isinstance(since, str):
        return str(_cursor("since", since, now))
    if isinstance(since, bool) or not isinstance(since, int) or not 0 < since < 2**63:
        raise InvalidOption("since", since, SINCE)
    return int(since)


def _cursor(option: str, text: str, now: Cursor) -> Cursor:
    try:
        cursor = Cursor.parse(text)
    except BadCursor as error:
        raise InvalidOption(option, text, SINCE) from error
    if cursor.snapshot.xmax > now.snapshot.xmax:
        raise InvalidOption(option, text, "it lies ahead of this database; use one that it gave")
    return cursor


def _count(
    connection: BaseDatabaseWrapper, meant: Wanted, only: Filter, queue: Queue
) -> tuple[list[int], int, bool]:
    """Return the first ids, how many there are up to 10,000, and whether that is all."""
    samples: list[int] = []
    count = 0
    after: tuple[str, int] | None = replaying.FIRST
    end = time.monotonic() + COUNT_FOR
    while after is not None and count <= COUNT_LIMIT and time.monotonic() < end:
        page = _page(connection, meant, only, queue, after=after, limit=COUNT_LIMIT + 1)
        samples += [found.message_id for found in page.rows[: SAMPLES - len(samples)]]
        count += sum(len(found.subscriptions) for found in page.rows)
        after = page.next
    return samples, min(count, COUNT_LIMIT), after is None and count <= COUNT_LIMIT


def _page(
    connection: BaseDatabaseWrapper, meant: Wanted, only: Filter, queue: Queue, **how: Any
) -> Page:
    with searching.bounded(connection, SECONDS, f"A look at the log for queue {queue.name!r}"):
        return replaying.page(connection, meant, only, **how)


register(Replay())
