"""Replay: have messages of the log wait again, for the queue they were for or for another one.

What is replayed is fixed when the replay begins: what a snapshot has seen. A message whose
transaction commits later, however low its id, is found by the next replay from that snapshot, and
none is found by both.
"""

import datetime
import time
from dataclasses import replace
from typing import Any, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext_lazy as _

from .. import conf
from ..exceptions import InvalidOption, OperationRefused, QueueDisabled
from ..feed import BadCursor, Cursor
from ..models import Operation, OperationState, Queue, Subscription
from ..store import receipts, replaying, retention, searching, selected
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

Since = datetime.datetime | datetime.timedelta | int | str
SINCE = (
    "use an aware datetime, a timedelta before now, the id of a message, or what "
    "control.snapshot() returned"
)
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
    subscription. ``since``: an aware datetime, a timedelta before now (in full seconds of the
    database's clock) or a message's id, from which on all are meant; or a snapshot, which has seen
    none of them. ``wanted``: a filter without a state. What ``upto`` has not seen (default: now) is
    left out; ``options["upto"]`` of the operation is where the next replay goes on.
    """
    wanted = wanted or Filter()
    if wanted.states:
        raise InvalidOption("state", wanted.states[0], "messages are replayed in whatever state")
    now = Cursor.parse(snapshot(using=using))
    queue, options = meant_by(
        source,
        since=beginning(since, now),
        upto=str(now if upto is None else cursor_of("upto", upto, now)),
        using=using,
    )
    target = find_queue(to, using) if to is not None else queue
    if target.is_disabled:
        raise QueueDisabled(target.name)
    found = counted(connection_for(using), queue, options, wanted)
    return begin(
        "replay",
        queue=queue,
        to=target,
        filter=frozen(wanted),
        options=options | {"samples": found.samples},
        rate=rate,
        total=found.number,
        is_exact=found.is_exact,
        by=by,
        using=using,
    )


def replay(source: Queue | Subscription | str, *, since: Since, **how: Any) -> int:
    """Carry out what :func:`begin_replay` begins, here and now; return how many wait again."""
    return carried_out(begin_replay(source, since=since, **how), how.get("using")).done


def carried_out(operation: Operation | int, using: str | None) -> Operation:
    """Carry an operation out, here and now; raise OperationRefused unless all of it is done."""
    ended = run(operation, using=using)
    if ended.state != OperationState.DONE:
        reason = ended.error or f"It was {ended.state} after {ended.done:,} messages."
        raise OperationRefused(f"Operation {ended.pk}: {reason}")
    return ended


class Replay:
    """Messages of the log, once more."""

    name, label, permission = "replay", _("Replay"), "consume_queue"

    def step(self, connection: BaseDatabaseWrapper, operation: Operation, limit: int) -> Step:
        """Have the next messages wait again."""
        if (number := operation.options.get("subscription")) is not None:
            rows = Subscription.objects.using(connection.alias)
            if not rows.filter(pk=number).exists():
                return Step(0, operation.position, failed="The subscription has ended meanwhile.")
        done, after = replayed(connection, operation, operation.position.get("after"), limit)
        if after is None:
            return Step(done, {}, finished=True)
        return Step(done, {"after": after})


def replayed(
    connection: BaseDatabaseWrapper, operation: Operation, after: Any, limit: int
) -> tuple[int, list[Any] | None]:
    """Have the next messages wait again; return how many, and behind which one to go on."""
    retention.keep_log(connection)
    queue = existing(connection, operation.queue_id)
    to = existing(connection, operation.to_id)
    page = _page(
        connection,
        _wanted(queue.pk, operation.options),
        thawed(operation),
        queue,
        after=after or replaying.FIRST,
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
    ids = [each.message_id for each in taken]
    by = f"operation {operation.pk}"
    if operation.created_by:
        by += f" of {operation.created_by}"
    receipts.keep(connection, to.pk, ids, by=by, outcome=receipts.REPLAYED)
    return done, None if page.next is None else list(page.next)


def meant_by(
    source: Queue | Subscription | str, *, since: int | str, upto: str, using: str | None
) -> tuple[Queue, dict[str, Any]]:
    """Return the queue of a source, and what of the log is meant as JSON values."""
    queue, own, ways = _read(source, using)
    options = {
        "since": since,
        "upto": upto,
        "own": own,
        "ways": [list(way) for way in ways],
        "last_id": replaying.last_id(connection_for(using)),
    }
    if isinstance(source, Subscription):
        options["source"] = str(source)
    return queue, options


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


def beginning(since: Since, now: Cursor, option: str = "since") -> int | str:
    """Return the beginning as a JSON value; InvalidOption for what is none."""
    if isinstance(since, datetime.datetime):
        if since.tzinfo is None:
            raise InvalidOption(option, since.isoformat(), SINCE)
        if since.timestamp() > now.at + 1:
            raise InvalidOption(option, since.isoformat(), "use a time that has come")
        return since.isoformat()
    if isinstance(since, datetime.timedelta):
        return _before(now, since, option)
    if isinstance(since, str):
        return str(cursor_of(option, since, now))
    if isinstance(since, bool) or not isinstance(since, int) or not 0 < since < 2**63:
        raise InvalidOption(option, since, SINCE)
    return int(since)


def _before(now: Cursor, age: datetime.timedelta, option: str) -> str:
    if age < datetime.timedelta():
        raise InvalidOption(option, str(age), "use a time that has come")
    try:
        return (datetime.datetime.fromtimestamp(now.at, datetime.UTC) - age).isoformat()
    except OverflowError as error:
        raise InvalidOption(option, str(age), "use less than two thousand years") from error


def cursor_of(option: str, text: str, now: Cursor) -> Cursor:
    """Return a snapshot that this database gave; InvalidOption for what is none."""
    try:
        cursor = Cursor.parse(text)
    except BadCursor as error:
        raise InvalidOption(option, text, SINCE) from error
    if cursor.snapshot.xmax > now.snapshot.xmax:
        raise InvalidOption(option, text, "it lies ahead of this database; use one that it gave")
    return cursor


class Counted(NamedTuple):
    """How many messages of the log are meant, exactly up to 10,000, and the first of them."""

    number: int
    is_exact: bool
    samples: list[dict[str, int]]


def counted(
    connection: BaseDatabaseWrapper, queue: Queue, options: dict[str, Any], only: Filter
) -> Counted:
    """Count what of the log is meant, for as long as there is time."""
    meant = _wanted(queue.pk, options)
    samples: list[int] = []
    count = 0
    after: tuple[str, int] | None = replaying.FIRST
    end = time.monotonic() + COUNT_FOR
    while after is not None and count <= COUNT_LIMIT and time.monotonic() < end:
        page = _page(connection, meant, only, queue, after=after, limit=COUNT_LIMIT + 1)
        samples += [found.message_id for found in page.rows[: SAMPLES - len(samples)]]
        count += sum(len(found.subscriptions) for found in page.rows)
        after = page.next
    is_exact = after is None and count <= COUNT_LIMIT
    return Counted(min(count, COUNT_LIMIT), is_exact, [{"message": each} for each in samples])


def _page(
    connection: BaseDatabaseWrapper, meant: Wanted, only: Filter, queue: Queue, **how: Any
) -> Page:
    with searching.bounded(connection, SECONDS, f"A look at the log for queue {queue.name!r}"):
        return replaying.page(connection, meant, only, **how)


register(Replay())
