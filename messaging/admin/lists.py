"""Lists: stay fast on millions of rows, and refuse what no filter of theirs has asked.

The stock list counts every row, sorts by any column and filters by any lookup that a URL names.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.contrib.admin.exceptions import DisallowedModelAdminLookup
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG, ChangeList
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.db import OperationalError, transaction
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.functional import cached_property
from django.utils.translation import gettext as _

from ..exceptions import OperationRefused
from ..models import Operation
from ..signals import logger, printable
from ..store.connection import connection_for
from ..store.depths import COUNT_LIMIT
from ..store.operations import limit_time, was_cancelled

# The time that the statements of one list have, seconds.
PATIENCE = 3
# A filter offers this many queues or topics; the others are a search away.
CHOICES = 100
# A filter without an index looks at this many rows.
NEWEST = 200_000


class AtLeast(int):
    """A count that stopped at its limit."""

    def __str__(self) -> str:
        return f"{int(self)}+"


class CappedPaginator(Paginator):
    """Count up to a limit, since counting all would read all."""

    @cached_property
    def count(self) -> int:
        found = bounded_count(self.object_list)
        return AtLeast(COUNT_LIMIT) if found > COUNT_LIMIT else found


def bounded_count(rows: Any) -> int:
    """Return how many rows there are, at most one more than the limit."""
    # Only the key: a slice would otherwise compute all that the list shows of each row.
    return int(rows.order_by().values("pk")[: COUNT_LIMIT + 1].count())


class RelatedFilter(admin.RelatedFieldListFilter):
    """Offer some queues or topics, however many there are."""

    heading: Any = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.title = self.heading or self.title

    def field_choices(
        self, field: Any, request: HttpRequest, model_admin: admin.ModelAdmin
    ) -> list[tuple[str, str | Any]]:
        rows = field.related_model.objects.order_by("name").values_list("pk", "name")
        choices = list(rows[:CHOICES])
        chosen = [pk for pk in self.lookup_val or () if str(pk).isdecimal() and len(str(pk)) < 19]
        return choices + [row for row in rows.filter(pk__in=chosen) if row not in choices]


class AmongNewest(admin.FieldListFilter):
    """Look for what has no index among the newest rows only, and say so."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        values = {"title": self.title, "newest": f"{NEWEST:,}"}
        self.title = _("%(title)s (of the newest %(newest)s)") % values

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        rows = super().queryset(request, queryset)
        if rows is None or not self.used_parameters:
            return queryset
        newest = queryset.model._default_manager.order_by("-pk").values_list("pk", flat=True)
        return rows.filter(pk__gt=(newest.first() or 0) - NEWEST)


class NewestRelatedFilter(AmongNewest, RelatedFilter):
    pass


class NewestChoicesFilter(AmongNewest, admin.ChoicesFieldListFilter):
    pass


class GuardedChangeList(ChangeList):
    """Answer what is no declared filter like any other wrong parameter."""

    def get_filters(self, request: HttpRequest) -> Any:
        try:
            return super().get_filters(request)
        except DisallowedModelAdminLookup as error:
            raise IncorrectLookupParameters(error) from error


