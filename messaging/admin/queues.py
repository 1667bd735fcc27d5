"""Queues: edit their policies, pause, disable and purge them."""

import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import control, sync
from .. import send as send_message
from ..exceptions import OperationRefused
from ..models import Operation as Begun
from ..models import Queue, Subscription, validate_delays
from ..store.connection import connection_for
from ..store.depths import counted, depths
from .beginning import beginnings
from .editing import ConfigurationAdmin
from .forms import VersionedForm
from .lists import GuardedChangeList, search_by_number
from .operations import (
    AT_ONCE,
    BEGIN_ABOVE,
    Confirmation,
    Operation,
    OperationsAdmin,
    Selection,
)
from .sending import SendingAdmin


class PauseForm(Confirmation):
    """Ask why."""

    reason = forms.CharField(
        label=gettext_lazy("Reason"),
        max_length=200,
        required=False,
        help_text=gettext_lazy("Shown wherever the queue is shown. May be empty."),
    )


class PurgeForm(Confirmation):
    """Have the queue's name typed: nothing brings purged messages back."""

    typed = forms.CharField(label=gettext_lazy("Type to confirm"))

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expected = self.names[0] if self.names else _("purge")
        self.fields["typed"].help_text = _("Type “%(word)s”.") % {"word": self.expected}

    def clean_typed(self) -> str:
        if self.cleaned_data["typed"] != self.expected:
            raise ValidationError(_("This is not “%(word)s”."), params={"word": self.expected})
        return self.expected


def pause_chosen(selection: Selection) -> int:
    """Pause the queues chosen; return how many were not paused before."""
    reason = selection.answers["reason"]
    return sum(control.pause(queue, by=selection.by, reason=reason) for queue in _queues(selection))


def resume_chosen(selection: Selection) -> int:
    """Resume the queues chosen; return how many were paused."""
    return sum(control.resume(queue, by=selection.by) for queue in _queues(selection))


def disable_chosen(selection: Selection) -> int:
    """Disable the queues chosen; return how many were not disabled before."""
    return sum(control.disable(queue, by=selection.by) for queue in _queues(selection))


def enable_chosen(selection: Selection) -> int:
    """Enable the queues chosen; return how many were disabled."""
    return sum(control.enable(queue, by=selection.by) for queue in _queues(selection))


def purge_chosen(selection: Selection) -> int:
    """Purge the queues chosen; return how many messages went."""
    count = 0
    for queue in _queues(selection):
        if count < AT_ONCE:
            count += control.purge(
                queue, by=selection.by, upto=selection.upto, limit=AT_ONCE - count
            )
    return count


def holds_many(selection: Selection) -> bool:
    """Tell whether more waits on one of the queues chosen than one request purges well."""
    found = depths(connection_for(Queue.objects.db), list(selection.ids))
    return any(each.ready + each.scheduled > BEGIN_ABOVE for each in found.values())


def begin_purge(selection: Selection, conditions: dict[str, Any]) -> list[Begun]:
    """Begin to purge the queues chosen."""
    return [
        control.begin_purge(queue, by=selection.by, upto=selection.upto)
        for queue in _queues(selection)
    ]


def _queues(selection: Selection) -> QuerySet[Queue]:
    return Queue.objects.filter(pk__in=list(selection.ids)).order_by("name")


PAUSE = Operation(
    name="pause",
    permission="pause_queue",
    label=gettext_lazy("Pause"),
    explanation=gettext_lazy(
        "Workers finish what they are handling and take nothing more. Sending goes on."
    ),
    run=pause_chosen,
    done=lambda count: ngettext("%d queue is paused.", "%d queues are paused.", count) % count,
    form=PauseForm,
)
RESUME = Operation(
    name="resume",
    permission="pause_queue",
    label=gettext_lazy("Resume"),
    explanation=gettext_lazy("Workers go on with what has been waiting."),
    run=resume_chosen,
    done=lambda count: ngettext("%d queue is resumed.", "%d queues are resumed.", count) % count,
)
DISABLE = Operation(
    name="disable",
    permission="pause_queue",
    label=gettext_lazy("Disable"),
    explanation=gettext_lazy(
        "Sending is refused, and topics leave the queue out. Workers go on with what is there."
    ),
    run=disable_chosen,
    done=lambda count: ngettext("%d queue is disabled.", "%d queues are disabled.", count) % count,
)
ENABLE = Operation(
    name="enable",
    permission="pause_queue",
    label=gettext_lazy("Enable"),
    explanation=gettext_lazy("Messages are accepted again."),
    run=enable_chosen,
    done=lambda count: ngettext("%d queue is enabled.", "%d queues are enabled.", count) % count,
)
PURGE = Operation(
    name="purge",
    permission="purge_queue",
    label=gettext_lazy("Purge"),
    explanation=gettext_lazy(
        "All messages that are ready or scheduled now are deleted, and nothing brings them back. "
        "What a worker is handling or somebody holds stays, and so do dead letters, parked keys "
        "and what is sent from now on."
    ),
    run=purge_chosen,
    done=lambda count: (
        ngettext("%d message was deleted.", "%d messages were deleted.", count) % count
    ),
    form=PurgeForm,
    counts_rows=False,
    begin=begin_purge,
    is_large=holds_many,
)


