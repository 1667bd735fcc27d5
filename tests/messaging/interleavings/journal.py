"""Journal: what each session was told about what it sent and handled, kept outside the database."""

import threading
from collections import Counter, defaultdict
from itertools import count
from typing import Any, NamedTuple

from django.db import connection

from messaging import Message

# Prepares a schedule and works it off; whatever it does is committed at once.
MAIN = "MainThread"


class Sent(NamedTuple):
    """One message that a session was told is stored, with what identifies it."""

    message_id: int
    duplicate: bool
    name: str
    is_topic: bool
    body: str
    identity: str | None
    # Which queues were subscribed when it was stored.
    subscribers: frozenset[str]


class Span(NamedTuple):
    """One call of a handler, from its begin to the end of its transaction."""

    session: str
    message_id: int
    queue: str
    key: str | None
    began: int
    ended: int
    committed: bool


class Journal:
    """Everything of one schedule, in the order in which it happened."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.undone: list[Sent] = []
        self.spans: list[Span] = []
        self.tokens: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
        self.subscribers: frozenset[str] = frozenset()
        # How many messages operators were told that they have taken away.
        self.taken_away = 0
        self._clock = count()
        self._pending: defaultdict[str, list[Any]] = defaultdict(list)

    def store(self, original: Any, engine: Any, outgoing: Any, using: Any) -> Any:
        """Stand in for the engine's way in, and note what it says."""
        ids = original(engine, outgoing, using)
        identities = outgoing.deduplication_ids or [None] * len(outgoing.bodies)
        for message_id, body, identity in zip(ids or (), outgoing.bodies, identities, strict=True):
            sent = Sent(
                int(message_id), message_id.duplicate, outgoing.name, outgoing.is_topic, body,
                identity, self.subscribers,
            )  # fmt: skip
            self._note(sent)
        return ids

    def called(self, message: Message) -> None:
        """Note that a handler begins; in the sessions only, where others may be at work."""
        if (name := threading.current_thread().name) != MAIN:
            self._pending[name].append((message, next(self._clock)))

    def received(self, messages: list[Message]) -> None:
        """Note under which tokens messages are held."""
        for message in messages:
            assert message.delivery.token is not None
            self.tokens[message.id, message.queue].append(message.delivery.token)

    def subscribed(self, queue: str, is_on: bool) -> None:
        """Note that a queue has, or no longer has, what is published."""
        self._note((queue, is_on))

    def took_away(self, number: int) -> int:
        """Note that an operator was told of so many messages that are gone."""
        self.taken_away += number
        return number

    def ending(self, session: str) -> None:
        """Note that a transaction comes to its end; whoever waits for it does so until then."""
        now = next(self._clock)
        self._pending[session] = [
            (*each, now) if isinstance(each[0], Message) else each
            for each in self._pending[session]
        ]

    def ended(self, session: str, committed: bool) -> None:
        """Note what has become of a transaction and of all that was done in it."""
        for each in self._pending.pop(session, ()):
            if isinstance(each[0], Message):
                message, began, end = each
                key = message.ordering_key
                span = Span(session, message.id, message.queue, key, began, end, committed)
                self.spans.append(span)
            elif committed:
                self._take(each)
            elif isinstance(each, Sent):
                self.undone.append(each)

    def calls(self) -> Counter[tuple[int, str]]:
        """Return how often each message was handled in a transaction that committed."""
        return Counter((span.message_id, span.queue) for span in self.spans if span.committed)

    def _note(self, each: Any) -> None:
        name = threading.current_thread().name
        if name == MAIN or not connection.in_atomic_block:
            self._take(each)
        else:
            self._pending[name].append(each)

    def _take(self, each: Any) -> None:
        if isinstance(each, Sent):
            self.sent.append(each)
        else:
            queue, is_on = each
            self.subscribers = self.subscribers | {queue} if is_on else self.subscribers - {queue}


class Current:
    """The journal of the schedule that runs."""

    def __init__(self) -> None:
        self.journal = Journal()

    def begin(self) -> None:
        """Open an empty one."""
        self.journal = Journal()


current = Current()
