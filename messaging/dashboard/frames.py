"""Frames: what a browser and the live page's server say to each other, as JSON."""

import datetime
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..exceptions import InvalidName
from ..feed import BadCursor, Cursor, Event, News
from ..names import check_topic_name
from .access import Viewer

MAX_FRAME = 20_000
# What the ticker can show, and what is worth showing at once while it moves; what does not fit is
# counted.
EVENTS = 100
MOVING_EVENTS = 40
# Topics are told apart by so many colours.
TONES = 6


class BadFrame(ValueError):
    """A frame that means nothing; ``code`` tells the browser what is wrong with it."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resume:
    """Send what is new since the cursor, of one topic or of all; without a cursor, the newest."""

    cursor: Cursor | None
    topic: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """The browser has shown all frames up to this number."""

    number: int


def load(text: str | None) -> Any:
    """Return the JSON of a frame, or raise BadFrame."""
    if text is None or len(text) > MAX_FRAME:
        raise BadFrame("bad_frame")
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise BadFrame("bad_frame") from error


def parse(text: str | None) -> Resume | Shown:
    """Return what a browser's frame asks for, or raise BadFrame."""
    match load(text):
        case {"type": "shown", "number": int(number), **rest} if not rest and number > 0:
            return Shown(number=number)
        case {"type": "resume", "cursor": cursor, "topic": topic, **rest} if not rest:
            return Resume(cursor=parse_cursor(cursor), topic=parse_topic(topic))
        case {"type": "shown" | "resume"}:
            raise BadFrame("bad_frame")
        case {"type": str()}:
            raise BadFrame("unknown_type")
    raise BadFrame("bad_frame")


def parse_cursor(text: object) -> Cursor | None:
    """Return a cursor that a browser sends back; None stands for none."""
    if text is None:
        return None
    try:
        return Cursor.parse(text)
    except BadCursor as error:
        raise BadFrame("bad_cursor") from error


def parse_topic(text: object) -> str | None:
    """Return a topic's name; None stands for all. Whether it exists is not known yet."""
    if text is None:
        return None
    try:
        return check_topic_name(text)
    except InvalidName as error:
        raise BadFrame("not_found") from error


def news_frame(news: News, viewer: Viewer) -> dict[str, Any]:
    """Return the events of a frame, the newest that fit, and how many did not."""
    allowed = [event for event in news.events if viewer.rights.allows(event.topic)]
    events = allowed[-EVENTS:]
    skipped = news.skipped + len(allowed) - len(events)
    return {
        "from": str(news.seen) if news.seen else None,
        "cursor": str(news.cursor),
        "reset": news.is_reset,
        "skipped": f"{skipped:,}" + ("" if news.skipped_is_exact else " or more")
        if skipped
        else "",
        "events": [event_fields(event, viewer) for event in events],
    }


def event_fields(event: Event, viewer: Viewer) -> dict[str, Any]:
    """Return an event as its row in the ticker shows it."""
    return {
        "topic": event.topic,
        "tone": zlib.crc32(event.topic.encode()) % TONES,
        "at": moment(event).isoformat(timespec="milliseconds"),
        "body": shown_body(event, viewer),
    }


def moment(event: Event) -> datetime.datetime:
    """Return when an event was published."""
    return datetime.datetime.fromtimestamp(event.at, datetime.UTC)


def shown_body(event: Event, viewer: Viewer) -> str:
    """Return the beginning of a body for whoever may see it."""
    if not viewer.rights.shows(event.topic):
        return ""
    return "… (large)" if event.body is None else event.body


def figures_frame(
    fragments: Mapping[str, str],
    rows: Sequence[str] | None,
    sent: Mapping[str, str] = MappingProxyType({}),
    sent_rows: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return what differs from what was sent: fragments, and the rows in their order."""
    changed = {name: html for name, html in fragments.items() if sent.get(name) != html}
    frame: dict[str, Any] = {}
    if changed or rows != sent_rows:
        frame = {"fragments": changed, "rows": rows if rows != sent_rows else None}
    return frame


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found
