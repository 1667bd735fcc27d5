"""Topics: edit them, see their schemas, and publish test messages."""

from typing import Any

from django.contrib import admin
from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import publish as publish_message
from ..models import Binding, Topic
from .beginning import beginnings
from .editing import ConfigurationAdmin
from .lists import search_by_number
from .schemas import SchemasAdmin, listed
from .sending import SendingAdmin

# So many subscribers are named.
SHOWN = 10


@admin.register(Topic)
class TopicAdmin(SchemasAdmin, SendingAdmin, ConfigurationAdmin):
    list_display = ("name", "description", "subscribers", "retention")
    sortable_by = ("name",)
    actions = ("send_test_message",)
    send = staticmethod(publish_message)

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        first = ["name", "description"] if obj is None else ["name", "description", "subscribers"]
        schema = ["compatibility"] if obj is None else ["compatibility", "schema_versions"]
        duplicates = ["deduplication_window", "content_based_deduplication"]
        return [
            (None, {"fields": first}),
            (_("Schema"), {"fields": schema}),
            (_("Duplicates"), {"fields": duplicates}),
            (_("Keeping"), {"fields": ["retention", "version"]}),
        ]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else ("name", "subscribers", "schema_versions")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        bindings = Binding.objects.filter(topic=OuterRef("pk")).order_by("queue__name")
        names = ArraySubquery(bindings.values("queue__name")[: SHOWN + 1])
        rows: QuerySet = super().get_queryset(request).annotate(subscriber_names=names)
        return rows

    @admin.display(description=gettext_lazy("goes to"))
    def subscribers(self, topic: Any) -> str:
        names = topic.subscriber_names
        shown = ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
        return shown or _("nobody")

    @admin.display(description=gettext_lazy("versions"))
    def schema_versions(self, topic: Any) -> SafeString | str:
        return listed(topic)

    def links(self, request: HttpRequest, object_id: str) -> list[tuple[str, Any]]:
        topic = Topic.objects.filter(pk=search_by_number(object_id) or 0).first()
        links = super().links(request, object_id)
        return links + (beginnings(self, request, topic=topic.name) if topic else [])

    @admin.action(description=gettext_lazy("Publish a test message"), permissions=["publish"])
    def send_test_message(self, request: HttpRequest, rows: QuerySet) -> HttpResponse | None:
        return self.choose_one(request, rows)
