"""Outgoing: the messages of one call, and what storing them came to."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

# From this many bodies on, COPY is faster than sending arrays (measured: docs/decisions/).
COPY_FROM = 500
# A message with a key gets its delivery when the transaction commits: the id comes after any known.
NOT_YET_KNOWN = 2**62
# It takes more than one statement: a transaction, or a savepoint, has to be around them.
NEEDS_BLOCK: Literal["needs_block"] = "needs_block"


# Made for every call on the hot path, where a frozen dataclass costs five times as much.
class Outgoing(NamedTuple):
    """Messages of one call: bodies and headers are JSON text; times are seconds from now."""

    name: str
    is_topic: bool
    bodies: list[str]
    headers: str = "{}"
    priority: int = 0
    ordering_key: str | None = None
    fairness_key: str | None = None
    # Due in so many seconds, or at an aware datetime; None is ready at once.
    delay: float | None = None
    deliver_at: Any = None
    expires_in: float | None = None
    # One for each body.
    deduplication_ids: Sequence[str] | None = None
    # The id that the sender made, as text.
    message_id: str | None = None
    correlation_id: str | None = None
    causation_id: int | None = None
    reply_to: str | None = None
    # Who published it and where.
    source: str | None = None
    # The version of the topic's schema that the bodies were found to fulfil.
    schema_id: int | None = None
    # From a call with many bodies, whose errors say which one is wrong.
    is_batch: bool = False

    @property
    def is_plain(self) -> bool:
        """One message, ready at once, with nothing to be looked up or kept beside it."""
        return (
            len(self.bodies) == 1
            and self.delay is None
            and self.deliver_at is None
            and self.ordering_key is None
            and self.fairness_key is None
            and self.deduplication_ids is None
            and self.message_id is None
            and self.expires_in is None
            and self.reply_to is None
        )

    @property
    def is_later(self) -> bool:
        return self.delay is not None or self.deliver_at is not None

    @property
    def has_key(self) -> bool:
        return self.ordering_key is not None or self.fairness_key is not None


class Stored(NamedTuple):
    """What a call stored: message ids in order, and (queue, first delivery, count) rows.

    The first delivery is None where all are due later. ``duplicates`` are the positions of ids that
    were stored before.
    """

    ids: list[int]
    placed: list[tuple[int, int | None, int]]
    duplicates: frozenset[int] = frozenset()


# None: there is no such queue or topic.
Published = Stored | Literal["needs_block"] | None


class Told(NamedTuple):
    """What a statement says: whether it found the name, what was in its way, what it stored."""

    target: int | None = None
    obstacle: str | None = None
    is_limited: bool | None = None
    # In the order of the bodies; None for those that were stored before.
    ids: Any = None
    placed: Any = None
