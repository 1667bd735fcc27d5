"""Record who did what: a log line always, an entry in the admin's history where a user did it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, Union

from django.apps import apps
from django.db.models import Model

from ..signals import logger, printable

if TYPE_CHECKING:
    from django.contrib.admin.models import LogEntry
    from django.contrib.auth.base_user import AbstractBaseUser
    from django.contrib.auth.models import AnonymousUser

# A user, or the name of who or what acts otherwise.
Operator: TypeAlias = Union["AbstractBaseUser", "AnonymousUser", str]


@dataclass(slots=True)
class Done:
    """How many messages a verb has dealt with so far."""

    count: int = 0


@contextmanager
def recorded(
    did: str, about: Model | type[Model], by: Operator, *, deletion: bool = False, **facts: object
) -> Iterator[Done]:
    """Enter a verb before it starts, so that a crash leaves a trace, and its count when it ends."""
    entry = enter(by, about, f"{did}: begun.", deletion=deletion)
    done = Done()
    end = "."
    try:
        yield done
    except BaseException as error:
        end = f", then stopped by {type(error).__name__}."
        raise
    finally:
        log(did + end.rstrip("."), by, **facts, count=done.count)
        if entry:
            entry.change_message = f"{did}: {done.count:,}{end}"
            entry.save(update_fields=["change_message"])


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
