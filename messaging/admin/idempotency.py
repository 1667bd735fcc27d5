"""Idempotency records: see what `once()` has done."""

from typing import Any

from django.contrib import admin
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from ..models import Idempotency
from .lists import RecordAdmin
from .payloads import PayloadAdmin, stored_json


@admin.register(Idempotency)
class IdempotencyAdmin(PayloadAdmin, RecordAdmin):
    list_display = ("scope", "key", "created_at", "expires_at")
    payloads = ("result",)
    search_fields = ("scope", "key")
    search_help_text = gettext_lazy("A scope, or a scope and a key: charge-card 42.")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        scope, _, key = search_term.partition(" ")
        if scope:
            queryset = queryset.filter(scope=scope)
        return (queryset.filter(key=key) if key else queryset), False

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        first = ("scope", "key", "created_at", "expires_at")
        return (*first, "result_shown") if self.may_see_payloads(request) else first

    @admin.display(description=gettext_lazy("result"))
    def result_shown(self, record: Model) -> SafeString:
        return stored_json(record, "result")
