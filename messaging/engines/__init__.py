"""Engines: the contract of where messages wait."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from ..messages import Delivered, MessageId, Outcome
from ..policies import QueuePolicy
from ..store.deliveries import Claimed
from ..store.publishing import Outgoing

__all__ = ["Claimed", "Delivered", "Engine", "Outcome", "Outgoing", "Source", "engine"]


class Source(Protocol):
    """One queue as one worker thread reads it."""

    policy: QueuePolicy
    # Whether the last claim found nothing, but something may come with the next one at once.
    tidied: bool

    def claim(
        self, limit: int, *, thorough: bool = False, one_a_lane: bool = False
    ) -> list[Claimed]:
        """Take up to ``limit`` next deliveries, highest priority first, in this transaction.

        ``thorough`` looks everywhere: nothing claimed then means that nothing is ready, unless
        ``tidied`` says to claim again, in a new transaction.
        ``one_a_lane`` takes one message of each ordering key.
        """

    def settle(
        self,
        outcomes: Sequence[Outcome],
        unhandled: Sequence[Delivered],
        worker: str,
        *,
        waits: Mapping[int, float] = ...,
        avoided: Collection[int] = ...,
        goes_on: bool = ...,
    ) -> None:
        """Store what the claimed deliveries come to, in this transaction.

        All outcomes, also those acknowledged; ``unhandled`` are given back as they were, uncounted.
        ``waits`` are the seconds before the next delivery of a key, by the id of its lane.
        ``avoided``: the ids of deliveries that the next claims need not look for.
        ``goes_on``: this transaction may send more, so that no lock of a lane can be taken yet.
        """

    def keep_receipt(self, outcomes: Sequence[Outcome], worker: str) -> None:
        """Note in this transaction what was acknowledged or has expired, for the timeline."""

    def notice(self, priority: int, first: int) -> None:
        """Learn that deliveries from id ``first`` on have arrived."""

    def rewind(self) -> None:
        """Forget the position, after a rollback put deliveries back behind it."""


class Engine(Protocol):
    """Where messages wait."""

    def store(self, outgoing: Outgoing, using: str | None) -> list[MessageId] | None:
        """Store messages in the caller's transaction; None when the name is unknown."""

    def source(self, policy: QueuePolicy, using: str | None) -> Source:
        """Return a reader of one queue."""

    def take_lost(self, delivered: Delivered, using: str | None) -> tuple[Delivered | None, bool]:
        """Take a delivery whose transaction was lost; also say whether somebody holds it now."""


def engine() -> Engine:
    """Return the engine: PostgreSQL, in the database of the caller."""
    global _engine
    if _engine is None:
        # Not before it is used: it reaches for Django's database connections.
        from .postgresql import ENGINE

        _engine = ENGINE
    return _engine


_engine: Engine | None = None
