"""Begin operations: say which messages are meant, see what that would be, and have it begun.

What was seen is what happens: the dry run's page carries what was asked and the newest ids that
there were in a signed token, which begins one operation, however often it is sent.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from django.contrib import messages
from django.core import signing
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.urls import URLPattern, path
from django.utils.functional import Promise
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import conf, control
from ..control import Filter
from ..control.operating import KINDS, described
from ..exceptions import MessagingError
from ..idempotency import once
from ..models import Operation, Queue
from ..store.depths import counted
from ..store.purging import Ceiling
from .filters import BeginningForm, CancelForm, EditForm, MoveForm, PurgeForm, ReplayForm
from .lists import GuardedAdmin
from .operations import MAX_AGE

SALT = "messaging.admin.beginning"
ONCE = "messaging.admin.beginning"


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """What there was when a dry run was made, as operations take it."""

    ceiling: Ceiling
    snapshot: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """One kind of operation as the admin begins it; ``begin`` takes what was answered."""

    kind: str
    label: str | Promise
    explanation: str | Promise
    form: type[BeginningForm]
    begin: Callable[[dict[str, Any], Filter | None, Moment, dict[str, Any]], Operation]

    @property
    def permission(self) -> str:
        return KINDS[self.kind].permission


def _replay(
    answers: dict[str, Any], wanted: Filter | None, moment: Moment, how: dict[str, Any]
) -> Operation:
    to = answers["to"] or None
    source = answers["source"]
    return control.begin_replay(
        source, since=answers["since"], to=to, wanted=wanted, upto=moment.snapshot, **how
    )


def _move(
    answers: dict[str, Any], wanted: Filter | None, moment: Moment, how: dict[str, Any]
) -> Operation:
    return control.begin_move(answers["queue"], answers["to"], wanted, upto=moment.ceiling, **how)


def _edit(
    answers: dict[str, Any], wanted: Filter | None, moment: Moment, how: dict[str, Any]
) -> Operation:
    patch = answers["patch"]
    return control.begin_edit(answers["queue"], wanted, patch=patch, upto=moment.ceiling, **how)


def _purge(
    answers: dict[str, Any], wanted: Filter | None, moment: Moment, how: dict[str, Any]
) -> Operation:
    return control.begin_purge(answers["queue"], wanted, upto=moment.ceiling, **how)


def _cancel(
    answers: dict[str, Any], wanted: Filter | None, moment: Moment, how: dict[str, Any]
) -> Operation:
    return control.begin_cancel(answers["queue"], wanted, upto=moment.ceiling, **how)


VERBS = {
    verb.kind: verb
    for verb in (
        Verb(
            kind="replay",
            label=gettext_lazy("Replay messages"),
            explanation=gettext_lazy(
                "Messages of the log wait again, each as new: those of the queue, or of one of its "
                "subscriptions."
            ),
            form=ReplayForm,
            begin=_replay,
        ),
        Verb(
            kind="move",
            label=gettext_lazy("Move messages"),
            explanation=gettext_lazy(
                "Messages go to another queue in their order, and count their deliveries anew. "
                "What a worker is handling or somebody holds stays."
            ),
            form=MoveForm,
            begin=_move,
        ),
        Verb(
            kind="edit",
            label=gettext_lazy("Edit messages"),
            explanation=gettext_lazy(
                "Bodies are changed on every queue where the message waits. What it said before is "
                "kept with who edited it."
            ),
            form=EditForm,
            begin=_edit,
        ),
        Verb(
            kind="purge",
            label=gettext_lazy("Purge by filter"),
            explanation=gettext_lazy(
                "Messages are deleted, and nothing brings them back. What a worker is handling or "
                "somebody holds stays."
            ),
            form=PurgeForm,
            begin=_purge,
        ),
        Verb(
            kind="cancel",
            label=gettext_lazy("Cancel scheduled messages"),
            explanation=gettext_lazy(
                "Scheduled messages are never delivered. They stay in the log for its retention."
            ),
            form=CancelForm,
            begin=_cancel,
        ),
    )
}


def beginnings(page: GuardedAdmin, request: HttpRequest, **known: str) -> list[tuple[str, Any]]:
    """Return the addresses and labels of what the user may begin, with fields that are known."""
    if not page.may(request, "view_queue"):
        return []
    query = f"?{urlencode(known)}" if known else ""
    return [
        (f"{page.address('begin', verb.kind, model='operation')}{query}", verb.label)
        for verb in VERBS.values()
        if page.may(request, verb.permission) and set(known) <= set(verb.form.base_fields)
    ]


class BeginningAdmin(GuardedAdmin):
    """Offer a page for each kind of operation that a person describes."""

    change_list_template = "admin/messaging/operations.html"

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.begin_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_begin"
        return [path("begin/<slug:kind>/", view, name=name), *super().get_urls()]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"beginnings": beginnings(self, request), **(extra_context or {})}
        return super().changelist_view(request, context)

    def begin_view(self, request: HttpRequest, kind: str) -> HttpResponse:
        """Ask which messages (GET), show the dry run, or begin what it has shown (POST)."""
        verb = VERBS.get(kind)
        if verb is None:
            raise Http404
        if not self.may(request, verb.permission) or not self.may(request, "view_queue"):
            self.refuse(request, kind)
        if "token" in request.POST:
            return self._begin(request, verb)
        if request.method != "POST":
            return self._form(request, verb, verb.form(initial=request.GET.dict()))
        form = verb.form(request.POST)
        if not form.is_valid():
            return self._form(request, verb, form)
        return self._dry_run(request, verb, form)

    def _form(self, request: HttpRequest, verb: Verb, form: BeginningForm) -> HttpResponse:
        back = self.address("changelist", model="queue")
        if self.may(request, "view_operation"):
            back = self.address("changelist")
        return self.page(request, "begin", verb.label, verb=verb, form=form, back=back)

    def _dry_run(self, request: HttpRequest, verb: Verb, form: BeginningForm) -> HttpResponse:
        moment = Moment(ceiling=control.ceiling(), snapshot=control.snapshot())
        try:
            # What would begin, taken back: only its count and its samples are wanted yet.
            with transaction.atomic(using=conf.DATABASE):
                planned = _begun(request, verb, form, moment)
                meant = described(planned)
                transaction.set_rollback(True, using=conf.DATABASE)
        except MessagingError as error:
            form.add_error(None, str(error))
            return self._form(request, verb, form)
        content = {
            "for": f"{verb.kind} {request.user.pk}",
            "asked": request.POST.urlencode(),
            "upto": moment.ceiling,
            "snapshot": moment.snapshot,
            "once": uuid4().hex,
        }
        samples = planned.options.get("samples", [])
        return self.page(
            request,
            "dry_run",
            verb.label,
            verb=verb,
            meant=meant,
            count=counted(planned.total or 0).rstrip("+") + ("" if planned.is_exact else "+"),
            has_any=bool(planned.total) or not planned.is_exact,
            samples=[" ".join(f"{name} {text}" for name, text in each.items()) for each in samples],
            token=signing.dumps(content, salt=SALT, compress=True),
            back=request.get_full_path(),
        )

    def _begin(self, request: HttpRequest, verb: Verb) -> HttpResponse:
        again = HttpResponseRedirect(self.address("begin", verb.kind))
        try:
            shown = signing.loads(request.POST["token"], salt=SALT, max_age=MAX_AGE)
        except signing.SignatureExpired:
            messages.error(request, _("The dry run is too old. Make another one."))
            return again
        except signing.BadSignature:
            self.refuse(request, verb.kind)
        if shown["for"] != f"{verb.kind} {request.user.pk}":
            self.refuse(request, verb.kind)
        moment = Moment(ceiling=Ceiling(*shown["upto"]), snapshot=shown["snapshot"])
        form = verb.form(QueryDict(shown["asked"]))
        try:
            with once(ONCE, shown["once"], window=MAX_AGE) as is_first:
                if not is_first:
                    messages.warning(request, _("This was begun already."))
                    return again
                if not form.is_valid():
                    messages.error(request, _("This no longer holds. Make another dry run."))
                    return again
                operation = _begun(request, verb, form, moment)
        except MessagingError as error:
            messages.error(request, str(error))
            return again
        queue = Queue.objects.get(name=form.cleaned_data["queue"])
        back = self.address("change", queue.pk, model="queue")
        return self.begun(request, [operation], back)


def _begun(request: HttpRequest, verb: Verb, form: BeginningForm, moment: Moment) -> Operation:
    how = {"by": request.user, "rate": form.cleaned_data["rate"]}
    return verb.begin(form.cleaned_data, form.wanted, moment, how)
