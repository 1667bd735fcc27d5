"""Subscriptions: which topics also go to which queues."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from ..models import Subscription
from .beginning import beginnings
from .editing import ConfigurationAdmin
from .lists import RelatedFilter, search_by_number


@admin.register(Subscription)
class SubscriptionAdmin(ConfigurationAdmin):
    list_display = ("pattern", "queue", "is_active", "filter", "description")
    list_filter = ("is_active", ("queue", RelatedFilter))
    list_select_related = ("queue",)
    sortable_by = ("pattern",)
    search_fields = ("pattern", "queue__name")
    autocomplete_fields = ("queue",)
    fields = (
        "pattern",
        "queue",
        "is_active",
        "filter",
        "filter_scope",
        "description",
        "version",
    )
    readonly_fields = ()

    def links(self, request: HttpRequest, object_id: str) -> list[tuple[str, Any]]:
        found = Subscription.objects.filter(pk=search_by_number(object_id) or 0)
        subscription = found.select_related("queue").first()
        links = super().links(request, object_id)
        if subscription is None:
            return links
        queue, pattern = subscription.queue.name, subscription.pattern
        return links + beginnings(self, request, queue=queue, subscription=pattern)
