"""Leases: see what is held by whom and until when, and give it back before."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import control
from ..models import Lease
from .deadletters import with_names
from .lists import RecordAdmin, RelatedFilter
from .operations import Operation, OperationsAdmin

RELEASE = Operation(
    name="release",
    permission="consume_queue",
    label=gettext_lazy("Release"),
    explanation=gettext_lazy(
        "Each is ready again for somebody else, and this delivery does not count. Whoever holds it "
        "is too late from then on: what it has done for the message rolls back."
    ),
    run=lambda selection: control.release_leases(selection.ids, by=selection.by),
    done=lambda count: (
        ngettext("%d message is ready again.", "%d messages are ready again.", count) % count
    ),
)


@admin.register(Lease)
class LeaseAdmin(OperationsAdmin, RecordAdmin):
    list_display = ("id", "queue_name", "message_link", "attempt", "worker", "leased_until")
    list_filter = (("queue", RelatedFilter),)
    fields = (
        "queue_name",
        "message_link",
        "attempt",
        "priority",
        "worker",
        "leased_at",
        "leased_until",
        "expires_at",
    )
    operations = (RELEASE,)
    actions = ("release",)

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return with_names(super().get_queryset(request), "queue")

    @admin.display(description=gettext_lazy("queue"))
    def queue_name(self, lease: Any) -> str:
        return lease.queue_name or _("(no longer exists)")

    @admin.display(description=gettext_lazy("message"))
    def message_link(self, lease: Lease) -> SafeString:
        url = self.address("change", lease.message_id, model="message")
        return format_html('<a href="{}">{}</a>', url, lease.message_id)

    def describe(self, row: Any) -> str:
        parts = {"id": row.message_id, "queue": self.queue_name(row), "worker": row.worker}
        return _("Message %(id)d of %(queue)s, held by %(worker)s") % parts

    def has_release_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "consume_queue")

    @admin.action(description=gettext_lazy("Release selected leases"), permissions=["release"])
    def release(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, RELEASE, rows)
