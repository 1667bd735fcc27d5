"""Schedules: edit them, see when they are due, and run, pause and resume them."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import formats
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import control
from ..exceptions import MessagingError
from ..models import Schedule
from .editing import ConfigurationAdmin
from .operations import Operation, OperationsAdmin, Selection

SHOWN = 5


def run_chosen(selection: Selection) -> int:
    """Send the messages of the schedules chosen; return how many."""
    chosen = list(_schedules(selection))
    for schedule in chosen:
        control.run_schedule(schedule, by=selection.by)
    return len(chosen)


def pause_chosen(selection: Selection) -> int:
    """Pause the schedules chosen; return how many were not paused before."""
    return sum(control.pause_schedule(each, by=selection.by) for each in _schedules(selection))


def resume_chosen(selection: Selection) -> int:
    """Resume the schedules chosen; return how many were paused."""
    return sum(control.resume_schedule(each, by=selection.by) for each in _schedules(selection))


def _schedules(selection: Selection) -> QuerySet[Schedule]:
    return Schedule.objects.filter(pk__in=list(selection.ids)).order_by("name")


RUN = Operation(
    name="run",
    permission="run_schedule",
    label=gettext_lazy("Run now"),
    explanation=gettext_lazy("The message is sent at once. The plan stays as it is."),
    run=run_chosen,
    done=lambda count: ngettext("%d message was sent.", "%d messages were sent.", count) % count,
)
PAUSE = Operation(
    name="pause",
    permission="run_schedule",
    label=gettext_lazy("Pause"),
    explanation=gettext_lazy("Nothing is sent until it is resumed, nor for the time until then."),
    run=pause_chosen,
    done=lambda count: (
        ngettext("%d schedule is paused.", "%d schedules are paused.", count) % count
    ),
)
RESUME = Operation(
    name="resume",
    permission="run_schedule",
    label=gettext_lazy("Resume"),
    explanation=gettext_lazy("It goes on with the next tick from now."),
    run=resume_chosen,
    done=lambda count: (
        ngettext("%d schedule is resumed.", "%d schedules are resumed.", count) % count
    ),
)


@admin.register(Schedule)
class ScheduleAdmin(OperationsAdmin, ConfigurationAdmin):
    list_display = ("name", "target", "when", "next_at", "last_at", "state", "failed")
    list_select_related = ("queue", "topic")
    sortable_by = ("name",)
    operations = (RUN, PAUSE, RESUME)
    actions = ("run_now", "pause", "resume")
    autocomplete_fields = ("queue", "topic")

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        when = ["cron", "every", "time_zone", "catch_up"]
        told = ["state", "next_runs", "last_at", "failed", "last_error"]
        fieldsets = [
            (None, {"fields": ["name", "description"]}),
            (_("What is sent"), {"fields": ["queue", "topic", "body", "headers", "priority"]}),
            (_("When"), {"fields": [*when, "version"]}),
        ]
        return fieldsets if obj is None else [*fieldsets, (_("How it goes"), {"fields": told})]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        told = ("state", "next_runs", "last_at", "failed", "last_error")
        return () if obj is None else ("name", *told)

    @admin.display(description=gettext_lazy("to"))
    def target(self, schedule: Schedule) -> str:
        return str(schedule.queue or schedule.topic or "-")

    @admin.display(description=gettext_lazy("when"))
    def when(self, schedule: Schedule) -> str:
        try:
            return control.schedule_in_words(schedule)
        except (MessagingError, ValueError):  # a row that somebody wrote by hand
            return _("never: it says no time")

    @admin.display(description=gettext_lazy("state"))
    def state(self, schedule: Schedule) -> str:
        if schedule.paused_at is None:
            return _("running")
        since = formats.date_format(schedule.paused_at, "SHORT_DATETIME_FORMAT")
        values = {"by": schedule.paused_by or "?", "since": since}
        return _("paused by %(by)s since %(since)s") % values

    @admin.display(description=gettext_lazy("next runs"))
    def next_runs(self, schedule: Schedule) -> str | SafeString:
        try:
            runs = control.next_runs(schedule, SHOWN)
        except (MessagingError, ValueError):
            return _("never: it says no time")
        words = [(self.when(schedule),), *((f"{run:%a %Y-%m-%d %H:%M:%S %Z}",) for run in runs)]
        return format_html_join("", "<div>{}</div>", words)

    def has_run_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "run_schedule")

    @admin.action(description=gettext_lazy("Run now"), permissions=["run"])
    def run_now(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, RUN, rows)

    @admin.action(description=gettext_lazy("Pause"), permissions=["run"])
    def pause(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, PAUSE, rows)

    @admin.action(description=gettext_lazy("Resume"), permissions=["run"])
    def resume(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, RESUME, rows)
