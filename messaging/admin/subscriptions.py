"""Subscriptions: which topics also go to which queues."""

from django.contrib import admin

from ..models import Subscription
from .editing import ConfigurationAdmin
from .lists import RelatedFilter


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
