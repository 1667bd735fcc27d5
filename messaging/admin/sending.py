"""Sending: a page that sends a test message to a queue, or publishes one to a topic."""

from collections.abc import Callable
from typing import Any, ClassVar

from django.contrib import messages
from django.contrib.admin.utils import unquote
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.translation import gettext as _

from ..exceptions import InvalidMessage, MessagingError
from ..messages import MessageId
from .forms import TestMessageForm
from .lists import GuardedAdmin


class SendingAdmin(GuardedAdmin):
    """Offer the page to those who may publish."""

    # messaging.send or messaging.publish
    send: ClassVar[Callable[..., MessageId]]

    def has_publish_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "publish_message")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.send_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_send"
        return [path("<path:object_id>/send/", view, name=name), *super().get_urls()]

    def links(self, request: HttpRequest, object_id: str) -> list[tuple[str, Any]]:
        links = super().links(request, object_id)
        if self.has_publish_permission(request):
            links.append((self.address("send", object_id), _("Send a test message")))
        return links

    def choose_one(self, request: HttpRequest, rows: QuerySet) -> HttpResponse | None:
        """Go to the page of the one row chosen in the list."""
        if len(chosen := rows[:2]) == 1:
            return HttpResponseRedirect(self.address("send", chosen[0].pk))
        messages.warning(request, _("Select one, and only one, to send a test message to."))
        return None

    def send_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show the form, or send what it holds."""
        if not self.has_publish_permission(request) or not self.has_view_permission(request):
            self.refuse(request, "send")
        row = self.get_object(request, unquote(object_id))
        if row is None:
            raise Http404
        form = TestMessageForm(request.POST or None)
        if request.method == "POST" and form.is_valid() and self._sent(request, row, form):
            return HttpResponseRedirect(self.address("send", row.pk))
        title = _("Send a test message")
        return self.page(request, "send", title, subtitle=str(row), original=row, form=form)

    def _sent(self, request: HttpRequest, row: Any, form: TestMessageForm) -> bool:
        values = form.cleaned_data
        try:
            message_id = type(self).send(
                row.name,
                values["body"],
                headers=values["headers"],
                priority=values["priority"],
                delay=values["delay"] or None,
            )
        except MessagingError as error:
            place = error.path if isinstance(error, InvalidMessage) else ""
            form.add_error("headers" if place.startswith("headers") else "body", str(error))
            return False
        self.log_change(request, row, f"Test message {message_id} sent.")
        text = _('Message <a href="{}">{}</a> is on its way.')
        url = self.address("change", int(message_id), model="message")
        messages.success(request, format_html(text, url, int(message_id)))
        return True
