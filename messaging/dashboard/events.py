"""Events: the topic messages as a stream of Server-Sent Events, for browsers and other clients.

Asked for with ``EventSource``, or with any HTTP client that reads lines. Each event's ``id`` is the
position after it, and what a client sends back as ``Last-Event-ID`` to have all that it missed.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_GET

from ..exceptions import InvalidName
from ..feed import BadCursor, Event
from .access import Denied
from .endings import ENDINGS, TAKE_A_BREATH
from .frames import moment
from .hub import running_hub
from .streams import Ended, Given, Stream

# A client that hears nothing for twice as long connects again.
HEARTBEAT = 10.0
# How long a client waits before it connects again, milliseconds.
RETRY = 1_000
# Servers differ in whether they wait for a client that does not read (daphne does not). A stream
# of so many bytes ends, and its client resumes: so much waits for one that is gone, and no more.
MOST_BYTES = 2 * 1024 * 1024
EVENTS_AT_ONCE = 100


@require_GET
async def events(request: HttpRequest) -> HttpResponseBase:
    """Answer with the events of a topic or of a pattern, from now on or from where one was."""
    if not isinstance(request, ASGIRequest):
        return _error("needs_asgi", "Serve this site by ASGI, for example with daphne.", 501)
    if _is_foreign(request):
        return _error("foreign_origin", "Ask from a page of this site.", 403)
    resume = request.headers.get("Last-Event-ID") or request.GET.get("last_event_id") or None
    notice = ""
    try:
        stream = Stream(running_hub(), request.session.session_key, request.GET.get("topic") or "#")
        try:
            await stream.open(resume)
        except BadCursor as error:
            notice = _reset("bad_cursor", str(error))
            await stream.open(None)
    except InvalidName as error:
        return _error("bad_topic", str(error), 400)
    except Denied as denied:
        ending = ENDINGS[denied.code]
        return _error(ending.name, ending.message, ending.status)
    return StreamingHttpResponse(
        _written(stream, notice),
        content_type="text/event-stream",
        # The second is for nginx, which would collect what belongs to the moment.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _is_foreign(request: HttpRequest) -> bool:
    """Tell whether a page of another site asks: a browser says so, and sends the cookies along."""
    origin = request.headers.get("Origin")
    return origin is not None and origin != f"{request.scheme}://{request.get_host()}"


async def _written(stream: Stream, notice: str) -> AsyncIterator[str]:
    try:
        yield f"retry: {RETRY}\nid: {stream.resume}\n\n{notice}"
        size = 0
        while size < MOST_BYTES:
            given = await stream.listen(lambda: EVENTS_AT_ONCE, HEARTBEAT)
            text = _lines(given)
            yield text
            size += len(text)
        yield _end(TAKE_A_BREATH, stream.resume)
    except Ended as ended:
        yield _end(ended.code, ended.resume)
    finally:
        stream.leave()


def _lines(given: Given) -> str:
    parts = []
    if given.is_reset:
        parts.append(_reset("retention", "Events before these may have left the log."))
    parts += [f"id: {position}\n{_data(fields(event))}" for event, position in given.events]
    if not given.events or given.events[-1][1] != given.position:
        # An id without data moves the position on and tells nobody.
        parts.append(f": alive\nid: {given.position}\n\n")
    return "".join(parts)


def fields(event: Event) -> dict[str, Any]:
    """Return an event as its client gets it; the body is JSON in a text, so that numbers survive.

    A large body is None, and a hidden one is left out.
    """
    found = {
        "id": event.id,
        "topic": event.topic,
        "published_at": moment(event).isoformat(timespec="microseconds"),
    }
    return found if event.body == "" else found | {"body": event.body}


def _reset(code: str, message: str) -> str:
    return f"event: reset\n{_data({'code': code, 'message': message})}"


def _end(code: int, resume: str) -> str:
    ending = ENDINGS[code]
    said = {"code": ending.name, "message": ending.message, "resume": resume}
    return f"event: end\n{_data(said)}"


def _data(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value)}\n\n"


def _error(code: str, message: str, status: int) -> JsonResponse:
    headers = {"Cache-Control": "no-store"}
    return JsonResponse({"code": code, "message": message}, status=status, headers=headers)
