"""Schemas: the page of a topic's versions, where one is added and one is chosen."""

import json
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.contrib.admin.widgets import AdminTextareaWidget
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import control
from ..exceptions import InvalidOption, InvalidSchema, UnknownTopic
from ..models import Schema, Topic
from .forms import decoded
from .lists import GuardedAdmin

# So many versions are shown and offered, beside the one that counts.
NEWEST = 50


class AddForm(forms.Form):
    """A new version."""

    document = forms.CharField(
        label=gettext_lazy("JSON Schema"),
        widget=AdminTextareaWidget(attrs={"rows": 20, "spellcheck": "false"}),
        help_text=gettext_lazy("Draft 2020-12. It counts for nothing until it is chosen."),
    )

    def clean_document(self) -> Any:
        return decoded(self.cleaned_data["document"])


class UseForm(forms.Form):
    """The version that counts."""

    version = forms.TypedChoiceField(
        label=gettext_lazy("Version that counts"), coerce=int, empty_value=None, required=False
    )

    def __init__(self, versions: list[Schema], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        numbers = [(each.version, str(each.version)) for each in versions]
        field: Any = self.fields["version"]
        field.choices = [("", _("none: any body is taken")), *numbers]


class SchemasAdmin(GuardedAdmin):
    """Show the versions to those who may see a topic."""

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.schemas_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_schemas"
        return [path("<path:object_id>/schemas/", view, name=name), *super().get_urls()]

    def links(self, request: HttpRequest, object_id: str) -> list[tuple[str, Any]]:
        address = self.address("schemas", object_id)
        return [*super().links(request, object_id), (address, _("Schema versions"))]

    def schemas_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the versions; add the one, or use the one, that was sent."""
        if not self.has_view_permission(request):
            self.refuse(request, "schemas")
        may_add, may_use = self.may(request, "add_schema"), self.has_change_permission(request)
        is_use = request.method == "POST" and "use" in request.POST
        is_add = request.method == "POST" and not is_use
        if is_use and not may_use:
            self.refuse(request, "use_schema")
        if is_add and not may_add:
            self.refuse(request, "add_schema")
        topic = self.get_object(request, unquote(object_id))
        if topic is None:
            raise Http404
        versions = versions_of(topic)
        current = topic.schema.version if topic.schema else None
        add = AddForm(request.POST if is_add else None)
        use = UseForm(versions, request.POST if is_use else None, initial={"version": current})
        if (is_add and self._added(request, topic, add)) or (
            is_use and self._used(request, topic, use)
        ):
            return HttpResponseRedirect(self.address("schemas", topic.pk))
        context = {
            "subtitle": str(topic),
            "original": topic,
            "versions": [(each, _written(each.document)) for each in versions],
            "newest": NEWEST,
            "add": add if may_add else None,
            "use": use if may_use and versions else None,
        }
        return self.page(request, "schemas", _("Schema versions"), **context)

    def _added(self, request: HttpRequest, topic: Topic, form: AddForm) -> bool:
        if not form.is_valid():
            return False
        known = topic.schemas.order_by("-version").values_list("version", flat=True).first() or 0
        try:
            added = control.add_schema(topic.name, form.cleaned_data["document"], by=request.user)
        except (InvalidSchema, UnknownTopic) as error:
            form.add_error("document", str(error))
            return False
        if added.version > known:
            messages.success(request, _("Version %d was added.") % added.version)
        else:
            text = _("Nothing was added: this is what version %d says.")
            messages.warning(request, text % added.version)
        return True

    def _used(self, request: HttpRequest, topic: Topic, form: UseForm) -> bool:
        if not form.is_valid():
            return False
        version = form.cleaned_data["version"]
        try:
            control.use_schema(topic.name, version, by=request.user)
        except (InvalidOption, UnknownTopic) as error:
            form.add_error("version", str(error))
            return False
        text = _("Version %d counts.") % version if version else _("No schema counts.")
        messages.success(request, text)
        return True


def versions_of(topic: Topic) -> list[Schema]:
    """Return the newest versions, and the one that counts."""
    newest = topic.schemas.order_by("-version").values("pk")[:NEWEST]
    rows = topic.schemas.filter(Q(pk__in=newest) | Q(pk=topic.schema_id))
    return list(rows.order_by("-version"))


def listed(topic: Topic) -> SafeString | str:
    """Return a line for each version, the newest first."""
    lines = []
    for each in versions_of(topic):
        by = each.created_by or _("code")
        words = _("version %(version)d, %(at)s by %(by)s") % {
            "version": each.version,
            "at": f"{each.created_at:%Y-%m-%d %H:%M}",
            "by": by,
        }
        counts = _(": counts") if each.pk == topic.schema_id else ""
        lines.append((words + counts,))
    return format_html_join("", "<div>{}</div>", lines) or _("none")


def _written(document: Any) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)
