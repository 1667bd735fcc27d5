"""Scheduled deliveries: see what is due when, deliver it now, cancel, move, edit or bury it."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminTextareaWidget
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, QueryDict
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import control
from ..control import Filter, State
from ..control.patching import merge
from ..models import Operation as Begun
from ..models import Queue, Scheduled
from ..store.connection import connection_for
from ..store.depths import depths
from .deadletters import with_names
from .filters import PATCH_HELP
from .forms import decoded
from .lists import RecordAdmin, RelatedFilter, search_by_number
from .operations import MAX_IDS, Confirmation, Operation, OperationsAdmin, Selection

ONLY = Filter(state=State.SCHEDULED)


def conditions_of(query: QueryDict) -> dict[str, Any]:
    """Return what the list's filter means."""
    return {"queue": search_by_number(query.get("queue__id__exact", ""))}


def meant(conditions: dict[str, Any]) -> list[Queue]:
    """Return the queues of all that the conditions describe."""
    queues = Queue.objects.order_by("name")
    if conditions["queue"] is not None:
        queues = queues.filter(pk=conditions["queue"])
    found = depths(connection_for(queues.db), list(queues.values_list("pk", flat=True)))
    return [queue for queue in queues if found[queue.pk].scheduled]


def chosen(selection: Selection) -> Iterator[tuple[Queue, list[int]]]:
    """Yield the queues of the deliveries chosen, each with the ids of their messages."""
    by_queue: dict[int, list[int]] = {}
    ids = iter(selection.ids)
    while batch := list(islice(ids, MAX_IDS)):
        rows = Scheduled.objects.filter(pk__in=batch, lane_id__isnull=True)
        for queue_id, message_id in rows.values_list("queue_id", "message_id"):
            by_queue.setdefault(queue_id, []).append(message_id)
    for queue in Queue.objects.filter(pk__in=by_queue).order_by("name"):
        yield queue, by_queue[queue.pk]


def begin_cancel(selection: Selection, conditions: dict[str, Any]) -> list[Begun]:
    """Begin to cancel all that is scheduled, for each queue by itself."""
    how: dict[str, Any] = {"by": selection.by, "upto": selection.upto}
    return [control.begin_cancel(queue, **how) for queue in meant(conditions)]


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
    begin=begin_cancel,
    conditions=conditions_of,
)


class MoveForm(Confirmation):
    """Ask where to."""

    to = forms.CharField(
        label=gettext_lazy("To queue"), max_length=80, help_text=gettext_lazy("A queue's name.")
    )


def move_chosen(selection: Selection) -> int:
    """Move the scheduled messages chosen to another queue; return how many."""
    return sum(
        control.move(queue, selection.answers["to"], replace(ONLY, ids=ids), by=selection.by)
        for queue, ids in chosen(selection)
    )


def begin_move(selection: Selection, conditions: dict[str, Any]) -> list[Begun]:
    """Begin to move all that is scheduled, for each queue by itself."""
    how: dict[str, Any] = {"by": selection.by, "upto": selection.upto}
    to = selection.answers["to"]
    return [control.begin_move(queue, to, ONLY, **how) for queue in meant(conditions)]


MOVE = Operation(
    name="move",
    permission="consume_queue",
    label=gettext_lazy("Move"),
    explanation=gettext_lazy(
        "Each goes to another queue, is due at the same time, and counts its deliveries anew."
    ),
    run=move_chosen,
    done=lambda count: ngettext("%d message was moved.", "%d messages were moved.", count) % count,
    form=MoveForm,
    begin=begin_move,
    conditions=conditions_of,
)


class EditForm(Confirmation):
    """Ask how."""

    patch = forms.CharField(
        label=gettext_lazy("Change"),
        widget=AdminTextareaWidget(attrs={"rows": 4, "spellcheck": "false"}),
        help_text=PATCH_HELP,
    )

    def clean_patch(self) -> Any:
        return decoded(self.cleaned_data["patch"])


def edit_chosen(selection: Selection) -> int:
    """Change the bodies of the scheduled messages chosen; return how many."""
    patch = selection.answers["patch"]
    return sum(
        control.edit_matching(
            queue, replace(ONLY, ids=ids), lambda body: merge(body, patch), by=selection.by
        )
        for queue, ids in chosen(selection)
    )


def begin_edit(selection: Selection, conditions: dict[str, Any]) -> list[Begun]:
    """Begin to change the bodies of all that is scheduled, for each queue by itself."""
    how: dict[str, Any] = {"by": selection.by, "upto": selection.upto}
    patch = selection.answers["patch"]
    return [control.begin_edit(queue, ONLY, patch=patch, **how) for queue in meant(conditions)]


EDIT = Operation(
    name="edit",
    permission="edit_message",
    label=gettext_lazy("Edit"),
    explanation=gettext_lazy(
        "Bodies are changed on every queue where the message waits. What it said before is kept "
        "with who edited it."
    ),
    run=edit_chosen,
    done=lambda count: (
        ngettext("%d message was edited.", "%d messages were edited.", count) % count
    ),
    form=EditForm,
    begin=begin_edit,
    conditions=conditions_of,
    # One whose body the change leaves as it is was not skipped.
    counts_rows=False,
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
    return sum(
        control.dead_letter(queue, ids, reason=selection.answers["reason"], by=selection.by)
        for queue, ids in chosen(selection)
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
    operations = (RETRY, CANCEL, MOVE, EDIT, BURY)
    actions = ("retry", "cancel", "move", "edit", "bury")

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

    def has_move_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "consume_queue")

    def has_edit_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "edit_message")

    @admin.action(description=gettext_lazy("Move to another queue"), permissions=["move"])
    def move(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, MOVE, rows)

    @admin.action(description=gettext_lazy("Edit bodies"), permissions=["edit"])
    def edit(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, EDIT, rows)

    @admin.action(description=gettext_lazy("Deliver now"), permissions=["retry"])
    def retry(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, RETRY, rows)

    @admin.action(description=gettext_lazy("Make dead letters"), permissions=["retry"])
    def bury(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, BURY, rows)

    @admin.action(description=gettext_lazy("Cancel selected deliveries"), permissions=["cancel"])
    def cancel(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, CANCEL, rows)
