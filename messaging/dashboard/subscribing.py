"""Subscribing: what a client of the event socket says, as JSON, and the window that it opens.

An event is acknowledged by its position, which only who has read it knows.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ..exceptions import InvalidName
from ..names import check_pattern
from .frames import BadFrame, load

MOST_CREDIT = 256
MOST_BYTES = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Subscribe:
    """Send the events of a topic or a pattern behind a position; without one, from now on."""

    topic: str
    resume: str | None
    credit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Acknowledge:
    """All events up to this position have been taken."""

    position: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Credit:
    """Let at most so many events be on their way."""

    credit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pong:
    """The client is there."""


def parse(text: str | None) -> Subscribe | Acknowledge | Credit | Pong:
    """Return what a client's frame asks for, or raise BadFrame."""
    match load(text):
        case {"type": "subscribe", "topic": topic, "resume": resume, "credit": credit, **rest} if (
            not rest
        ):
            if resume is not None and not isinstance(resume, str):
                raise BadFrame("bad_cursor")
            return Subscribe(topic=_pattern(topic), resume=resume, credit=_credit(credit))
        case {"type": "ack", "position": str(position), **rest} if not rest:
            return Acknowledge(position=position)
        case {"type": "credit", "credit": credit, **rest} if not rest:
            return Credit(credit=_credit(credit))
        case {"type": "pong", **rest} if not rest:
            return Pong()
        case {"type": "subscribe" | "ack" | "credit" | "pong"}:
            raise BadFrame("bad_frame")
        case {"type": str()}:
            raise BadFrame("unknown_type")
    raise BadFrame("bad_frame")


def _pattern(topic: object) -> str:
    try:
        return check_pattern(topic)
    except InvalidName as error:
        raise BadFrame("not_found") from error


def _credit(credit: Any) -> int:
    if type(credit) is not int or not 0 <= credit <= MOST_CREDIT:
        raise BadFrame("bad_credit")
    return credit


@dataclass(kw_only=True, slots=True)
class Window:
    """The events that are on their way to a client: at most its credit, and a mebibyte."""

    credit: int
    _sent: deque[tuple[str, int]] = field(default_factory=deque)
    _bytes: int = 0

    @property
    def room(self) -> int:
        """How many events may be sent."""
        return max(0, self.credit - len(self._sent)) if self._bytes < MOST_BYTES else 0

    def send(self, position: str, size: int) -> None:
        """Note that an event is on its way."""
        self._sent.append((position, size))
        self._bytes += size

    def acknowledge(self, position: str) -> None:
        """Note that an event has been taken, and all before it; raise BadFrame for another."""
        if not any(sent == position for sent, _ in self._sent):
            raise BadFrame("bad_ack")
        while self._sent:
            sent, size = self._sent.popleft()
            self._bytes -= size
            if sent == position:
                return
