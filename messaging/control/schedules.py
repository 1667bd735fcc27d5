"""Run, pause and resume schedules, and say when they are due."""

import datetime

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from .. import conf, scheduling
from ..exceptions import UnknownSchedule
from ..messages import MessageId
from ..models import Schedule
from ..names import check_queue_name
from ..store import schedules
from ..store.connection import connection_for
from ..ticks import Ticks, check_ticks, in_words, upcoming
from .history import Operator, enter, log, name_of

MOST_RUNS = 100


def run_schedule(
    schedule: Schedule | str, *, by: Operator = "", using: str | None = None
) -> MessageId:
    """Send the message of a schedule now, also of a paused one; its plan stays as it is.

    Returns the message's id. Raises UnknownSchedule, and what sending raises.
    """
    found = find_schedule(schedule, using)
    with transaction.atomic(using=using or conf.DATABASE):
        message_id = scheduling.run_now(found.name, using)
        enter(by, found, f"Run now: message {message_id}.")
    log("Schedule run", by, schedule=found.name, message=message_id)
    return message_id


def pause_schedule(
    schedule: Schedule | str, *, by: Operator = "", using: str | None = None
) -> bool:
    """Send nothing more at its ticks; return whether it was not paused yet."""
    found = find_schedule(schedule, using)
    with transaction.atomic(using=using or conf.DATABASE):
        running = _rows(using).filter(pk=found.pk, paused_at__isnull=True)
        if not running.update(paused_at=Now(), paused_by=name_of(by)[:150]):
            return False
        enter(by, found, "Paused.")
    log("Schedule paused", by, schedule=found.name)
    return True


def resume_schedule(
    schedule: Schedule | str, *, by: Operator = "", using: str | None = None
) -> bool:
    """Go on with the next tick from now; return whether it was paused.

    The ticks of the pause were not wanted and are not caught up.
    """
    found = find_schedule(schedule, using)
    with transaction.atomic(using=using or conf.DATABASE):
        paused = _rows(using).filter(pk=found.pk, paused_at__isnull=False)
        if not paused.update(paused_at=None, paused_by="", next_at=None):
            return False
        enter(by, found, "Resumed.")
    log("Schedule resumed", by, schedule=found.name)
    return True


def next_runs(
    schedule: Schedule | str, count: int = 5, *, using: str | None = None
) -> list[datetime.datetime]:
    """Return when a schedule is due next, in its time zone; a paused one as if it were resumed."""
    found = find_schedule(schedule, using)
    count = min(count, MOST_RUNS)
    ticks = _ticks(found)
    if found.next_at is None or found.is_paused:
        return upcoming(ticks, timezone.now(), count)
    first = [ticks.shown(found.next_at)]
    return (first + upcoming(ticks, found.next_at, count - 1))[:count]


def schedule_in_words(schedule: Schedule | str, *, using: str | None = None) -> str:
    """Say when a schedule is due: ``At 06:00 on Monday through Friday (Europe/Berlin)``."""
    return in_words(_ticks(find_schedule(schedule, using)))


def find_schedule(schedule: Schedule | str, using: str | None = None) -> Schedule:
    """Return the row of a schedule, or raise UnknownSchedule."""
    if isinstance(schedule, Schedule):
        return schedule
    found = _rows(using).filter(name=check_queue_name(schedule)).first()
    if found is None:
        raise UnknownSchedule(schedule, schedules.known_names(connection_for(using)))
    return found


def _rows(using: str | None) -> QuerySet[Schedule]:
    return Schedule.objects.using(using or conf.DATABASE)


def _ticks(schedule: Schedule) -> Ticks:
    return check_ticks(schedule.cron, schedule.every, schedule.time_zone)
