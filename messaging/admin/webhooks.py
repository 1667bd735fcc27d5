"""Webhooks: edit where queues' messages are sent, see how that goes, enable and disable them."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import control
from ..models import Webhook
from .editing import ConfigurationAdmin
from .forms import VersionedForm
from .operations import Operation, OperationsAdmin, Selection

MANAGE = "manage_webhooks"


def enable_chosen(selection: Selection) -> int:
    """Enable the webhooks chosen; return how many were not sent to before."""
    return sum(control.enable_webhook(each, by=selection.by) for each in _webhooks(selection))


def disable_chosen(selection: Selection) -> int:
    """Disable the webhooks chosen; return how many were not disabled before."""
    return sum(control.disable_webhook(each, by=selection.by) for each in _webhooks(selection))


def _webhooks(selection: Selection) -> QuerySet[Webhook]:
    return Webhook.objects.filter(pk__in=list(selection.ids)).order_by("name")


ENABLE = Operation(
    name="enable",
    permission=MANAGE,
    label=gettext_lazy("Enable"),
    explanation=gettext_lazy("What waits is sent, also to one that rests after failures."),
    run=enable_chosen,
    done=lambda count: (
        ngettext("%d webhook is enabled.", "%d webhooks are enabled.", count) % count
    ),
)
DISABLE = Operation(
    name="disable",
    permission=MANAGE,
    label=gettext_lazy("Disable"),
    explanation=gettext_lazy("Nothing is sent until it is enabled; messages wait on its queue."),
    run=disable_chosen,
    done=lambda count: (
        ngettext("%d webhook is disabled.", "%d webhooks are disabled.", count) % count
    ),
)


class WebhookForm(VersionedForm):
    """Refuse a queue whose messages a consumer handles."""

    def clean_queue(self) -> Any:
        queue = self.cleaned_data["queue"]
        if obstacle := control.obstacle_to_webhook(queue):
            raise ValidationError(obstacle)
        return queue


@admin.register(Webhook)
class WebhookAdmin(OperationsAdmin, ConfigurationAdmin):
    form = WebhookForm
    list_display = ("name", "queue", "url", "state")
    list_select_related = ("queue",)
    sortable_by = ("name",)
    operations = (ENABLE, DISABLE)
    actions = ("enable", "disable")
    autocomplete_fields = ("queue",)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        where = ["name", "description", "queue", "url", "secret", "timeout", "version"]
        told = [] if obj is None else [(_("How it goes"), {"fields": ["state"]})]
        return [(None, {"fields": where}), *told]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else ("name", "state")

    @admin.display(description=gettext_lazy("state"))
    def state(self, webhook: Webhook) -> str:
        if webhook.disabled_at is not None:
            since = formats.date_format(webhook.disabled_at, "SHORT_DATETIME_FORMAT")
            values = {"by": webhook.disabled_by or "?", "since": since}
            reason = f": {webhook.disabled_reason}" if webhook.disabled_reason else ""
            return _("disabled by %(by)s since %(since)s") % values + reason
        if webhook.rests_until is not None and webhook.rests_until > timezone.now():
            until = formats.date_format(webhook.rests_until, "SHORT_DATETIME_FORMAT")
            values = {"count": f"{webhook.failures:,}", "until": until}
            return _("rests until %(until)s after %(count)s failures in a row") % values
        return _("enabled")

    def save_model(self, request: HttpRequest, obj: Webhook, form: Any, change: bool) -> None:
        # Whatever has failed was sent to where it said before.
        obj.failures, obj.rests_until = 0, None
        super().save_model(request, obj, form, change)
        control.tell_workers()

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_view_permission(request, obj) or self.may(request, MANAGE)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self.may(request, MANAGE)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, MANAGE)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self.may(request, MANAGE)

    def has_manage_permission(self, request: HttpRequest) -> bool:
        return self.may(request, MANAGE)

    @admin.action(description=gettext_lazy("Enable"), permissions=["manage"])
    def enable(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, ENABLE, rows)

    @admin.action(description=gettext_lazy("Disable"), permissions=["manage"])
    def disable(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, DISABLE, rows)
