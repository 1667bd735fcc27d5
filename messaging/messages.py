"""Values: a message, its id, and what became of a delivery."""

import datetime
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from asgiref.sync import sync_to_async

from .exceptions import NotSupported


class MessageId(int):
    """The id of a stored message: an int that also says whether the call was a duplicate."""

    duplicate: bool = False

    @classmethod
    def of_duplicate(cls, original: int) -> "MessageId":
        """Return the original's id, marked as the answer to a duplicate."""
        message_id = cls(original)
        message_id.duplicate = True
        return message_id


def new_message_id() -> uuid.UUID:
    """Make an id for a message that may have to be sent again (RFC 9562: UUID version 7)."""
    milliseconds = time.time_ns() // 1_000_000
    number = milliseconds << 80 | secrets.randbits(80)
    # Version and variant have their fixed places among the random bits.
    number = number & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return uuid.UUID(int=number)


# Neither frozen nor by keyword: each would cost as much as all the rest of delivering it.
@dataclass(slots=True, eq=False)
class Message:
    """One delivery of a message, as a handler sees it.

    ``attempt`` counts the deliveries of this message on this queue, from 1. ``topic`` is None for
    a message sent straight to its queue. ``published_at`` is the database's clock. ``causation_id``
    is the id of the message whose handler sent this one.
    """

    id: int
    queue: str
    topic: str | None
    body: Any
    headers: Mapping[str, Any]
    priority: int
    attempt: int
    ordering_key: str | None
    published_at: datetime.datetime
    # Which row this delivery is: what settling it needs, and handling it does not.
    delivery: "Delivered"
    fairness_key: str | None = None
    correlation_id: str | None = None
    causation_id: int | None = None
    reply_to: str | None = None
    expires_at: datetime.datetime | None = None
    # When it expires on this process's monotonic clock, which cannot jump as another's can.
    deadline: float | None = None
    # What holds it for a time; None in a handler that shares the transaction of the claim.
    lease: "Held | None" = None
    # How to reply; None before anybody handles it.
    answer: "Answering | None" = None

    def reply(self, body: Any) -> None:
        """Reply to it, in the transaction of its handler, or of whoever received it.

        To the queue that ``reply_to`` names, with the message's correlation id or else its id, or
        to whoever waits in ``request()``, of which the first reply counts. What a handler returns
        is the reply when it has not replied itself. Raises NotSupported without ``reply_to``.
        """
        if self.reply_to is None:
            raise NotSupported(
                f"Message {self.id} has no reply_to and nobody waits for a reply: send with "
                f"reply_to=, or ask with request()."
            )
        if self.answer is None:
            raise NotSupported(
                f"Message {self.id} is in nobody's hands and cannot be replied to: reply in its "
                f"handler, or where receive() has returned it."
            )
        self.answer.give(body)

    async def areply(self, body: Any) -> None:
        """Reply from async code."""
        await sync_to_async(self.reply)(body)

    def acknowledge(self) -> None:
        """Say that it is handled, in the caller's transaction; raises LeaseLost when too late.

        ``with transaction.atomic(): effects; message.acknowledge()`` is exactly-once: either both
        commit or neither.
        """
        self._held("acknowledged").acknowledge()

    def release(self, after: float | datetime.timedelta | None = None) -> None:
        """Give it back, now or ``after`` seconds from now; it does not count as a delivery."""
        self._held("released").release(after)

    def reject(self, reason: str = "") -> None:
        """Make it a dead letter at once, with the reason given."""
        self._held("rejected").reject(reason)

    def extend(self, seconds: float | datetime.timedelta) -> None:
        """Hold it until ``seconds`` from now, more than 0 and at most 43,200 (12 hours)."""
        self._held("extended").extend(seconds)

    async def aacknowledge(self) -> None:
        """Acknowledge from async code, in a transaction of its own."""
        await sync_to_async(self.acknowledge)()

    async def arelease(self, after: float | datetime.timedelta | None = None) -> None:
        """Release from async code."""
        await sync_to_async(self.release)(after)

    async def areject(self, reason: str = "") -> None:
        """Reject from async code."""
        await sync_to_async(self.reject)(reason)

    async def aextend(self, seconds: float | datetime.timedelta) -> None:
        """Extend from async code."""
        await sync_to_async(self.extend)(seconds)

    def _held(self, what: str) -> "Held":
        if self.lease is None:
            raise NotSupported(
                f"Message {self.id} is not held under a lease and cannot be {what}: return from "
                f"the handler to acknowledge it, raise Retry or Reject, or declare the consumer "
                f"with lease=seconds."
            )
        return self.lease


class Answering(Protocol):
    """What knows how to reply to a message."""

    def give(self, body: Any) -> None: ...


class Held(Protocol):
    """A message as somebody holds it under a lease."""

    def acknowledge(self) -> None: ...
    def release(self, after: float | datetime.timedelta | None) -> None: ...
    def reject(self, reason: str) -> None: ...
    def extend(self, seconds: float | datetime.timedelta) -> None: ...


# Made for every message on the hot path, where a tuple costs a third of a frozen dataclass.
class Delivered(NamedTuple):
    """The row that a claim took: enough to put it back as it was.

    Of a message with a key, ``id`` is that of the lane's token, and ``entry_id`` is its place in
    the lane. ``token`` fences a delivery that is held under a lease.
    """

    id: int
    queue_id: int
    priority: int
    message_id: int
    attempt: int
    subscription_id: int | None
    expires_at: datetime.datetime | None = None
    lane_id: int | None = None
    entry_id: int | None = None
    token: int | None = None


class Settlement(StrEnum):
    """What happens to a delivery after its handler."""

    ACKNOWLEDGED = "acknowledged"
    RETRY = "retry"
    DEAD = "dead"
    # Past its time and not kept.
    EXPIRED = "expired"


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why a delivery failed, as texts that can be stored."""

    error: str
    description: str
    traceback: str
    fingerprint: str


class Outcome(NamedTuple):
    """What one delivery came to; ``duration`` in seconds.

    ``after`` is the wait before the next delivery in seconds, ``counts`` whether it uses up one.
    """

    delivered: Delivered
    settlement: Settlement
    duration: float = 0.0
    message: Message | None = None
    reason: str = ""
    after: float = 0.0
    counts: bool = True
    failure: Failure | None = None
    error: BaseException | None = None
