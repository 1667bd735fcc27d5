"""Scheduled deliveries: see what is due when, retry it now or cancel it."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import control
from ..models import Scheduled
from .deadletters import with_names
from .lists import RecordAdmin, RelatedFilter
from .operations import Operation, OperationsAdmin

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


@admin.register(Scheduled)
class ScheduledAdmin(OperationsAdmin, RecordAdmin):
    list_display = ("id", "queue_name", "message_link", "attempt", "priority", "due_at")
    list_filter = (("queue", RelatedFilter),)
    ordering = ("due_at", "id")
    fields = ("queue_name", "message_link", "attempt", "priority", "due_at")
    operations = (RETRY, CANCEL)
    actions = ("retry", "cancel")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return with_names(super().get_queryset(request), "queue")

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

    @admin.action(description=gettext_lazy("Cancel selected deliveries"), permissions=["cancel"])
    def cancel(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, CANCEL, rows)
