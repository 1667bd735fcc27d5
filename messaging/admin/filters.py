"""Filters: the forms in which people say which messages an operation is for."""

import datetime
from collections.abc import Iterable
from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core.exceptions import ValidationError
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..control import Filter, State
from ..exceptions import MessagingError
from ..models import Queue, Subscription
from ..store.filters import MOST_IDS
from .forms import decoded
from .lists import search_by_number

PATCH_HELP = gettext_lazy(
    "A JSON merge patch of the body: {“country”: “GB”, “draft”: null} sets one field and takes "
    "another one away."
)
OBJECT = {"rows": 2, "spellcheck": "false"}
STATES = [
    (str(State.READY), gettext_lazy("ready")),
    (str(State.SCHEDULED), gettext_lazy("scheduled")),
    (str(State.DEAD), gettext_lazy("dead")),
]


class BeginningForm(forms.Form):
    """Ask which messages of a queue, and how fast; all conditions hold together."""

    queue = forms.CharField(
        label=gettext_lazy("Queue"), max_length=80, help_text=gettext_lazy("A queue's name.")
    )
    body = forms.CharField(
        label=gettext_lazy("Body"),
        required=False,
        widget=AdminTextareaWidget(attrs=OBJECT),
        help_text=gettext_lazy(
            "Fields and their values as a JSON object, such as {“customer.country”: “GB”}."
        ),
    )
    headers = forms.CharField(
        label=gettext_lazy("Headers"),
        required=False,
        widget=AdminTextareaWidget(attrs=OBJECT),
        help_text=gettext_lazy("Headers and their values as a JSON object."),
    )
    key = forms.CharField(
        label=gettext_lazy("Key"),
        required=False,
        max_length=200,
        help_text=gettext_lazy("The ordering or fairness key."),
    )
    error = forms.CharField(
        label=gettext_lazy("Error"),
        required=False,
        max_length=200,
        help_text=gettext_lazy("Part of the last error's name or text."),
    )
    topic = forms.CharField(
        label=gettext_lazy("Topic"),
        required=False,
        max_length=80,
        help_text=gettext_lazy("What it was published to."),
    )
    older_than = forms.DurationField(
        label=gettext_lazy("Older than"),
        required=False,
        help_text=gettext_lazy("Such as 01:30:00, or 2 00:00:00 for two days; or seconds."),
    )
    newer_than = forms.DurationField(label=gettext_lazy("Newer than"), required=False)
    ids = forms.CharField(
        label=gettext_lazy("Messages"),
        required=False,
        help_text=gettext_lazy("Their ids, separated by commas."),
    )
    rate = forms.FloatField(
        label=gettext_lazy("Messages a second"),
        min_value=0.01,
        required=False,
        help_text=gettext_lazy("Empty: as fast as it goes."),
    )
    # What the answers describe; None where nothing is asked for.
    wanted: Filter | None = None

    def clean_queue(self) -> str:
        return _queue(self.cleaned_data["queue"])

    def clean_body(self) -> Any:
        return _object(self.cleaned_data["body"])

    def clean_headers(self) -> Any:
        return _object(self.cleaned_data["headers"])

    def clean_ids(self) -> list[int] | None:
        texts = [text for text in self.cleaned_data["ids"].split(",") if text.strip()]
        ids = [search_by_number(text) for text in texts[: MOST_IDS + 1]]
        if None in ids:
            raise ValidationError(_("These are not ids, separated by commas."))
        return [number for number in ids if number is not None] or None

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.errors:
            return cleaned
        given = {
            name: cleaned[name]
            for name in Filter.__dataclass_fields__
            if cleaned.get(name) not in (None, "", [])
        }
        try:
            self.wanted = Filter(**given) if given else None
        except MessagingError as error:
            option = getattr(error, "option", None)
            self.add_error(option if option in self.fields else None, str(error))
        return cleaned


class StatesForm(BeginningForm):
    """Ask also for the states."""

    state = forms.MultipleChoiceField(
        label=gettext_lazy("States"),
        choices=STATES,
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text=gettext_lazy("None: what waits, ready or scheduled."),
    )
    field_order: Iterable[str] | None = ("queue", "state")


class PurgeForm(StatesForm):
    """Ask which messages are deleted."""


class CancelForm(BeginningForm):
    """Ask which scheduled messages are cancelled."""


class MoveForm(StatesForm):
    """Ask where to."""

    to = forms.CharField(
        label=gettext_lazy("To queue"), max_length=80, help_text=gettext_lazy("A queue's name.")
    )
    field_order: Iterable[str] | None = ("queue", "to", "state")

    def clean_to(self) -> str:
        return _queue(self.cleaned_data["to"])


class EditForm(StatesForm):
    """Ask how."""

    patch = forms.CharField(
        label=gettext_lazy("Change"),
        widget=AdminTextareaWidget(attrs={"rows": 4, "spellcheck": "false"}),
        help_text=PATCH_HELP,
    )
    field_order: Iterable[str] | None = ("queue", "patch", "state")

    def clean_patch(self) -> Any:
        return decoded(self.cleaned_data["patch"])


class ReplayForm(BeginningForm):
    """Ask from where on."""

    subscription = forms.CharField(
        label=gettext_lazy("Subscription"),
        max_length=200,
        required=False,
        help_text=gettext_lazy("The pattern of one of its subscriptions. Empty: all it gets."),
    )
    since = forms.CharField(
        label=gettext_lazy("Since"),
        max_length=20_000,
        help_text=gettext_lazy(
            "A time with its offset such as 2026-11-24T08:00:00+00:00, the id of a message, or the "
            "snapshot that another replay has told."
        ),
    )
    to = forms.CharField(
        label=gettext_lazy("To queue"),
        max_length=80,
        required=False,
        help_text=gettext_lazy("A queue's name. Empty: they wait where they did."),
    )
    field_order: Iterable[str] | None = ("queue", "subscription", "since", "to")

    def clean_since(self) -> datetime.datetime | int | str:
        text: str = self.cleaned_data["since"].strip()
        if text.isascii() and text.isdecimal():
            return int(text) if len(text) < 20 else text
        try:
            return parse_datetime(text) or text
        except ValueError as error:
            raise ValidationError(str(error)) from error

    def clean_to(self) -> str:
        return _queue(self.cleaned_data["to"]) if self.cleaned_data["to"] else ""

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean()
        cleaned["source"] = cleaned.get("queue")
        if (pattern := cleaned.get("subscription")) and cleaned["source"]:
            found = Subscription.objects.filter(queue__name=cleaned["queue"], pattern=pattern)
            cleaned["source"] = found.select_related("queue").first()
            if cleaned["source"] is None:
                self.add_error("subscription", _("The queue has no such subscription."))
        return cleaned


def _queue(name: str) -> str:
    if not Queue.objects.filter(name=name).exists():
        raise ValidationError(_("There is no queue of this name."))
    return name


def _object(text: str) -> dict[str, Any] | None:
    if not text.strip():
        return None
    value = decoded(text)
    if not isinstance(value, dict):
        raise ValidationError(_("This is no JSON object."))
    return value
