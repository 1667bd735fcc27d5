"""Dead letters: see why a message failed, redrive it or discard it."""

from dataclasses import asdict
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core import signing
from django.db.models import OuterRef, Q, QuerySet, Subquery
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.template.defaultfilters import truncatechars
from django.template.loader import render_to_string
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import control
from ..exceptions import MessagingError
from ..models import Attempt, DeadLetter, Message, Queue, Topic
from ..models import Operation as Begun
from ..store.depths import counted
from ..store.purging import Ceiling
from .lists import (
    NEWEST,
    NewestChoicesFilter,
    RecordAdmin,
    RelatedFilter,
    bounded_count,
    search_by_number,
)
from .operations import MAX_AGE, SALT, SAMPLES, Confirmation, Operation, OperationsAdmin, Selection
from .payloads import PayloadAdmin, on_one_line, shown

# So many failed attempts are shown, the newest.
ATTEMPTS = 50


class RedriveForm(Confirmation):
    """Ask where to."""

    to = forms.CharField(
        label=gettext_lazy("To queue"),
        max_length=80,
        required=False,
        help_text=gettext_lazy("A queue's name. Empty: to where each comes from."),
    )


class GroupRedriveForm(RedriveForm):
    """Ask where to, how fast, and whether one goes first."""

    rate = forms.FloatField(
        label=gettext_lazy("Messages a second"),
        min_value=0.01,
        required=False,
        help_text=gettext_lazy("Empty: as fast as it goes."),
    )
    canary = forms.BooleanField(
        label=gettext_lazy("One first"),
        required=False,
        help_text=gettext_lazy("The others follow when it was handled; if it fails, they stay."),
    )


def begin_redrive(selection: Selection, conditions: dict[str, Any]) -> list[Begun]:
    """Begin to redrive all that the conditions describe, as it was answered."""
    answers = selection.answers
    begun = control.begin_redrive(
        conditions=conditions,
        to=answers["to"] or None,
        rate=answers.get("rate"),
        canary=answers.get("canary", False),
        by=selection.by,
        upto=selection.upto,
    )
    return [begun]


def begin_discard(selection: Selection, conditions: dict[str, Any]) -> list[Begun]:
    """Begin to delete all that the conditions describe."""
    return [control.begin_discard(conditions=conditions, by=selection.by, upto=selection.upto)]


def conditions_of(query: QueryDict) -> dict[str, Any]:
    """Return what the list's filter means."""
    asked = {
        "dead_reason": query.get("reason__exact"),
        "origin": search_by_number(query.get("origin__id__exact", "")),
        "held": search_by_number(query.get("queue__id__exact", "")),
        "fingerprint": query.get("q", "").strip() or None,
    }
    if asked["dead_reason"]:  # among the newest only, as the list says
        last = DeadLetter.objects.order_by("-pk").values_list("pk", flat=True).first()
        asked["above"] = max(0, (last or 0) - NEWEST)
    return {name: value for name, value in asked.items() if value is not None}


REDRIVE = Operation(
    name="redrive",
    permission="redrive_deadletter",
    label=gettext_lazy("Redrive"),
    explanation=gettext_lazy(
        "Each goes back to the queue that it comes from, and is delivered as if it were new; with "
        "an ordering key, before what has waited since. A parked key goes on."
    ),
    run=lambda selection: control.redrive(
        selection.ids, to=selection.answers["to"] or None, by=selection.by
    ),
    done=lambda count: (
        ngettext(
            "%d dead letter is on its queue again.",
            "%d dead letters are on their queues again.",
            count,
        )
        % count
    ),
    form=RedriveForm,
    begin=begin_redrive,
    conditions=conditions_of,
)
DISCARD = Operation(
    name="discard",
    permission="redrive_deadletter",
    label=gettext_lazy("Discard"),
    explanation=gettext_lazy("Each is deleted with its payload, and nothing brings it back."),
    run=lambda selection: control.discard(selection.ids, by=selection.by),
    done=lambda count: (
        ngettext("%d dead letter was deleted.", "%d dead letters were deleted.", count) % count
    ),
    begin=begin_discard,
    conditions=conditions_of,
)


# What a message may carry beside its payload.
KEYS = ("ordering_key", "fairness_key", "correlation_id", "causation_id", "reply_to")


