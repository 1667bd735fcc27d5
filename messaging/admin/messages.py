"""Messages: see the log, and what failed on the way."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import formats, timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ..models import Attempt, DeadLetter, Message
from ..store.connection import connection_for
from ..store.whereabouts import Place, places
from .deadletters import KEYS, attempts_of, preformatted, with_names
from .lists import NewestRelatedFilter, RecordAdmin, search_by_number
from .payloads import PayloadAdmin, on_one_line

MOMENT = "SHORT_DATETIME_FORMAT"


class NumberedAdmin(RecordAdmin):
    """Search by the id of a message alone, which has an index."""

    search_fields = ("id",)
    search_help_text = gettext_lazy("The id of a message.")
    message_field = "pk"

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        if not search_term:
            return queryset, False
        number = search_by_number(search_term)
        if number is None:
            return queryset.none(), False
        return queryset.filter(**{self.message_field: number}), False


@admin.register(Message)
class MessageAdmin(PayloadAdmin, NumberedAdmin):
    list_filter = (("topic", NewestRelatedFilter), ("queue", NewestRelatedFilter))

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return with_names(super().get_queryset(request), "queue", "topic")

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        first = ("id", "published_at", "sent_to", "ordering_key")
        return (*first, "body_preview") if self.may_see_payloads(request) else first

    def get_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        carried = (*KEYS[:3], "caused_by", "reply_to")
        first = ("sent_to", "published_at", *carried, "whereabouts", "history")
        if self.may_see_payloads(request):
            return (*first, "body_shown", "headers_shown")
        return first

    @admin.display(description=gettext_lazy("sent to"))
    def sent_to(self, message: Any) -> SafeString:
        if message.topic_id is not None:
            name, place = message.topic_name, _("topic {}")
        else:
            name, place = message.queue_name, _("queue {}")
        return on_one_line(place.format(name or _("(no longer exists)")))

    @admin.display(description=gettext_lazy("sent while handling"))
    def caused_by(self, message: Message) -> SafeString | str:
        if message.causation_id is None:
            return "-"
        url = self.address("change", message.causation_id, model="message")
        return format_html(_('<a href="{}">message {}</a>'), url, message.causation_id)

    @admin.display(description=gettext_lazy("now"))
    def whereabouts(self, message: Message) -> SafeString | str:
        dead = DeadLetter.objects.filter(message_id=message.pk).defer("body", "headers")
        found = list(with_names(dead.order_by("id"), "origin", "queue")[:10])
        lines = [
            format_html(
                _('<a href="{}">Dead letter</a> of queue {}, held in {}.'),
                self.address("change", each.pk, model="deadletter"),
                each.origin_name or "?",
                each.queue_name or "?",
            )
            for each in found
        ]
        waiting = places(connection_for(Message.objects.db), message.pk)
        lines += [format_html("{}", in_words(place)) for place in waiting]
        if not lines:
            return _("Handled, or on its way: it is not seen to wait, and no dead letter exists.")
        return format_html_join(SafeString("<br>"), "{}", ((line,) for line in lines))

    @admin.display(description=gettext_lazy("failed attempts"))
    def history(self, message: Message) -> SafeString:
        return attempts_of(message.pk)


def in_words(place: Place) -> str:
    """Say where a message waits, and why."""
    at = (
        formats.date_format(timezone.localtime(place.at), "SHORT_DATETIME_FORMAT")
        if place.at
        else ""
    )
    values = {"queue": place.queue or "?", "at": at, "by": place.by, "number": place.number}
    text = {
        "ready": _("Ready on queue %(queue)s, delivery %(number)d."),
        "key": _("Waits behind key %(by)s on queue %(queue)s, delivery %(number)d.")
        if place.at is None
        else _("Waits behind key %(by)s on queue %(queue)s, which is parked since %(at)s."),
        "scheduled": _("Scheduled for queue %(queue)s at %(at)s, delivery %(number)d."),
        "leased": _("Of queue %(queue)s, held by %(by)s until %(at)s, delivery %(number)d."),
    }[place.state]
    return text % values


@admin.register(Attempt)
class AttemptAdmin(NumberedAdmin):
    message_field = "message_id"
    list_display = (
        "id",
        "message_id",
        "queue_name",
        "attempt",
        "outcome",
        "error",
        "worker",
        "failed_at",
    )
    fields = (
        "message_id",
        "queue_name",
        "attempt",
        "outcome",
        "failed_at",
        "duration",
        "worker",
        "error",
        "description",
        "traceback_shown",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return with_names(super().get_queryset(request), "queue")

    @admin.display(description=gettext_lazy("queue"))
    def queue_name(self, attempt: Any) -> str:
        return attempt.queue_name or _("(no longer exists)")

    @admin.display(description=gettext_lazy("traceback"))
    def traceback_shown(self, attempt: Attempt) -> SafeString:
        return preformatted(attempt.traceback)
