"""Scheduled deliveries: see what is due when, deliver it now, cancel or bury it."""

from itertools import islice
from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import control
from ..models import Queue, Scheduled
from .deadletters import with_names
from .lists import RecordAdmin, RelatedFilter
from .operations import MAX_IDS, Confirmation, Operation, OperationsAdmin, Selection

RETRY = Operation(
    name="retry",
    permission="redrive_deadletter",
    label=gettext_lazy("Deliver now"),
    explanation=gettext_lazy("Each is ready at once, as the attempt that it is."),
    run=lambda selection: control.retry_now(selection.ids, by=selection.by),
    done=lambda count: ngettext("%d delivery is ready.", "%d deliveries are ready.", count) % count,
)
CANCEL = Operation(
    name="cancel",
    permission="purge_queue",
    label=gettext_lazy("Cancel delivery"),
    explanation=gettext_lazy(
        "Each delivery is deleted and never happens. The message stays in the log for its "
        "retention."
    ),
    run=lambda selection: control.cancel(selection.ids, by=selection.by),
    done=lambda count: (
        ngettext("%d delivery was cancelled.", "%d deliveries were cancelled.", count) % count
    ),
)


class ReasonForm(Confirmation):
    """Ask why."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=200,
        required=False,
        help_text=gettext_lazy("Told with each dead letter. May be empty."),
    )


def bury_chosen(selection: Selection) -> int:
    """Make dead letters of the scheduled messages chosen; return how many."""
    by_queue: dict[int, list[int]] = {}
    ids = iter(selection.ids)
    while batch := list(islice(ids, MAX_IDS)):
        rows = Scheduled.objects.filter(pk__in=batch, lane_id__isnull=True)
        for queue_id, message_id in rows.values_list("queue_id", "message_id"):
            by_queue.setdefault(queue_id, []).append(message_id)
    return sum(
        control.dead_letter(
            queue, by_queue[queue.pk], reason=selection.answers["reason"], by=selection.by
        )
        for queue in Queue.objects.filter(pk__in=by_queue).order_by("name")
    )


BURY = Operation(
    name="bury",
    permission="redrive_deadletter",
    label=gettext_lazy("Make dead letter"),
    explanation=gettext_lazy(
        "Each is kept as a dead letter, reason “manual”, until it is redriven or discarded."
    ),
    run=bury_chosen,
    done=lambda count: (
        ngettext("%d message is a dead letter.", "%d messages are dead letters.", count) % count
    ),
    form=ReasonForm,
)


@admin.register(Scheduled)
class ScheduledAdmin(OperationsAdmin, RecordAdmin):
    list_display = ("id", "queue_name", "message_link", "attempt", "priority", "due_at")
    list_filter = (("queue", RelatedFilter),)
    ordering = ("due_at", "id")
    fields = ("queue_name", "message_link", "attempt", "priority", "due_at", "expires_at")
    operations = (RETRY, CANCEL, BURY)
    actions = ("retry", "cancel", "bury")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        # The token of an ordering key that waits is no delivery.
        rows = super().get_queryset(request).filter(lane_id__isnull=True)
        return with_names(rows, "queue")

    @admin.display(description=gettext_lazy("queue"))
    def queue_name(self, scheduled: Any) -> str:
        return scheduled.queue_name or _("(no longer exists)")

    @admin.display(description=gettext_lazy("message"))
    def message_link(self, scheduled: Scheduled) -> SafeString:
        url = self.address("change", scheduled.message_id, model="message")
        return format_html('<a href="{}">{}</a>', url, scheduled.message_id)

    def describe(self, row: Any) -> str:
        parts = {"id": row.message_id, "queue": self.queue_name(row), "due": row.due_at}
        return _("Message %(id)d to %(queue)s, due at %(due)s") % parts

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "redrive_deadletter")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "purge_queue")

    @admin.action(description=gettext_lazy("Deliver now"), permissions=["retry"])
    def retry(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, RETRY, rows)

    @admin.action(description=gettext_lazy("Make dead letters"), permissions=["retry"])
    def bury(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, BURY, rows)

    @admin.action(description=gettext_lazy("Cancel selected deliveries"), permissions=["cancel"])
    def cancel(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, CANCEL, rows)
