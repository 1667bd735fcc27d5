"""Editing: change configuration rows under a lock, so that no change is lost."""

from typing import Any, ClassVar

from django.db import models, transaction
from django.http import HttpRequest

from .forms import JSONField, VersionedForm
from .lists import GuardedAdmin


class ConfigurationAdmin(GuardedAdmin):
    """Edit rows that a name identifies for good."""

    form = VersionedForm
    search_fields: ClassVar[tuple[str, ...]] = ("name", "description")
    formfield_overrides = {models.JSONField: {"form_class": JSONField}}

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

    def get_search_results(
        self, request: HttpRequest, queryset: models.QuerySet, search_term: str
    ) -> tuple[models.QuerySet, bool]:
        # PostgreSQL cannot compare with a NUL character.
        return super().get_search_results(request, queryset, search_term.replace("\0", ""))
