"""Errors: each names the value, the limit and the remedy."""

from collections.abc import Iterable
from datetime import timedelta
from difflib import get_close_matches


class MessagingError(Exception):
    """Base of every error of this package."""


class InvalidMessage(MessagingError, ValueError):
    """A body, a header or an option that cannot be stored.

    ``path`` is the JSON path of the offending value (``$.lines[2].price``), ``index`` its
    position in a batch, or None.
    """

    def __init__(self, reason: str, *, path: str = "$", index: int | None = None) -> None:
        self.reason = reason
        self.path = path
        self.index = index
        place = path if index is None else f"item {index}, {path}"
        super().__init__(f"Invalid message at {place}: {reason}")


class InvalidName(MessagingError, ValueError):
    """A queue, topic or pattern name outside the allowed alphabet."""


class PayloadTooLarge(InvalidMessage):
    """A body or the headers exceed their limit; ``size`` and ``limit`` are bytes of JSON."""

    def __init__(self, size: int, limit: int, *, what: str = "body", index: int | None = None):
        self.size = size
        self.limit = limit
        super().__init__(
            f"The {what} takes at least {size:,} bytes of JSON, the limit is {limit:,}. Store "
            f"large content elsewhere and send a reference.",
            path="$" if what == "body" else "headers",
            index=index,
        )


class UnknownName(MessagingError, ValueError):
    """A queue or topic that nobody declared."""

    kind = "name"

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        self.name = name
        super().__init__(f"Unknown {self.kind} {name!r}. {self._remedy(name, list(known))}")

    def _remedy(self, name: str, known: list[str]) -> str:
        if close := get_close_matches(name, known, n=3, cutoff=0.6):
            return f"Did you mean {' or '.join(repr(match) for match in close)}?"
        if known:
            more = f" and {len(known) - 10:,} more" if len(known) > 10 else ""
            return f"Declared {self.kind}s: {', '.join(sorted(known)[:10])}{more}."
        return (
            f"No {self.kind} is declared yet: declare it in consumers.py and run "
            f"`manage.py sync_messaging`, or add it in the admin."
        )


class UnknownQueue(UnknownName):
    """Nobody declared this queue."""

    kind = "queue"


class UnknownTopic(UnknownName):
    """Nobody declared this topic."""

    kind = "topic"


class DeduplicationConflict(MessagingError, ValueError):
    """A deduplication id came again within its window, with another body."""

    def __init__(self, deduplication_id: str, original: int) -> None:
        self.deduplication_id = deduplication_id
        self.original = original
        super().__init__(
            f"Deduplication id {deduplication_id!r} was used for message {original} with another "
            f"body. Use a new id for a new body, or send the same body again."
        )


class NotSupported(MessagingError):
    """What was asked for does not exist in this combination."""


class OperationRefused(MessagingError):
    """What an operator asked for would lose messages, or has nowhere to put them."""


class Retry(Exception):
    """Raise in a handler: deliver this message again, ``after`` seconds from now.

    Without ``after`` the queue's back-off decides. ``counts=False`` does not use up a delivery.
    Stays outside :class:`MessagingError`, so that a broad ``except`` cannot swallow it.
    """

    def __init__(self, after: float | timedelta | None = None, *, counts: bool = True) -> None:
        if isinstance(after, timedelta):
            after = after.total_seconds()
        if after is not None and not 0 <= after <= 100 * 366 * 86_400:
            raise ValueError(
                f"Retry(after={after!r}): give 0 to 3,162,240,000 seconds (100 years)."
            )
        self.after = after
        self.counts = counts
        super().__init__(after)


class Reject(Exception):
    """Raise in a handler: this message goes to the dead letters at once, with the reason given."""

    def __init__(self, reason: str = "") -> None:
        self.reason = str(reason)
        super().__init__(self.reason)
