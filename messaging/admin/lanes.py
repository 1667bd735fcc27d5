"""Ordering keys: see which have messages, which are parked or wait, and let them go on."""

from typing import Any

from django.contrib import admin
from django.db.models import Min, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse
from django.utils import formats, timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import control
from ..models import Lane, Scheduled
from ..store import parking
from ..store.connection import connection_for
from .deadletters import with_names
from .lists import OrderedChangeList, RecordAdmin, RelatedFilter
from .operations import Operation, OperationsAdmin

# What waits behind one key is counted up to here.
COUNTED = 1_000

RELEASE = Operation(
    name="release",
    permission="redrive_deadletter",
    label=gettext_lazy("Let go on"),
    explanation=gettext_lazy(
        "A parked key goes on without the dead letter that parked it: redrive that instead to have "
        "it delivered first. A key that waits for a retry is tried at once."
    ),
    run=lambda selection: control.release_keys(selection.ids, by=selection.by),
    done=lambda count: ngettext("%d key goes on.", "%d keys go on.", count) % count,
)


class ParkedFilter(admin.SimpleListFilter):
    title = gettext_lazy("state")
    parameter_name = "parked"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("1", _("parked"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(parked_at__isnull=False) if self.value() == "1" else queryset


class LaneChangeList(OrderedChangeList):
    """Count what waits behind the keys of one page, in one statement."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        lanes = list(self.result_list)
        found = _waiting(lanes)
        for lane in lanes:
            lane.waiting = found.get(lane.pk, 0)
        self.result_list = lanes


@admin.register(Lane)
class LaneAdmin(OperationsAdmin, RecordAdmin):
    list_display = ("key", "kind", "queue_name", "state", "waiting")
    list_filter = (ParkedFilter, ("queue", RelatedFilter))
    search_fields = ("key",)
    search_help_text = gettext_lazy("A whole key.")
    fields = ("key", "kind", "queue_name", "state", "waiting")
    operations = (RELEASE,)
    actions = ("release",)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[LaneChangeList]:
        return LaneChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        # The token of a key that waits for a retry is scheduled, as the message 0.
        token = Scheduled.objects.filter(message_id=0, lane_id=OuterRef("pk")).order_by()
        due = token.values("lane_id").annotate(due=Min("due_at")).values("due")
        rows: QuerySet = super().get_queryset(request).annotate(due_at=Subquery(due))
        return with_names(rows, "queue")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        return (queryset.filter(key=search_term) if search_term else queryset), False

    @admin.display(description=gettext_lazy("queue"))
    def queue_name(self, lane: Any) -> str:
        return lane.queue_name or _("(no longer exists)")

    @admin.display(description=gettext_lazy("state"))
    def state(self, lane: Any) -> str:
        if lane.parked_at is not None:
            return _("parked since %(at)s") % {"at": _moment(lane.parked_at)}
        if lane.due_at is not None and lane.due_at > timezone.now():
            return _("waits until %(at)s") % {"at": _moment(lane.due_at)}
        return _("ready, or in flight")

    @admin.display(description=gettext_lazy("waiting"))
    def waiting(self, lane: Any) -> str:
        count = lane.waiting if hasattr(lane, "waiting") else _waiting([lane])[lane.pk]
        return f"{count:,}" if count <= COUNTED else f"{COUNTED:,}+"

    def describe(self, row: Any) -> str:
        parts = {"key": row.key, "queue": self.queue_name(row), "state": self.state(row)}
        return _("Key %(key)s of %(queue)s: %(state)s") % parts

    def has_release_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "redrive_deadletter")

    @admin.action(description=gettext_lazy("Let selected keys go on"), permissions=["release"])
    def release(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, RELEASE, rows)


def _waiting(lanes: list[Any]) -> dict[int, int]:
    connection = connection_for(Lane.objects.db)
    return parking.waiting(connection, [lane.pk for lane in lanes], COUNTED + 1)


def _moment(at: Any) -> str:
    return formats.date_format(timezone.localtime(at), "SHORT_DATETIME_FORMAT")
