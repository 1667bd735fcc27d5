"""Views: the overview, its figures for pages without a socket, and its buttons."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Concatenate, ParamSpec

from django.contrib.auth.decorators import login_required
from django.db import DatabaseError, InterfaceError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from .. import conf, control, feed, metrics
from ..exceptions import InvalidName, UnknownQueue
from ..feed import BadCursor, News
from .access import MAY_PAUSE, Viewer, viewer_of
from .fragments import Figures, outdated, read_figures
from .frames import (
    EVENTS,
    BadFrame,
    event_fields,
    figures_frame,
    moment,
    news_frame,
    parse_cursor,
    parse_topic,
)

P = ParamSpec("P")

# What the page shows before anything new comes.
FIRST_EVENTS = 30


def for_operators(
    view: Callable[Concatenate[HttpRequest, Viewer, P], HttpResponse],
) -> Callable[Concatenate[HttpRequest, P], HttpResponse]:
    """Let a view be seen by users with the permission for the pages, after a login."""

    def checked(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        viewer = viewer_of(request.user)
        if viewer is None:
            return refused(request, conf.DASHBOARD_PERMISSION)
        return view(request, viewer, *args, **kwargs)

    update_wrapper(checked, view)
    return never_cache(login_required(checked))


@require_safe
@for_operators
def overview(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Show the figures of every queue, what needs attention, and the newest events."""
    topic = _topic(request, viewer)
    figures, news = _figures(), _latest(viewer, topic, FIRST_EVENTS)
    events = reversed(news.events) if news else ()
    context = {
        "viewer": viewer,
        "page": figures.page,
        "is_outdated": figures.is_outdated,
        "topic": topic,
        "cursor": news.cursor if news else "",
        "events": [{**event_fields(each, viewer), "time": moment(each)} for each in events],
    }
    return render(request, "messaging/overview.html", context)


@require_safe
@for_operators
def live(request: HttpRequest, viewer: Viewer) -> HttpResponse:
    """Answer with the frame that a socket would send: the way for pages that have none."""
    topic = _topic(request, viewer)
    topics = viewer.rights.topics_of(topic)
    try:
        cursor = parse_cursor(request.GET.get("cursor") or None)
        with metrics.limited():
            news = feed.since(cursor, topics=topics, limit=EVENTS) if cursor else None
    except (BadCursor, BadFrame):
        return JsonResponse({"type": "error", "code": "bad_cursor"}, status=400)
    except (DatabaseError, InterfaceError):
        return JsonResponse({"type": "error", "code": "unavailable"}, status=503)
    news = news or _latest(viewer, topic, EVENTS)
    figures = _figures()
    frame = {
        "type": "frame",
        "current": not figures.is_outdated,
        "figures": figures_frame(figures.fragments(viewer), figures.rows),
    }
    if news is not None:
        frame["news"] = news_frame(news, viewer)
    return JsonResponse(frame)


@require_POST
@for_operators
def pause(request: HttpRequest, viewer: Viewer, name: str) -> HttpResponse:
    """Pause a queue."""
    return _control(request, viewer, control.pause, name)


@require_POST
@for_operators
def resume(request: HttpRequest, viewer: Viewer, name: str) -> HttpResponse:
    """Resume a queue."""
    return _control(request, viewer, control.resume, name)


def _control(
    request: HttpRequest, viewer: Viewer, verb: Callable[..., bool], name: str
) -> HttpResponse:
    if not viewer.may_pause:
        return refused(request, MAY_PAUSE)
    try:
        verb(name, by=request.user)
    except (InvalidName, UnknownQueue) as error:
        raise Http404("There is no such queue.") from error
    return redirect("messaging:overview")


def refused(request: HttpRequest, permission: str) -> HttpResponse:
    """Say which permission a user lacks."""
    return render(request, "messaging/refused.html", {"permission": permission}, status=403)


def _topic(request: HttpRequest, viewer: Viewer) -> str | None:
    """Return the topic that the address names; None for all."""
    try:
        topic = parse_topic(request.GET.get("topic") or None)
    except BadFrame as error:
        raise Http404("There is no such topic.") from error
    if topic is not None and not (viewer.rights.allows(topic) and feed.topic_exists(topic)):
        raise Http404("There is no such topic.")
    return topic


def _figures() -> Figures:
    try:
        return read_figures()
    except (DatabaseError, InterfaceError):
        return outdated(None)


def _latest(viewer: Viewer, topic: str | None, limit: int) -> News | None:
    try:
        with metrics.limited():
            return feed.latest(topics=viewer.rights.topics_of(topic), limit=limit)
    except (DatabaseError, InterfaceError):
        return None