TIME = ("visibility_timeout", "message_ttl", "dead_letter_expired", "retention")
DUPLICATES = ("deduplication_window", "content_based_deduplication", "version")


class QueueForm(VersionedForm):
    own_dead_letter_queue = forms.BooleanField(
        label=gettext_lazy("Dead-letter queue of its own"),
        initial=True,
        required=False,
        help_text=gettext_lazy("Creates “<name>.dlq”, unless another one is chosen above."),
    )

    def clean_backoff_delays(self) -> list[Any]:
        # Empty values pass Django's validators unseen.
        delays = self.cleaned_data["backoff_delays"]
        if delays is None:
            return []
        validate_delays(delays)
        return list(delays)


class QueueChangeList(GuardedChangeList):
    """Count what waits on the queues of one page, in one statement."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        queues = list(self.result_list)
        found = depths(connection_for(self.queryset.db), [queue.pk for queue in queues])
        for queue in queues:
            queue.depth = found[queue.pk]
        self.result_list = queues


class SubscriptionInline(admin.TabularInline):
    model = Subscription
    form = VersionedForm
    formfield_overrides = ConfigurationAdmin.formfield_overrides
    fields = ("pattern", "is_active", "filter", "filter_scope", "description", "version")
    extra = 0


@admin.register(Queue)
class QueueAdmin(SendingAdmin, OperationsAdmin, ConfigurationAdmin):
    list_display = (
        "name",
        "state",
        "ready",
        "in_flight",
        "scheduled",
        "dead",
        "max_deliveries",
        "dead_letter_queue",
    )
    list_select_related = ("dead_letter_queue",)
    sortable_by = ("name",)
    form = QueueForm
    delete_confirmation_template = "admin/messaging/delete_queue.html"
    delete_selected_confirmation_template = "admin/messaging/delete_queues.html"
    autocomplete_fields = ("dead_letter_queue",)
    inlines = (SubscriptionInline,)
    operations = (PAUSE, RESUME, DISABLE, ENABLE, PURGE)
    actions = ("pause", "resume", "disable", "enable", "purge", "send_test_message")
    send = staticmethod(send_message)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[QueueChangeList]:
        return QueueChangeList

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        dead = ["max_deliveries", "dead_letter_queue"]
        if obj is None:
            return self._fieldsets(["name", "description"], [*dead, "own_dead_letter_queue"])
        return self._fieldsets(["name", "description", "state", "depth"], dead)

    def _fieldsets(self, first: list[str], dead: list[str]) -> Any:
        backoff = ["backoff", "backoff_base", "backoff_cap", "backoff_delays", "jitter"]
        limits = ["max_length", "overflow", "rate_limit", "key_rate_limit", "concurrency_limit"]
        return [
            (None, {"fields": first}),
            (_("Failures"), {"fields": [*dead, *backoff]}),
            (_("Time"), {"fields": list(TIME)}),
            (_("Limits"), {"fields": [*limits, "single_active_consumer", "weight"]}),
            (_("Order"), {"fields": ["on_failure"]}),
            (_("Duplicates"), {"fields": list(DUPLICATES)}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else ("name", "state", "depth")

    @admin.display(description=gettext_lazy("state"))
    def state(self, queue: Queue) -> str:
        states = []
        if queue.paused_at is not None:
            since = _since(queue.paused_by, queue.paused_at)
            reason = f": {queue.pause_reason}" if queue.pause_reason else ""
            states.append(_("paused %(since)s") % {"since": since} + reason)
        if queue.disabled_at is not None:
            since = _since(queue.disabled_by, queue.disabled_at)
            states.append(_("disabled %(since)s") % {"since": since})
        return "; ".join(states) or _("running")

    @admin.display(description=gettext_lazy("ready"))
    def ready(self, queue: Any) -> str:
        return counted(queue.depth.ready)

    @admin.display(description=gettext_lazy("in flight"))
    def in_flight(self, queue: Any) -> SafeString | str:
        return self._linked("lease", "queue", queue, queue.depth.in_flight)

    @admin.display(description=gettext_lazy("scheduled"))
    def scheduled(self, queue: Any) -> SafeString | str:
        return self._linked("scheduled", "queue", queue, queue.depth.scheduled)

    @admin.display(description=gettext_lazy("dead"))
    def dead(self, queue: Any) -> SafeString | str:
        if queue.depth.held:
            return self._linked("deadletter", "queue", queue, queue.depth.held)
        return self._linked("deadletter", "origin", queue, queue.depth.dead)

    @admin.display(description=gettext_lazy("holds"))
    def depth(self, queue: Any) -> SafeString:
        queue.depth = control.depth(queue)
        parts = [self.ready(queue), self.in_flight(queue), self.scheduled(queue), self.dead(queue)]
        text = _("{} ready, {} held under a lease, {} scheduled, {} dead letters")
        if not control.parked(queue, limit=1):
            return format_html(text, *parts)
        url = f"{self.address('changelist', model='lane')}?parked=1&queue__id__exact={queue.pk}"
        return format_html(text + _(', <a href="{}">parked keys</a>'), *parts, url)

    def _linked(self, model: str, field: str, queue: Queue, count: int) -> SafeString | str:
        if not count:
            return "0"
        url = f"{self.address('changelist', model=model)}?{field}__id__exact={queue.pk}"
        return format_html('<a href="{}">{}</a>', url, counted(count))

    def links(self, request: HttpRequest, object_id: str) -> list[tuple[str, Any]]:
        queue = Queue.objects.filter(pk=search_by_number(object_id) or 0).first()
        useless = {
            PAUSE.label if queue and queue.is_paused else RESUME.label,
            DISABLE.label if queue and queue.is_disabled else ENABLE.label,
        }
        links = [link for link in super().links(request, object_id) if link[1] not in useless]
        return links + (beginnings(self, request, queue=queue.name) if queue else [])

    # Actions of the list.

    def has_pause_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "pause_queue")

    def has_purge_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "purge_queue")

    @admin.action(description=gettext_lazy("Pause selected queues"), permissions=["pause"])
    def pause(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, PAUSE, rows)

    @admin.action(description=gettext_lazy("Resume selected queues"), permissions=["pause"])
    def resume(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, RESUME, rows)

    @admin.action(description=gettext_lazy("Disable selected queues"), permissions=["pause"])
    def disable(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, DISABLE, rows)

    @admin.action(description=gettext_lazy("Enable selected queues"), permissions=["pause"])
    def enable(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, ENABLE, rows)

    @admin.action(description=gettext_lazy("Purge selected queues"), permissions=["purge"])
    def purge(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, PURGE, rows)

    @admin.action(description=gettext_lazy("Send a test message"), permissions=["publish"])
    def send_test_message(self, request: HttpRequest, rows: QuerySet) -> HttpResponse | None:
        return self.choose_one(request, rows)

    def describe(self, row: Queue) -> str:
        return f"{row.name}: {control.depth(row)}"

    # Saving and deleting.

    def save_model(self, request: HttpRequest, obj: Queue, form: Any, change: bool) -> None:
        wants_own = not change and form.cleaned_data["own_dead_letter_queue"]
        if wants_own and obj.dead_letter_queue is None:
            obj.dead_letter_queue, _new = sync.dead_letter_queue(obj.name)
        super().save_model(request, obj, form, change)
        control.tell_workers()

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Refuse the deletion of queues that messages or workers use, and say why."""
        deleted, counts, lacking, protected = super().get_deleted_objects(objs, request)
        obstacles = [control.obstacle_to_deletion(queue) for queue in objs]
        return deleted, counts, lacking, [*protected, *filter(None, obstacles)]

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        try:
            return super().delete_view(request, object_id, extra_context)
        except OperationRefused as refusal:
            messages.error(request, str(refusal))
            return HttpResponseRedirect(self.address("changelist"))

    def delete_model(self, request: HttpRequest, obj: Queue) -> None:
        control.delete_queue(obj, by=request.user)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet) -> None:
        for queue in queryset:
            control.delete_queue(queue, by=request.user)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> list[Any]:
        """Leave the entry to the verb, which knows what went."""
        return []


def _since(by: str, at: datetime.datetime) -> str:
    since = formats.date_format(timezone.localtime(at), "SHORT_DATETIME_FORMAT")
    return _("by %(by)s since %(since)s") % {"by": by or "?", "since": since}
