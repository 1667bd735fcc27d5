"""Forms: check JSON that people type, and notice when two edit the same row."""

import hashlib
import json
from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminTextareaWidget
from django.core.exceptions import ValidationError
from django.forms.fields import InvalidJSONInput
from django.forms.models import model_to_dict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..encoding import MAX_DEPTH, MAX_INTEGER_DIGITS, encode_body
from ..exceptions import InvalidMessage


def decoded(text: str) -> Any:
    """Return the value of a JSON text, or raise ValidationError with what is wrong and where."""
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValidationError(
            _("This is nested too deeply: %(limit)d levels are the most."),
            params={"limit": MAX_DEPTH},
        ) from error
    except json.JSONDecodeError as error:
        raise ValidationError(
            _("This is not JSON: %(reason)s (line %(line)d, column %(column)d)."),
            params={"reason": error.msg, "line": error.lineno, "column": error.colno},
        ) from error
    except ValueError as error:
        raise ValidationError(
            _("An integer in this is too long: %(limit)d digits are the most."),
            params={"limit": MAX_INTEGER_DIGITS},
        ) from error
    try:
        encode_body(value)
    except InvalidMessage as error:
        raise ValidationError(str(error)) from error
    return value


class JSONField(forms.JSONField):
    """Refuse what breaks the stock field or the database: NaN, NUL, endless nesting or digits."""

    def to_python(self, value: Any) -> Any:
        if not isinstance(value, str):
            return super().to_python(value)
        if value in self.empty_values:
            return None
        decoded(value)
        return super().to_python(value)

    def bound_data(self, data: Any, initial: Any) -> Any:
        try:
            self.to_python(data)
        except ValidationError:
            return InvalidJSONInput(data)
        return super().bound_data(data, initial)


class VersionedForm(forms.ModelForm):
    """Refuse to overwrite what somebody else has changed since the form was opened."""

    version = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["version"] = self._version()

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.instance.pk and self.data.get(self.add_prefix("version")) != self._version():
            raise ValidationError(
                _(
                    "Somebody else has changed this since you opened the form; nothing was saved. "
                    "Open it again, look at what is new, and repeat your change."
                ),
                code="conflict",
            )
        return cleaned

    def _version(self) -> str:
        """Return what stands for the row's values, as they were before this form was applied."""
        if not hasattr(self, "_stored"):
            stored = model_to_dict(self.instance, fields=self._meta.fields)
            content = json.dumps(stored, sort_keys=True, default=str)
            self._stored = hashlib.sha256(content.encode()).hexdigest()[:16]
        return self._stored


class TestMessageForm(forms.Form):
    """A message that a person writes."""

    body = forms.CharField(
        label=gettext_lazy("Body"),
        widget=AdminTextareaWidget(attrs={"spellcheck": "false"}),
        initial="{}",
        help_text=gettext_lazy("Any JSON value, such as {“order_id”: 42}."),
    )
    headers = forms.CharField(
        label=gettext_lazy("Headers"),
        widget=AdminTextareaWidget(attrs={"rows": 3, "spellcheck": "false"}),
        required=False,
        help_text=gettext_lazy("A JSON object of strings, numbers and booleans; or nothing."),
    )
    priority = forms.IntegerField(
        label=gettext_lazy("Priority"),
        initial=0,
        min_value=-100,
        max_value=100,
        help_text=gettext_lazy("-100 to 100; higher first."),
    )
    delay = forms.FloatField(
        label=gettext_lazy("Delay"),
        initial=0,
        min_value=0,
        max_value=366 * 86_400,
        help_text=gettext_lazy("Seconds until it is delivered."),
    )

    def clean_body(self) -> Any:
        return decoded(self.cleaned_data["body"])

    def clean_headers(self) -> Any:
        text = self.cleaned_data["headers"].strip()
        return decoded(text) if text else None
