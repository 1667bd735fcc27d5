"""Operations: carry out a verb on any number of messages, step by step, in whichever process.

An operation is a row, and each step of it one transaction: it locks the row, acts on at most 1,000
messages, and writes how far it came. Whoever dies, nothing is done twice or left out, and any other
process goes on from there.

What a step does is said by a *kind*: an instance of a small class, given to :func:`register` where
it is defined, with

- ``name``: what ``Operation.kind`` says, and ``label``: what people read,
- ``permission``: the codename that beginning, cancelling and resuming such an operation takes,
- ``step(connection, operation, limit) -> Step``: act on at most ``limit`` messages behind
  ``operation.position``, which is what the step before returned (at first what :func:`begin` was
  given). It runs inside the transaction that stores what it returns, and commits nothing itself. A
  MessagingError ends the operation as failed, with its text.

A ``begin_...`` function checks what is asked, freezes it as JSON and calls :func:`begin`.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from django.db import InterfaceError, OperationalError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import QuerySet
from django.db.models.functions import Now

from .. import conf
from ..exceptions import InvalidOption, MessagingError, OperationRefused
from ..models import Operation, OperationState, Queue
from ..signals import logger, printable
from ..store.connection import connection_for
from .batches import BATCH
from .history import DIRECT, Operator, enter, log, name_of, user_of
from .queues import tell_workers

# Another process does a step at this moment, or knows the kind where this one does not; seconds.
BUSY = 0.05
# Nobody waits longer than this without a look at whether it was cancelled, seconds.
LOOK_EVERY = 0.5
SAMPLES = 5
# Where the engine's own facts are kept beside those of the kind.
PACE = "_pace"


class Step(NamedTuple):
    """What a step has done, and where the next one goes on.

    ``wait``: seconds in which there is nothing to do. ``failed``: why the operation ends here.
    ``note``: what an operation that is finished has left as it was.
    ``is_paced`` is false for what the rate is not about.
    """

    done: int
    position: dict[str, Any]
    finished: bool = False
    wait: float = 0.0
    failed: str = ""
    note: str = ""
    is_paced: bool = True


class Kind(Protocol):
    """A verb that operations carry out."""

    name: str
    label: Any
    permission: str

    def step(self, connection: BaseDatabaseWrapper, operation: Operation, limit: int) -> Step:
        """Act on the next messages, at most ``limit``, and say where to go on."""


KINDS: dict[str, Kind] = {}


def register(kind: Kind) -> None:
    """Have operations of a kind carried out."""
    KINDS[kind.name] = kind


def begin(
    kind: str,
    *,
    queue: Queue | None = None,
    to: Queue | None = None,
    filter: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    position: Mapping[str, Any] | None = None,
    rate: float | None = None,
    total: int | None = None,
    is_exact: bool = True,
    by: Operator = "",
    using: str | None = None,
) -> Operation:
    """Store an operation, which the workers begin to carry out when this transaction commits.

    Everything is JSON. ``total``: how many messages are meant, at least so many where it is not
    exact. ``rate``: messages a second.
    """
    if kind not in KINDS:
        raise InvalidOption("kind", kind, f"use one of {', '.join(sorted(KINDS))}")
    if rate is not None:
        _check_rate(rate)
    connection = connection_for(using)
    with transaction.atomic(using=connection.alias):
        operation = operations_of(using).create(
            kind=kind,
            queue=queue,
            to=to,
            filter=dict(filter or {}),
            options={**(options or {}), "user": None if isinstance(by, str) else by.pk},
            position=dict(position or {}),
            rate=rate,
            total=total,
            is_exact=is_exact,
            created_by=name_of(by)[:150],
        )
        enter(by, operation, f"Begun: {kind}, {described(operation)}.")
        tell_workers(using)
        facts = {"operation": operation.pk, "kind": kind, "filter": described(operation)}
        transaction.on_commit(
            lambda: log("Operation begun", by, **facts), using=connection.alias, robust=True
        )
    return operations_of(using).get(pk=operation.pk)


def advance(operation: Operation | int, *, using: str | None = None) -> float | None:
    """Do one step of an operation; return after how many seconds to do the next, None at its end.

    Any process may call it at any time: whoever finds another one at work does nothing.
    """
    number = _number(operation)
    connection = connection_for(using)
    try:
        with transaction.atomic(using=connection.alias):
            return _advance(connection, number, using)
    except (OperationalError, InterfaceError):
        raise  # of this connection and this moment: the next step tries again
    except MessagingError as error:
        reason = str(error)
    except Exception as error:
        logger.exception("Operation failed operation=%s", number)
        reason = f"{type(error).__qualname__}: {printable(error, 500)}"
    with transaction.atomic(using=connection.alias):
        row = _locked(using).filter(pk=number, state=OperationState.RUNNING).first()
        if row is not None:
            _end(row, OperationState.FAILED, reason)
    return None


def run(
    operation: Operation | int,
    *,
    progress: Callable[[Operation], object] | None = None,
    using: str | None = None,
) -> Operation:
    """Carry an operation out to its end, here and now, and return it as it is then."""
    number = _number(operation)
    while (wait := advance(number, using=using)) is not None:
        if progress:
            progress(find_operation(number, using))
        if wait:
            # What it waits for is the clock; it looks in between whether it was cancelled.
            time.sleep(min(wait, LOOK_EVERY))
    return find_operation(number, using)


def cancel_operation(
    operation: Operation | int, *, by: Operator = "", using: str | None = None
) -> bool:
    """Stop an operation after the step that runs at this moment; return whether it was running.

    What it has done stays done, and :func:`resume_operation` goes on from there.
    """
    with transaction.atomic(using=using or conf.DATABASE):
        row = _locked(using, wait=True).filter(pk=_number(operation)).first()
        if row is None or row.state != OperationState.RUNNING:
            return False
        row.state = OperationState.CANCELLED
        row.cancelled_by = name_of(by)[:150]
        row.finished_at = Now()
        row.save(update_fields=["state", "cancelled_by", "finished_at"])
        enter(by, row, f"Cancelled after {row.done:,} messages.")
    log("Operation cancelled", by, operation=row.pk, kind=row.kind, count=row.done)
    return True


def resume_operation(
    operation: Operation | int, *, by: Operator = "", using: str | None = None
) -> bool:
    """Go on with an operation that was cancelled or has failed, exactly where it stopped.

    Returns whether there was anything to go on with.
    """
    with transaction.atomic(using=using or conf.DATABASE):
        row = _locked(using, wait=True).filter(pk=_number(operation)).first()
        if row is None or row.state not in (OperationState.CANCELLED, OperationState.FAILED):
            return False
        if row.options.get(DIRECT):  # nobody but its caller knows how it goes on
            return False
        row.state = OperationState.RUNNING
        row.error = row.cancelled_by = ""
        row.finished_at = None
        # Its rate counts from now on.
        row.position.pop(PACE, None)
        row.save(update_fields=["state", "error", "cancelled_by", "finished_at", "position"])
        enter(by, row, f"Resumed after {row.done:,} messages.")
        tell_workers(using)
    log("Operation resumed", by, operation=row.pk, kind=row.kind, count=row.done)
    return True


def operations(
    *, state: OperationState | str | None = None, limit: int = 100, using: str | None = None
) -> list[Operation]:
    """Return operations, the newest first; each has ``state``, ``done`` of ``total``, ``error``."""
    rows = operations_of(using).select_related("queue", "to").order_by("-id")
    return list((rows.filter(state=state) if state else rows)[:limit])


def running(using: str | None = None) -> list[int]:
    """Return the ids of the oldest operations that run."""
    rows = operations_of(using).filter(state="running").order_by("id")
    return list(rows.values_list("pk", flat=True)[:20])


def find_operation(operation: int, using: str | None = None) -> Operation:
    """Return an operation as it is now, or raise OperationRefused."""
    found = operations_of(using).filter(pk=operation).first()
    if found is None:
        raise OperationRefused(f"Operation {operation} is unknown. List those that there are.")
    return found


def operations_of(using: str | None) -> QuerySet[Operation]:
    """Return the operations of the database that holds the messages."""
    return Operation.objects.using(using or conf.DATABASE)


def described(operation: Operation) -> str:
    """Say which messages an operation is about, and what is done to them, on one line."""
    parts = [f"queue={operation.queue}"] if operation.queue else []
    parts += [f"to={operation.to}"] if operation.to else []
    wanted = [f"{name}={value}" for name, value in operation.filter.items() if value is not None]
    shown = ("patch", "canary", "source", "since", "reason")
    wanted += [f"{name}={operation.options[name]}" for name in shown if operation.options.get(name)]
    wanted += [f"rate={operation.rate:g}"] if operation.rate else []
    return printable(" ".join(parts + wanted) or "everything", 500)


def _advance(connection: BaseDatabaseWrapper, number: int, using: str | None) -> float | None:
    # Annotated: the database's clock, when the row was locked.
    row: Any = (
        _locked(using).filter(pk=number, state=OperationState.RUNNING).annotate(now=Now()).first()
    )
    if row is None:
        runs = operations_of(using).filter(pk=number, state=OperationState.RUNNING).exists()
        return BUSY if runs else None
    kind = KINDS.get(row.kind)
    if kind is None:  # of another version than this process
        return LOOK_EVERY
    before = dict(row.position)
    limit = BATCH
    pace = row.position.pop(PACE, None)
    if row.rate:
        limit, wait, pace = _paced(row.rate, row.now.timestamp(), pace)
        if wait:
            if PACE not in before:
                operations_of(using).filter(pk=number).update(position=before | {PACE: pace})
            return wait
    step = kind.step(connection, row, limit)
    if row.rate:
        pace = [pace[0] - step.done * step.is_paced, pace[1]]
    after = step.position | ({PACE: pace} if row.rate else {})
    row.position = after
    row.done += step.done
    if step.done or step.finished or step.failed or after != before:
        row.advanced_at = Now()
        row.save(update_fields=["position", "done", "advanced_at"])
    if step.failed or step.finished:
        state = OperationState.FAILED if step.failed else OperationState.DONE
        _end(row, state, step.failed or step.note)
        return None
    return step.wait


def _paced(rate: float, now: float, pace: Any) -> tuple[int, float, Any]:
    """Return how many may be done now, or the seconds to wait; at most a second's worth at once."""
    tokens, at = pace or (0.0, now)
    tokens = min(tokens + rate * max(0.0, now - at), max(1.0, rate))
    enough = max(1.0, min(float(BATCH), rate / 10))
    if tokens < enough:
        return 0, (enough - tokens) / rate, pace or [0.0, now]
    return min(BATCH, int(tokens)), 0.0, [tokens, now]


def _end(row: Operation, state: OperationState, error: str) -> None:
    row.state = state
    row.error = error
    row.finished_at = Now()
    row.save(update_fields=["state", "error", "finished_at"])
    by = user_of(row.options.get("user")) or row.created_by
    end = f"Failed after {row.done:,} messages" if state == "failed" else f"Done: {row.done:,}"
    end += f": {error}" if error else "."
    enter(by, row, end)
    log(f"Operation {state}", by, operation=row.pk, kind=row.kind, count=row.done, error=error)


def _locked(using: str | None, *, wait: bool = False) -> QuerySet[Operation]:
    return operations_of(using).select_for_update(skip_locked=not wait, of=("self",))


def _number(operation: Operation | int) -> int:
    return int(operation.pk if isinstance(operation, Operation) else operation)


def _check_rate(rate: float) -> None:
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < math.inf:
        raise InvalidOption("rate", rate, "use messages a second, more than 0")