class OrderedChangeList(GuardedChangeList):
    """Keep the one order that an index has."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet) -> list[Any]:
        return list(self.model_admin.get_ordering(request))


class GuardedAdmin(admin.ModelAdmin):
    """The list of one model, guarded."""

    list_per_page = 50
    list_max_show_all = 200
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    paginator = CappedPaginator
    change_form_template = "admin/messaging/change_form.html"

    class Media:
        css = {"all": ("messaging/admin.css",)}

    def may(self, request: HttpRequest, permission: str) -> bool:
        """Tell whether the user has a permission of this app."""
        return bool(request.user.has_perm(f"{self.opts.app_label}.{permission}"))

    def address(self, view: str, *args: Any, model: str = "") -> str:
        """Return the URL of one of the views of this model, or of another one."""
        name = f"{self.opts.app_label}_{model or self.opts.model_name}_{view}"
        return reverse(f"{self.admin_site.name}:{name}", args=args)

    def links(self, request: HttpRequest, object_id: str) -> list[tuple[str, Any]]:
        """Return the addresses and labels of what can be done with one row."""
        return []

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        links = self.links(request, object_id) if object_id else []
        context = {"links": links, **(extra_context or {})}
        return super().changeform_view(request, object_id, form_url, context)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return GuardedChangeList

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        """Allow the parameters of the declared filters, and no other field of any model."""
        for declared in self.get_list_filter(request):
            if isinstance(declared, type):  # a filter with a parameter of its own
                if lookup == getattr(declared, "parameter_name", None):
                    return True
                continue
            name = declared if isinstance(declared, str) else declared[0]  # type: ignore[index]
            if lookup in (name, f"{name}__exact", f"{name}__id__exact", f"{name}__isnull"):
                return True
        return False

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        # PostgreSQL cannot compare with a NUL character.
        if any("\0" in text for name, texts in request.GET.lists() for text in (name, *texts)):
            return HttpResponseRedirect(f"{request.path}?{ERROR_FLAG}=1")
        if request.method == "POST":
            return self._act(request, extra_context)
        connection = connection_for(self.get_queryset(request).db)
        try:
            with transaction.atomic(using=connection.alias):
                limit_time(connection, PATIENCE)
                return super().changelist_view(request, extra_context)
        except OperationalError as error:
            if not was_cancelled(error):
                raise
        return self._too_slow(request)

    def _act(self, request: HttpRequest, extra_context: dict[str, Any] | None) -> HttpResponse:
        known = {"delete_selected", *(self.actions or ())}
        for name in known.intersection(request.POST.getlist("action")):
            if name not in self.get_actions(request):
                self.refuse(request, str(name))
        chosen = request.POST.getlist(helpers.ACTION_CHECKBOX_NAME)
        if any(search_by_number(each) is None for each in chosen):
            messages.error(request, _("The selection is not valid. Nothing was done."))
            return HttpResponseRedirect(self.address("changelist"))
        try:
            return super().changelist_view(request, extra_context)
        except OperationRefused as refusal:
            messages.error(request, str(refusal))
            return HttpResponseRedirect(self.address("changelist"))

    def begun(
        self, request: HttpRequest, operations: Sequence[Operation], back: str
    ) -> HttpResponse:
        """Say what was begun, and show it to who may see it; others go back."""
        for each in operations:
            text = _("Operation %(number)d was begun: the workers carry it out.")
            messages.success(request, text % {"number": each.pk})
        if not operations:
            messages.warning(request, _("None of what was selected is there any more."))
        if not operations or not self.may(request, "view_operation"):
            return HttpResponseRedirect(back)
        one = [operations[0].pk] if len(operations) == 1 else []
        view = "change" if one else "changelist"
        return HttpResponseRedirect(self.address(view, *one, model="operation"))

    def refuse(self, request: HttpRequest, name: str) -> NoReturn:
        """Answer 403, and leave a line about who tried what."""
        logger.warning(
            "Operation refused operation=%s model=%s by=%s",
            printable(name),
            self.opts.label_lower,
            printable(request.user.get_username()),
        )
        raise PermissionDenied

    def _too_slow(self, request: HttpRequest) -> HttpResponse:
        text = _("This took longer than %(seconds)d seconds and was given up. Narrow the filter.")
        messages.error(request, text % {"seconds": PATIENCE})
        page = self.page(request, "too_slow", self.opts.verbose_name_plural)
        page.status_code = 503
        return page

    def page(self, request: HttpRequest, name: str, title: Any, **context: Any) -> TemplateResponse:
        """Return a page of our own among the admin's, under the list of this model."""
        request.current_app = self.admin_site.name
        # The names that the admin's own change page takes, which ours extend for its frame.
        frame = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": title,
            "original": title,
            "has_view_permission": True,
            "media": self.media,
        }
        return TemplateResponse(request, f"admin/messaging/{name}.html", frame | context)


class RecordAdmin(GuardedAdmin):
    """Show what happened, which nobody may edit."""

    ordering: ClassVar[tuple[str, ...]] = ("-id",)
    sortable_by = ()
    # Never a join by itself: what a row refers to may be gone, and the row would be too.
    list_select_related = ()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return OrderedChangeList

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def search_by_number(text: str) -> int | None:
    """Return the number that was searched for, if the database can hold it."""
    text = text.strip()
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        return None
    return number if (number := int(text)) < 2**63 else None
