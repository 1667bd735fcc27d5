"""Streams: one client's way through the events of a topic pattern, each of them once.

Little waits for a client: what does not fit stays in the log, and the client's position says where.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from .. import following
from ..feed import BadCursor, Event
from ..following import Position, Stretch
from ..names import check_pattern
from .access import NOT_ALLOWED, NOT_FOUND, SIGNED_OUT, Denied, Rights, rights_of_session
from .endings import STREAMS_A_USER, TOO_MANY, TOO_SLOW, UNAVAILABLE
from .hub import Hub

logger = logging.getLogger("messaging")

# What may wait here; more is left in the log. A client that has had no room for so long meanwhile
# is too slow.
MOST_WAITING = 256
MOST_WAITING_BYTES = 1024 * 1024
PATIENCE = 5.0
# The session, the user and the permissions are looked up again after 3 seconds; with many streams
# later, so that a process does it fifty times a second at most.
CHECK_EVERY = 3.0
CHECKS_A_SECOND = 50
LONGEST_UNCHECKED = 30.0
RETRY_AFTER = 1.0


class Ended(Exception):
    """A stream that is over; ``code`` tells why, ``resume`` is the position to go on from."""

    def __init__(self, code: int, resume: str) -> None:
        self.code = code
        self.resume = resume
        super().__init__(code)


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """Events for a client, each with the position after it, and where the client is then.

    A body is None when it is large, and "" when it is hidden. ``is_reset`` says that retention may
    have taken events before these.
    """

    events: tuple[tuple[Event, str], ...]
    position: str
    is_reset: bool = False


class Stream:
    """What one client has had, what waits for it, and whether it may still have it."""

    _rights: Rights
    # Where the client is, and where the events end that wait for it.
    _position: Position
    _tail: Position

    def __init__(self, hub: Hub, session_key: str | None, pattern: str) -> None:
        self.pattern = check_pattern(pattern)
        self.user = ""
        self._hub = hub
        self._session_key = session_key
        self._waiting: deque[tuple[Event, Position]] = deque()
        self._bytes = 0
        self._is_behind = True
        self._is_reset = self._has_told_reset = False
        # Events, and their bytes, that came while this stream was behind.
        self._missed = self._missed_bytes = 0
        self._had_room_at = 0.0
        self._end: int | None = None
        self._checked_at = self._check_at = 0.0
        self._is_checked = False
        self._changed = asyncio.Event()

    @property
    def resume(self) -> str:
        """Where the client is, as it is written."""
        return self._position.write(self.pattern)

    @property
    def waiting(self) -> int:
        """How many events are known to wait for the client."""
        return len(self._waiting) + self._missed

    async def open(self, resume: str | None) -> None:
        """Begin where the client left off, or now, and have the hub's events from now on.

        Raises Denied, the same for a topic that there is not and one that is forbidden, and
        BadCursor for a position that no reader of this pattern was given.
        """
        position = Position.parse(resume, self.pattern) if resume is not None else None
        try:
            self._note(await self._look_up())
        except Denied as denied:
            raise Denied(NOT_FOUND if denied.code == NOT_ALLOWED else denied.code) from None
        here = await self._hub.call(following.here)
        if position and not position.is_seen_by(here):
            raise BadCursor("it lies ahead of the database")
        self.user = self._rights.user
        if self._hub.listeners_of(self.user) >= STREAMS_A_USER:
            raise Denied(TOO_MANY)
        self._position = self._tail = position or here
        self._hub.join(self)

    def leave(self) -> None:
        """Take nothing more."""
        self._hub.leave(self)

    def wake(self) -> None:
        """Have :meth:`listen` look again how much room its client has."""
        self._changed.set()

    # From the hub

    def offer(self, stretch: Stretch) -> None:
        """Take the events that the client has not had, or note that others come before."""
        mine = self._tail.seen.snapshot
        if not self._is_behind and mine.includes(stretch.end.seen.snapshot):
            return
        joins_on = mine.includes(stretch.start.seen.snapshot) and not stretch.is_reset
        new = self._new(stretch)
        size = sum(map(_size, new))
        if not self._is_behind and joins_on and self._fits(len(new), size):
            self._let_wait(stretch.end, new)
        else:
            self._is_behind = True
            self._missed += len(new)
            self._missed_bytes += size
        self._changed.set()

    def _new(self, stretch: Stretch) -> list[Event]:
        mine = self._tail.seen.snapshot
        return [e for e in stretch.events if self._is_mine(e) and not mine.sees(e.transaction)]

    def _fits(self, events: int, size: int) -> bool:
        """Tell whether so much more may wait, beside what waits here and what is in the log."""
        bytes_waiting = self._bytes + self._missed_bytes + size
        return self.waiting + events <= MOST_WAITING and bytes_waiting <= MOST_WAITING_BYTES

    def _let_wait(self, end: Position, events: Sequence[Event]) -> None:
        own = Stretch(start=self._tail, end=end, events=tuple(events))
        for index, event in enumerate(own.events):
            self._waiting.append((event, own.position_after(index)))
            self._bytes += _size(event)
        self._tail = end

    def _is_mine(self, event: Event) -> bool:
        # What is not known is looked up before it is given out.
        return self._rights.matches(event.topic) and (
            self._rights.allows(event.topic) or not self._rights.knows(event.topic)
        )

    # To the client

    async def listen(self, room: Callable[[], int], quiet: float) -> Given:
        """Return the next events, as many as there is room for; none after the quiet time.

        Raises Ended, after which there is nothing more.
        """
        deadline = time.monotonic() + quiet
        while True:
            self._changed.clear()
            if time.monotonic() >= self._check_at:
                await self._check()
            self._judge(room())
            if self._is_checked and self._end is None and (given := await self._next(room())):
                return given
            if self._end is not None:
                raise Ended(self._end, self.resume)
            now = time.monotonic()
            if now >= deadline:
                return Given(events=(), position=self.resume)
            with suppress(TimeoutError):
                # Short enough to judge a client that has no room.
                pause = max(0.0, min(deadline - now, self._check_at - now, PATIENCE / 2))
                await asyncio.wait_for(self._changed.wait(), pause)

    def _judge(self, room: int) -> None:
        now = time.monotonic()
        if room or self._fits(1, 0):
            self._had_room_at = now
        elif now - self._had_room_at > PATIENCE:
            self._end = self._end or TOO_SLOW

    async def _next(self, room: int) -> Given | None:
        """Return what waits and fits, or None; nothing that is not yet known to be allowed."""
        if not room:
            return None
        if self._is_behind and not self._waiting:
            await self._catch_up()
        if any(not self._rights.knows(event.topic) for event, _ in self._waiting):
            await self._check()
            if self._end is not None or not self._is_checked:
                return None
        chosen = [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        self._bytes -= sum(_size(event) for event, _ in chosen)
        if chosen:
            self._position = chosen[-1][1]
        if not self._waiting:
            self._position = self._tail
        is_reset, self._is_reset = self._is_reset, False
        events = tuple(
            (self._shown(event), position.write(self.pattern))
            for event, position in chosen
            if self._rights.allows(event.topic)
        )
        if not events and not is_reset:
            return None
        return Given(events=events, position=self.resume, is_reset=is_reset)

    def _shown(self, event: Event) -> Event:
        return event if self._rights.shows(event.topic) else replace(event, body="")

    async def _catch_up(self) -> None:
        """Read on from where the client is, a page at a time."""
        try:
            found = await self._hub.call(following.stretch, self._tail, pattern=self.pattern)
        except Exception as error:
            logger.warning("Events not read error=%s", type(error).__name__)
            await asyncio.sleep(RETRY_AFTER)
            self._changed.set()
            return
        # Said once for all the pages of a way.
        self._is_reset = found.is_reset and not self._has_told_reset
        self._has_told_reset = found.is_reset and not found.is_complete
        self._let_wait(found.end, self._new(found))
        self._is_behind = not found.is_complete
        self._missed = self._missed_bytes = 0
        self._changed.set()

    # Still allowed?

    async def _look_up(self) -> Rights:
        return await self._hub.call(rights_of_session, self._session_key, self.pattern)

    def _note(self, rights: Rights) -> None:
        self._rights = rights
        self._is_checked = True
        self._checked_at = time.monotonic()
        pause = max(CHECK_EVERY, self._hub.listeners / CHECKS_A_SECOND)
        self._check_at = self._checked_at + min(pause, LONGEST_UNCHECKED)

    async def _check(self) -> None:
        """Look up again what the client may have; until that is known, it gets nothing."""
        try:
            found = await self._look_up()
        except Denied as denied:
            self._end = denied.code
        except Exception as error:
            logger.warning("Session not looked up error=%s", type(error).__name__)
            self._is_checked = False
            self._check_at = time.monotonic() + RETRY_AFTER
            if time.monotonic() - self._checked_at > LONGEST_UNCHECKED:
                self._end = UNAVAILABLE
        else:
            if found.user != self.user:
                self._end = SIGNED_OUT
            elif found.only != self._rights.only:
                self._end = NOT_FOUND
            self._note(found)


def _size(event: Event) -> int:
    return len(event.body or "")
