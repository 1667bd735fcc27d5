"""Payloads: show bodies and headers as they are stored, also those that Python cannot decode."""

import json
from typing import Any

from django.contrib import admin
from django.db.models import Case, F, Func, IntegerField, Model, QuerySet, TextField, Value, When
from django.db.models.functions import Cast, Left, Length
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..encoding import encode_body
from ..exceptions import InvalidMessage

# A page shows this much of a body, characters.
SHOWN = 100_000
PREVIEW = 80
# A list previews bodies up to this size, since the whole has to be read for its beginning, bytes.
PREVIEWED = 8_000
# Characters that would turn the text around them.
DIRECTIONS = {code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


class StoredSize(Func):
    """The bytes that a value takes in its table, known without reading it."""

    function = "pg_column_size"
    output_field = IntegerField()


def text_of(name: str) -> Cast:
    """Return a JSON column as text, which nothing in Python tries to decode."""
    return Cast(F(name), TextField())


class PayloadAdmin(admin.ModelAdmin):
    """Show payloads to those who may see them."""

    payloads: tuple[str, ...] = ("body", "headers")

    def may_see_payloads(self, request: HttpRequest) -> bool:
        """Tell whether the user may see bodies and headers."""
        return bool(request.user.has_perm(f"{self.opts.app_label}.view_payload"))

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        rows: QuerySet = super().get_queryset(request).defer(*self.payloads)
        if "body" not in self.payloads or not self.may_see_payloads(request):
            return rows
        preview = Case(
            When(size__gt=PREVIEWED, then=Value(_("(large)"))),
            When(body__isnull=False, then=Left(text_of("body"), PREVIEW)),
            default=Value(""),
        )
        rows = rows.annotate(size=StoredSize(F("body"))).annotate(preview=preview)
        return rows

    @admin.display(description=gettext_lazy("body"))
    def body_preview(self, row: Any) -> SafeString:
        return on_one_line(row.preview)

    @admin.display(description=gettext_lazy("body"))
    def body_shown(self, row: Model) -> SafeString:
        return stored_json(row, "body")

    @admin.display(description=gettext_lazy("headers"))
    def headers_shown(self, row: Model) -> SafeString:
        return stored_json(row, "headers")


def stored_json(row: Model, name: str) -> SafeString:
    """Return a JSON column of a row as HTML, indented where Python can decode it."""
    text = text_of(name)
    rows = type(row)._default_manager.filter(pk=row.pk)
    stored, length = rows.values_list(Left(text, SHOWN), Length(text)).first() or (None, 0)
    note = ""
    if stored is None:
        stored, note = "", _("There is none.")
    elif length > SHOWN:
        note = _("These are the first %(shown)d of %(length)d characters.") % {
            "shown": SHOWN,
            "length": length,
        }
    else:
        try:
            stored = indented(stored)
        except (ValueError, RecursionError):
            note = _("As it is stored: Python cannot decode it, so no consumer can handle it.")
    return render_to_string("admin/messaging/_payload.html", {"text": shown(stored), "note": note})


def indented(text: str) -> str:
    """Return JSON text over several lines, unless it is nested more deeply than lines can show."""
    value = json.loads(text)
    try:
        encode_body(value)
    except InvalidMessage:
        return text
    return json.dumps(value, indent=2, ensure_ascii=False)


def on_one_line(text: str) -> SafeString:
    """Return text that a list cuts off at the end of its column."""
    return format_html('<span class="messaging-line">{}</span>', shown(text))


def shown(text: str) -> str:
    """Return text without the characters that would turn a page around."""
    return text.translate(DIRECTIONS)
