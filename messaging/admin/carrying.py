"""Operations on many messages: begin them, see how far they are, cancel them, go on with them."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import control
from ..control.history import DIRECT
from ..control.operating import KINDS, described
from ..models import Operation as Carried
from ..store.depths import COUNT_LIMIT, counted
from .beginning import BeginningAdmin
from .deadletters import preformatted, with_names
from .lists import RecordAdmin
from .operations import Operation, OperationsAdmin, Selection


def may_steer(user: Any, operation: Carried) -> bool:
    """Tell whether somebody may do what an operation does, and so may cancel and resume it."""
    kind = KINDS.get(operation.kind)
    return kind is not None and user.has_perm(f"messaging.{kind.permission}")


def steer(verb: Callable[..., bool]) -> Callable[[Selection], int]:
    """Return what does a verb to the operations chosen, if the user may do that to all of them."""

    def run(selection: Selection) -> int:
        chosen = list(Carried.objects.filter(pk__in=list(selection.ids)).order_by("id"))
        if not all(may_steer(selection.by, each) for each in chosen):
            raise PermissionDenied
        return sum(verb(each, by=selection.by) for each in chosen)

    return run


CANCEL = Operation(
    name="cancel",
    permission="view_operation",
    label=gettext_lazy("Cancel"),
    explanation=gettext_lazy(
        "Each stops within a second. What it has done stays done, and it can be resumed."
    ),
    run=steer(control.cancel_operation),
    done=lambda count: (
        ngettext("%d operation was cancelled.", "%d operations were cancelled.", count) % count
    ),
)
RESUME = Operation(
    name="resume",
    permission="view_operation",
    label=gettext_lazy("Resume"),
    explanation=gettext_lazy("Each goes on exactly where it stopped; the workers carry it out."),
    run=steer(control.resume_operation),
    done=lambda count: ngettext("%d operation goes on.", "%d operations go on.", count) % count,
)


@admin.register(Carried)
class OperationAdmin(BeginningAdmin, OperationsAdmin, RecordAdmin):
    list_display = ("id", "what", "state", "queue_name", "to_name", "progress", "created_by",
                    "created_at", "meant")  # fmt: skip
    list_filter = ("state",)
    fields = (
        "what", "state", "queue_name", "to_name", "progress", "rate", "filter_shown",
        "samples_shown", "error", "created_by", "created_at", "advanced_at", "finished_at",
        "cancelled_by",
    )  # fmt: skip
    operations = (CANCEL, RESUME)
    actions = ("cancel", "resume")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return with_names(super().get_queryset(request), "queue", "to")

    def links(self, request: HttpRequest, object_id: str) -> list[tuple[str, Any]]:
        found = self.get_object(request, object_id)
        if found is None or found.options.get(DIRECT) or not may_steer(request.user, found):
            return []
        useful = {"running": CANCEL.label, "cancelled": RESUME.label, "failed": RESUME.label}
        links = super().links(request, object_id)
        return [link for link in links if link[1] == useful.get(found.state)]

    @admin.display(description=gettext_lazy("what"))
    def what(self, operation: Carried) -> str:
        kind = KINDS.get(operation.kind)
        return str(kind.label) if kind else operation.kind

    @admin.display(description=gettext_lazy("queue"))
    def queue_name(self, operation: Any) -> str:
        return operation.queue_name or "-"

    @admin.display(description=gettext_lazy("to queue"))
    def to_name(self, operation: Any) -> str:
        return operation.to_name or "-"

    @admin.display(description=gettext_lazy("done"))
    def progress(self, operation: Carried) -> str:
        if operation.total is None:
            return f"{operation.done:,}"
        total = counted(operation.total)
        if not operation.is_exact:
            total = f"{min(operation.total, COUNT_LIMIT):,}+"
        return _("%(done)s of %(total)s") % {"done": f"{operation.done:,}", "total": total}

    @admin.display(description=gettext_lazy("which messages"))
    def meant(self, operation: Carried) -> str:
        return described(operation)[:120]

    @admin.display(description=gettext_lazy("which messages"))
    def filter_shown(self, operation: Carried) -> Any:
        return preformatted(described(operation))

    @admin.display(description=gettext_lazy("samples"))
    def samples_shown(self, operation: Carried) -> Any:
        samples = operation.options.get("samples", [])
        lines = [" ".join(f"{name} {value}" for name, value in each.items()) for each in samples]
        return preformatted("\n".join(lines))

    def describe(self, row: Any) -> str:
        return f"{self.what(row)} {row.pk}: {self.progress(row)}, {row.get_state_display()}"

    @admin.action(description=gettext_lazy("Cancel selected operations"), permissions=["view"])
    def cancel(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, CANCEL, rows)

    @admin.action(description=gettext_lazy("Resume selected operations"), permissions=["view"])
    def resume(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, RESUME, rows)