class OriginFilter(RelatedFilter):
    heading = gettext_lazy("the queue they come from")


class HolderFilter(RelatedFilter):
    heading = gettext_lazy("the queue that holds them")


@admin.register(DeadLetter)
class DeadLetterAdmin(OperationsAdmin, PayloadAdmin, RecordAdmin):
    change_list_template = "admin/messaging/dead_letters.html"
    search_fields = ("message_id", "fingerprint")
    search_help_text = gettext_lazy("The id of a message or of a dead letter, or a fingerprint.")
    list_filter = (
        ("reason", NewestChoicesFilter),
        ("origin", OriginFilter),
        ("queue", HolderFilter),
    )
    operations = (REDRIVE, DISCARD)
    actions = ("redrive", "discard")

    def get_urls(self) -> list[URLPattern]:
        guard = self.admin_site.admin_view
        name = f"{self.opts.app_label}_{self.opts.model_name}"
        return [
            path("groups/", guard(self.groups_view), name=f"{name}_groups"),
            path("groups/<slug:verb>/", guard(self.group_view), name=f"{name}_group"),
            *super().get_urls(),
        ]

    def groups_view(self, request: HttpRequest) -> HttpResponse:
        """Show the dead letters by what failed."""
        if not self.has_view_permission(request):
            self.refuse(request, "groups")
        found = [
            asdict(group) | {"counted": counted(group.count), "links": self._verbs(request, group)}
            for group in control.groups()
        ]
        title = _("Dead letters by error")
        return self.page(request, "groups", title, groups=found, list=self.address("changelist"))

    def _verbs(self, request: HttpRequest, group: control.Group) -> list[tuple[str, Any]]:
        if not self.has_redrive_permission(request):
            return []
        query = urlencode({"fingerprint": group.fingerprint})
        verbs = (REDRIVE, DISCARD)
        return [(f"{self.address('group', each.name)}?{query}", each.label) for each in verbs]

    def group_view(self, request: HttpRequest, verb: str) -> HttpResponse:
        """Ask about a group (GET), or begin what was confirmed (POST)."""
        operation = next((each for each in (REDRIVE, DISCARD) if each.name == verb), None)
        if operation is None or operation.begin is None:
            raise Http404
        if not self.has_view_permission(request) or not self.has_redrive_permission(request):
            self.refuse(request, verb)
        fingerprint = request.GET.get("fingerprint", "")[:32]
        rows = self.get_queryset(request).filter(fingerprint=fingerprint)
        count = bounded_count(rows)
        form_class = GroupRedriveForm if operation is REDRIVE else Confirmation
        form = form_class(request.POST if request.method == "POST" else None, names=[])
        if form.is_valid():
            upto = self._confirmed(request, operation, fingerprint)
            selection = Selection(ids=(), upto=upto, by=request.user, answers=form.cleaned_data)
            try:
                begun = operation.begin(selection, {"fingerprint": fingerprint})
            except MessagingError as error:
                messages.error(request, str(error))
                return HttpResponseRedirect(self.address("groups"))
            return self.begun(request, begun, self.address("groups"))
        samples = [self.describe(row) for row in rows[:SAMPLES]]
        return self.page(
            request,
            "confirm",
            operation.label,
            operation=operation,
            url=f"{self.address('group', verb)}?{urlencode({'fingerprint': fingerprint})}",
            back=self.address("groups"),
            count=counted(count),
            samples=[_("Fingerprint: %(text)s") % {"text": fingerprint}, *samples],
            others=counted(count - len(samples)) if count > len(samples) else "",
            token=self._token(request, operation, {"fingerprint": fingerprint}),
            form=form,
        )

    def _confirmed(self, request: HttpRequest, operation: Operation, fingerprint: str) -> Ceiling:
        """Return what was there when the page that was confirmed was made."""
        try:
            found = signing.loads(request.POST.get("token", ""), salt=SALT, max_age=MAX_AGE)
        except signing.BadSignature:
            self.refuse(request, operation.name)
        if (found["for"], found["chosen"]) != (
            self._purpose(request, operation),
            {"fingerprint": fingerprint},
        ):
            self.refuse(request, operation.name)
        return Ceiling(*found["upto"])

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return with_names(super().get_queryset(request), "queue", "origin", "topic")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet, search_term: str
    ) -> tuple[QuerySet, bool]:
        if not search_term:
            return queryset, False
        found = Q(fingerprint=search_term.strip())
        if (number := search_by_number(search_term)) is not None:
            found |= Q(message_id=number) | Q(pk=number)
        return queryset.filter(found), False

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        first = ("id", "origin_name", "failure", "attempts", "died_at")
        return (*first, "body_preview") if self.may_see_payloads(request) else first

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        failure = ["reason", "error", "description_shown", "attempts", "died_at", "fingerprint"]
        message = ["message", "topic_name", "priority", "published_at", *KEYS]
        if self.may_see_payloads(request):
            message += ["body_shown", "headers_shown"]
        return [
            (None, {"fields": ["origin_name", "held_in"]}),
            (_("Failure"), {"fields": [*failure, "history", "traceback_shown"]}),
            (_("Message"), {"fields": message}),
        ]

    @admin.display(description=gettext_lazy("from queue"), empty_value="?")
    def origin_name(self, dead: Any) -> str:
        return dead.origin_name or _("(no longer exists)")

    @admin.display(description=gettext_lazy("held in"))
    def held_in(self, dead: Any) -> str:
        return dead.queue_name or _("(no longer exists)")

    @admin.display(description=gettext_lazy("topic"))
    def topic_name(self, dead: Any) -> Any:
        return dead.topic_name or "-"

    @admin.display(description=gettext_lazy("failure"))
    def failure(self, dead: DeadLetter) -> SafeString:
        kind = dead.error.rpartition(".")[2] or dead.get_reason_display()
        return on_one_line(truncatechars(f"{kind}: {dead.description}", 200))

    @admin.display(description=gettext_lazy("description"))
    def description_shown(self, dead: DeadLetter) -> SafeString:
        return preformatted(dead.description)

    @admin.display(description=gettext_lazy("traceback"))
    def traceback_shown(self, dead: DeadLetter) -> SafeString:
        return preformatted(dead.traceback)

    @admin.display(description=gettext_lazy("message"))
    def message(self, dead: DeadLetter) -> SafeString | int:
        if not Message.objects.filter(pk=dead.message_id).exists():
            return dead.message_id
        url = self.address("change", dead.message_id, model="message")
        return format_html('<a href="{}">{}</a>', url, dead.message_id)

    @admin.display(description=gettext_lazy("failed attempts, and deaths"))
    def history(self, dead: DeadLetter) -> SafeString:
        return attempts_of(dead.message_id)

    def describe(self, row: Any) -> str:
        origin = row.origin_name or _("a queue that no longer exists")
        parts = {"id": row.pk, "queue": origin, "error": row.error or row.get_reason_display()}
        return _("Dead letter %(id)d from %(queue)s: %(error)s") % parts

    def has_redrive_permission(self, request: HttpRequest) -> bool:
        return self.may(request, "redrive_deadletter")

    @admin.action(
        description=gettext_lazy("Redrive selected dead letters"), permissions=["redrive"]
    )
    def redrive(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, REDRIVE, rows)

    @admin.action(
        description=gettext_lazy("Discard selected dead letters"), permissions=["redrive"]
    )
    def discard(self, request: HttpRequest, rows: QuerySet) -> HttpResponse:
        return self.ask(request, DISCARD, rows)


def with_names(rows: QuerySet, *relations: str) -> QuerySet:
    """Add the names of related queues and topics, which may be gone: nothing constrains them."""
    for relation in relations:
        model = Topic if relation == "topic" else Queue
        names = model.objects.filter(pk=OuterRef(f"{relation}_id")).order_by().values("name")
        rows = rows.annotate(**{f"{relation}_name": Subquery(names)})
    return rows


def attempts_of(message_id: int) -> SafeString:
    """Return the failed attempts of a message as HTML, the newest first."""
    attempts = with_names(Attempt.objects.filter(message_id=message_id), "queue")
    shown_attempts = list(attempts.order_by("-id")[:ATTEMPTS])
    for attempt in shown_attempts:
        attempt.outcome = attempt.outcome.replace("_", " ")
    context = {"attempts": shown_attempts, "limit": ATTEMPTS}
    return render_to_string("admin/messaging/_attempts.html", context)


def preformatted(text: str) -> SafeString:
    """Return text as it stands, as HTML."""
    return render_to_string("admin/messaging/_payload.html", {"text": shown(text)})
