"""Operations: carry out operators' verbs on a selection that a person has confirmed.

What was confirmed is what happens: the page carries the selection in a signed token, as ids or as
the list's filter with the newest id that was there. Going back, reloading or confirming twice
cannot widen it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import attrgetter
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.core import signing
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import URLPattern, path
from django.utils.functional import Promise
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import conf, control, models
from ..exceptions import MessagingError
from ..store.depths import counted
from ..store.purging import Ceiling
from .lists import GuardedAdmin, bounded_count, search_by_number

SALT = "messaging.admin.operations"
# A confirmation holds for this long, seconds.
MAX_AGE = 3_600
# Up to here a selection is kept as ids.
MAX_IDS = 1_000
# One request does this much; the page then offers to go on.
AT_ONCE = 100_000
SAMPLES = 5
# More than this is begun as an operation, where there is one, which the workers carry out.
BEGIN_ABOVE = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """What a person has confirmed: rows, the time, answers to the questions, and who it was.

    ``count`` is how many rows, at most one more than is counted.
    """

    ids: Iterable[int]
    upto: Ceiling
    by: Any
    answers: dict[str, Any] = field(default_factory=dict)
    count: int = 0

    @property
    def is_large(self) -> bool:
        """Tell whether this is more than one request does well."""
        return self.count > BEGIN_ABOVE


class Confirmation(forms.Form):
    """Ask nothing but the confirmation itself; ``names`` are what the chosen rows are called."""

    def __init__(self, *args: Any, names: Sequence[str], **kwargs: Any) -> None:
        self.names = names
        super().__init__(*args, **kwargs)


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """One verb as the admin offers it; ``run`` returns how many messages or rows it dealt with."""

    name: str
    permission: str
    label: str | Promise
    explanation: str | Promise
    run: Callable[[Selection], int]
    done: Callable[[int], str]
    form: type[Confirmation] = Confirmation
    # Each row counts as one, so what was skipped can be told.
    counts_rows: bool = True
    # Begins the same for what is large, where the workers can carry it out.
    begin: Callable[[Selection, dict[str, Any]], Sequence[models.Operation]] | None = None
    is_large: Callable[[Selection], bool] = attrgetter("is_large")
    # What the parameters of the list's filter mean, for such a beginning.
    conditions: Callable[[QueryDict], dict[str, Any]] = lambda query: {}


class OperationsAdmin(GuardedAdmin):
    """Offer operations on chosen rows, each behind its permission and a confirmation page."""

    operations: tuple[Operation, ...] = ()

    def describe(self, row: Any) -> str:
        """Say in a line which row this is, for the confirmation page."""
        return str(row)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.operate_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_operate"
        return [path("operate/<slug:name>/", view, name=name), *super().get_urls()]

    def links(self, request: HttpRequest, object_id: str) -> list[tuple[str, Any]]:
        query = urlencode({"id": object_id})
        own = [
            (f"{self.address('operate', each.name)}?{query}", each.label)
            for each in self.operations
            if self.may(request, each.permission)
        ]
        return [*super().links(request, object_id), *own]

    def ask(self, request: HttpRequest, operation: Operation, rows: QuerySet) -> HttpResponse:
        """Show what an operation would do to rows chosen in the list."""
        chosen: dict[str, Any]
        if request.POST.get("select_across") == "1" and bounded_count(rows) > MAX_IDS:
            newest = rows.order_by("-pk").values_list("pk", flat=True)[0]
            chosen = {"query": request.GET.urlencode(), "newest": newest}
        else:
            chosen = {"ids": sorted(rows.order_by().values_list("pk", flat=True)[:MAX_IDS])}
            rows = rows.filter(pk__in=chosen["ids"])
        return self._confirm(request, operation, self._token(request, operation, chosen), rows)

    def operate_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """Ask about one row (GET), or do what was confirmed (POST)."""
        operation = next((each for each in self.operations if each.name == name), None)
        if operation is None:
            raise Http404
        if not self.may(request, operation.permission) or not self.has_view_permission(request):
            self.refuse(request, name)
        if request.method == "POST":
            return self._carry_out(request, operation)
        ids = [search_by_number(text) for text in request.GET.getlist("id")[:MAX_IDS]]
        rows = self.get_queryset(request).filter(pk__in=[pk for pk in ids if pk is not None])
        token = self._token(request, operation, {"ids": [row.pk for row in rows]})
        return self._confirm(request, operation, token, rows)

    def _confirm(
        self,
        request: HttpRequest,
        operation: Operation,
        token: str,
        rows: QuerySet,
        form: Confirmation | None = None,
    ) -> HttpResponse:
        count = bounded_count(rows)
        if not count:
            messages.warning(request, _("None of what was selected is there any more."))
            return HttpResponseRedirect(self.address("changelist"))
        samples = [self.describe(row) for row in rows[:SAMPLES]]
        return self.page(
            request,
            "confirm",
            operation.label,
            operation=operation,
            url=self.address("operate", operation.name),
            back=self.address("changelist"),
            count=counted(count),
            samples=samples,
            others=counted(count - len(samples)) if count > len(samples) else "",
            token=token,
            form=form or operation.form(names=self._names(rows, count)),
        )

    def _carry_out(self, request: HttpRequest, operation: Operation) -> HttpResponse:
        token = request.POST.get("token", "")
        try:
            confirmed = signing.loads(token, salt=SALT, max_age=MAX_AGE)
        except signing.SignatureExpired:
            messages.error(request, _("The confirmation is too old. Select again."))
            return HttpResponseRedirect(self.address("changelist"))
        except signing.BadSignature:
            self.refuse(request, operation.name)
        if confirmed["for"] != self._purpose(request, operation):
            self.refuse(request, operation.name)
        try:
            rows = self._chosen(request, confirmed["chosen"])
        except IncorrectLookupParameters:
            messages.error(request, _("The filter is no longer valid. Select again."))
            return HttpResponseRedirect(self.address("changelist"))
        form = operation.form(request.POST, names=self._names(rows, bounded_count(rows)))
        if not form.is_valid():
            return self._confirm(request, operation, token, rows, form)
        ids = confirmed["chosen"].get("ids")
        selection = Selection(
            ids=ids if ids is not None else islice(_ids_of(rows), AT_ONCE),
            upto=Ceiling(*confirmed["upto"]),
            by=request.user,
            answers=form.cleaned_data,
            count=bounded_count(rows),
        )
        try:
            if operation.begin and operation.is_large(selection):
                query = QueryDict(confirmed["chosen"].get("query", ""))
                with transaction.atomic(using=conf.DATABASE):
                    begun = operation.begin(selection, operation.conditions(query))
                return self.begun(request, begun, self.address("changelist"))
            count = operation.run(selection)
        except MessagingError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(self.address("changelist"))
        self._report(request, operation, count, ids)
        if count >= AT_ONCE and bounded_count(rows):
            messages.warning(request, _("There may be more. Confirm again to go on."))
            return self._confirm(request, operation, token, rows)
        return HttpResponseRedirect(self.address("changelist"))

    def _report(
        self, request: HttpRequest, operation: Operation, count: int, ids: list[int] | None
    ) -> None:
        messages.success(request, operation.done(count))
        if operation.counts_rows and ids is not None and (skipped := len(ids) - count):
            text = ngettext(
                "Skipped %(count)d: it is gone, or somebody was faster.",
                "Skipped %(count)d: they are gone, or somebody was faster.",
                skipped,
            )
            messages.warning(request, text % {"count": skipped})

    def _token(self, request: HttpRequest, operation: Operation, chosen: dict[str, Any]) -> str:
        content = {
            "for": self._purpose(request, operation),
            "chosen": chosen,
            "upto": control.ceiling(),
        }
        return signing.dumps(content, salt=SALT, compress=True)

    def _purpose(self, request: HttpRequest, operation: Operation) -> str:
        return f"{operation.name} {self.opts.label_lower} {request.user.pk}"

    def _chosen(self, request: HttpRequest, chosen: dict[str, Any]) -> QuerySet:
        if "ids" in chosen:
            return self.get_queryset(request).filter(pk__in=chosen["ids"])
        request.GET = QueryDict(chosen["query"])
        rows = self.get_changelist_instance(request).get_queryset(request)
        return rows.filter(pk__lte=chosen["newest"])

    def _names(self, rows: QuerySet, count: int) -> list[str]:
        return [str(row) for row in rows[:2]] if count == 1 else []


def _ids_of(rows: QuerySet) -> Iterator[int]:
    """Yield the ids of rows from the lowest, however many there are."""
    after = 0
    ids = rows.order_by("pk").values_list("pk", flat=True)
    while batch := list(ids.filter(pk__gt=after)[:MAX_IDS]):
        yield from batch
        after = batch[-1]
