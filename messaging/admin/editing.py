"""Editing: change configuration rows under a lock, so that no change is lost."""

from typing import Any, ClassVar

from django.contrib.admin.widgets import AdminTextareaWidget, AutocompleteSelect
from django.db import models, transaction
from django.http import HttpRequest

from .forms import JSONField, VersionedForm
from .lists import GuardedAdmin, search_by_number


class ForgivingSelect(AutocompleteSelect):
    """Show a form again also when what was chosen is no key; the stock widget breaks on it."""

    def optgroups(self, name: str, value: Any, attrs: Any = None) -> Any:
        keys = [each for each in value if not each or search_by_number(str(each)) is not None]
        return super().optgroups(name, keys, attrs)


class ConfigurationAdmin(GuardedAdmin):
    """Edit rows that a name identifies for good."""

    form = VersionedForm
    search_fields: ClassVar[tuple[str, ...]] = ("name", "description")
    formfield_overrides = {
        models.JSONField: {"form_class": JSONField, "widget": AdminTextareaWidget({"rows": 2})}
    }

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """Return the row; lock it first when it may be about to change."""
        row = super().get_object(request, object_id, from_field)
        if row is None or request.method != "POST":
            return row
        rows = self.get_queryset(request).filter(pk=row.pk)
        if not transaction.get_connection(rows.db).in_atomic_block:
            return row
        return rows.select_for_update(of=("self",)).first()

    def formfield_for_foreignkey(
        self, db_field: models.ForeignKey, request: HttpRequest, **kwargs: Any
    ) -> Any:
        if db_field.name in self.get_autocomplete_fields(request):
            kwargs["widget"] = ForgivingSelect(db_field, self.admin_site, using=kwargs.get("using"))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet, search_term: str
    ) -> tuple[models.QuerySet, bool]:
        # PostgreSQL cannot compare with a NUL character.
        return super().get_search_results(request, queryset, search_term.replace("\0", ""))
