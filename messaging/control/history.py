"""Record who did what: among the operations, in the log, and for users in the admin's history."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, Union

from django.apps import apps
from django.db import DatabaseError, InterfaceError
from django.db.models import Model
from django.db.models.functions import Now

from .. import conf
from ..models import Operation, OperationState, Queue
from ..signals import logger, printable
from ..store.filters import Filter
from .freezing import frozen

if TYPE_CHECKING:
    from django.contrib.admin.models import LogEntry
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser

# A user, or the name of who or what acts otherwise.
Operator: TypeAlias = Union["AbstractBaseUser", "AnonymousUser", str]


# An operation with this option is the record of what its caller has done: nobody resumes it.
DIRECT = "direct"
UNENDED = "It has not ended: it is under way, or its process was killed."


@dataclass(slots=True)
class Done:
    """How many messages a verb has dealt with so far."""

    count: int = 0


@contextmanager
def recorded(
    did: str,
    about: Model | type[Model],
    by: Operator,
    *,
    kind: str,
    using: str | None,
    queue: Queue | None = None,
    to: Queue | None = None,
    wanted: Filter | None = None,
    deletion: bool = False,
    **facts: object,
) -> Iterator[Done]:
    """Enter a verb before it starts, so that a crash leaves a trace, and its count when it ends."""
    meant = (frozen(wanted) if wanted else {}) | facts
    row = keep(kind, by, using, queue=queue, to=to, meant=meant, error=UNENDED)
    entry = enter(by, about, f"{did}: begun.", deletion=deletion)
    done = Done()
    end = ""
    try:
        yield done
    except BaseException as error:
        end = f", then stopped by {type(error).__name__}"
        with suppress(DatabaseError, InterfaceError):  # the first error is the one to hear of
            _end(row, entry, f"{did}: {done.count:,}{end}.", done, OperationState.FAILED)
        raise
    else:
        _end(row, entry, f"{did}: {done.count:,}.", done, OperationState.DONE)
    finally:
        named: dict[str, object] = {"queue": queue.name} if queue else {}
        named |= {"filter": wanted} if wanted else {}
        log(did + end, by, **named, **facts, count=done.count)


def _end(
    row: Operation, entry: "LogEntry | None", note: str, done: Done, state: OperationState
) -> None:
    row.done = row.total = done.count
    row.state = state
    row.error = note if state == OperationState.FAILED else ""
    row.advanced_at = row.finished_at = Now()
    row.save(update_fields=["state", "error", "done", "total", "advanced_at", "finished_at"])
    if entry:
        entry.change_message = note
        entry.save(update_fields=["change_message"])


def keep(
    kind: str,
    by: Operator,
    using: str | None,
    *,
    queue: Queue | None = None,
    to: Queue | None = None,
    meant: Mapping[str, object] | None = None,
    error: str = "",
) -> Operation:
    """Add to the operations what is done at once; with an error it has not ended well."""
    return Operation.objects.using(using or conf.DATABASE).create(
        kind=kind,
        state=OperationState.FAILED if error else OperationState.DONE,
        error=error,
        queue=queue,
        to=to,
        filter=dict(meant or {}),
        options={DIRECT: True, "user": None if isinstance(by, str) else by.pk},
        created_by=name_of(by)[:150],
        finished_at=None if error else Now(),
    )


def enter(
    by: Operator, about: Model | type[Model], note: str, *, deletion: bool = False
) -> "LogEntry | None":
    """Add to the admin's history what a user did, where there is an admin and a user."""
    if not apps.is_installed("django.contrib.admin") or isinstance(by, str) or by.pk is None:
        return None
    from django.contrib.admin.models import CHANGE, DELETION, LogEntry
    from django.contrib.contenttypes.models import ContentType

    is_row = isinstance(about, Model)
    return LogEntry.objects.create(
        user_id=by.pk,
        content_type=ContentType.objects.get_for_model(about),
        object_id=str(about.pk) if is_row else None,
        object_repr=str(about if is_row else about._meta.verbose_name_plural)[:200],
        action_flag=DELETION if deletion else CHANGE,
        change_message=note,
    )


def user_of(number: int | None) -> Operator | None:
    """Return a user that acted earlier, where there are users and this one still is."""
    if number is None or not apps.is_installed("django.contrib.auth"):
        return None
    from django.contrib.auth import get_user_model

    found: Operator | None = get_user_model()._default_manager.filter(pk=number).first()
    return found


def log(event: str, by: Operator, **facts: object) -> None:
    """Log what happened and who did it."""
    pairs = " ".join(f"{key}={printable(fact)}" for key, fact in facts.items())
    logger.info("%s %s by=%s", event, pairs, printable(name_of(by)))


def name_of(by: Operator) -> str:
    """Return the name of whoever acts."""
    return by if isinstance(by, str) else by.get_username()
