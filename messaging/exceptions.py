"""Errors: each names the value, the limit and the remedy."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from difflib import get_close_matches

from django.db import OperationalError


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


class InvalidOption(MessagingError, ValueError):
    """An option outside its range, such as a lease of a day."""

    def __init__(self, option: str, value: object, remedy: str) -> None:
        self.option = option
        shown = ascii(value)
        super().__init__(f"{option}={shown[:80]}: {remedy}.")


class InvalidURL(MessagingError, ValueError):
    """An address to which no webhook may be sent."""

    def __init__(self, url: object, remedy: str) -> None:
        self.url = url
        super().__init__(f"url={ascii(url)[:80]}: {remedy}.")


class InvalidSecret(MessagingError, ValueError):
    """An entry of `MESSAGING["WEBHOOK_SECRETS"]` that cannot sign; its value is never shown."""

    def __init__(self, name: str, remedy: str) -> None:
        self.name = name
        super().__init__(f"MESSAGING['WEBHOOK_SECRETS'][{name!r}]: {remedy}.")


class InvalidFilter(MessagingError, ValueError):
    """A filter that no message could be held against; ``path`` is where the fault is.

    Such as ``$.customer.country[0].numeric``.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"Invalid filter at {path}: {reason}")


class InvalidDefinitions(MessagingError, ValueError):
    """A document of definitions that cannot be imported; ``place`` is a line or a field.

    Nothing was imported.
    """

    def __init__(self, place: str, reason: str) -> None:
        self.place = place
        super().__init__(f"{place}: {reason.rstrip('.')}. Nothing was imported.")


class InvalidSchema(MessagingError, ValueError):
    """A document that is no JSON Schema, or asks for what is not supported.

    ``path`` is the JSON path in the document (``$.properties.price``).
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"Invalid schema at {path}: {reason.rstrip('.')}.")


class IncompatibleSchema(InvalidSchema):
    """A new version of a schema that breaks what its topic promises of new versions."""


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


class UnknownSchedule(UnknownName):
    """Nobody declared this schedule."""

    kind = "schedule"


class UnknownWebhook(UnknownName):
    """There is no webhook of this name."""

    kind = "webhook"


class DeduplicationConflict(MessagingError, ValueError):
    """A deduplication id or message id came again within its window, with another body."""

    def __init__(self, deduplication_id: str, original: int) -> None:
        self.deduplication_id = deduplication_id
        self.original = original
        super().__init__(
            f"Deduplication id {deduplication_id!r} was used for message {original} with another "
            f"body or destination. Use a new id for a new body, or send the same body again."
        )


class QueueFull(MessagingError):
    """A queue holds as many messages as it may, and its overflow policy is "reject".

    Nothing was stored, and the caller's transaction is intact.
    """

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        self.limit = limit
        super().__init__(
            f"Queue {name!r} is full: {limit:,} messages wait, which is its max length. Send again "
            f"when workers have caught up, or raise the max length."
        )


class QueueDisabled(MessagingError):
    """An operator has stopped a queue from accepting messages; nothing was stored."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(
            f"Queue {name!r} is disabled and accepts no messages. Send to another queue, or have "
            f"it enabled (messaging.control.enable, or the admin)."
        )


# The word that other systems use.
QueueArchived = QueueDisabled


class LeaseLost(MessagingError):
    """A delivery is not held any more: settled before, expired, or taken by somebody else.

    Nothing was changed. Raised inside a transaction, it rolls the effects back.
    """

    def __init__(self, message_id: int, what: str = "settled") -> None:
        self.message_id = message_id
        super().__init__(
            f"Message {message_id} cannot be {what}: its lease is over, because it was settled "
            f"before, or not extended in time. Roll back what was done for it."
        )


class PublishUncertain(MessagingError, OperationalError):
    """The connection was lost while a commit was under way: it may have happened or not.

    ``ids`` are the message ids in question, as far as they are known: ask ``confirm(ids)`` on a new
    connection, or send again with the same ``message_id``, which stores nothing twice.
    """

    def __init__(self, ids: Sequence[object]) -> None:
        self.ids = list(ids)
        shown = ", ".join(map(str, self.ids[:5])) + (", ..." if len(self.ids) > 5 else "")
        if self.ids:
            remedy = "Ask confirm(ids), or send again with the same message_id."
        else:
            remedy = (
                "Their ids are not known either: send with message_id=new_message_id(), and "
                "sending again with the same one stores nothing twice."
            )
        super().__init__(
            f"The connection was lost during COMMIT; whether the messages {shown or 'sent'} are "
            f"stored is not known. {remedy}"
        )


class EngineUnavailable(MessagingError, OperationalError):
    """The place where messages wait cannot be reached; nothing was stored."""


class NoConsumer(MessagingError):
    """Nobody consumes the queue that was asked; nothing was stored."""


class SubscriptionEnded(MessagingError):
    """An ephemeral subscription is over, and messages may have passed it by."""

    def __init__(self, pattern: str, idle_timeout: float, *, left: bool = False) -> None:
        self.pattern = pattern
        why = (
            "its block was left"
            if left
            else f"no sign of life of it reached the database for {idle_timeout:g} seconds, or an "
            f"operator deleted its queue"
        )
        super().__init__(
            f"The subscription to {pattern!r} is over: {why}. Subscribe again, or subscribe a "
            f"declared queue, which waits for its consumer (messaging.subscribe)."
        )


class RequestFailed(MessagingError):
    """A request became a dead letter, and nobody will reply to it; ``reason`` says why."""

    def __init__(
        self, queue: str, message_id: int, reason: str, error: str, description: str
    ) -> None:
        self.queue = queue
        self.message_id = message_id
        self.reason = reason
        self.error = error
        why = f"{error}: {description}".strip(": ")[:300]
        super().__init__(
            f"The request to queue {queue!r} is dead (message {message_id}, {reason}): {why}. Mend "
            f"its handler and ask again."
        )


class NotSupported(MessagingError):
    """What was asked for does not exist in this combination."""


class WebhookFailed(MessagingError):
    """A webhook was not answered with 2xx; ``status`` None: it was not answered at all."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(reason)


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


class HandlerTimeout(TimeoutError):
    """Raised in a handler that has taken longer than its consumer's ``timeout``, in seconds."""

    def __init__(self, seconds: float | None = None) -> None:
        self.seconds = seconds
        limit = "its time" if seconds is None else f"{seconds:g} seconds"
        super().__init__(f"The handler took longer than {limit}.")


class Expired(Exception):
    """What a message comes to that was not handled in its time; never raised in a handler."""


class Reject(Exception):
    """Raise in a handler: this message goes to the dead letters at once, with the reason given."""

    def __init__(self, reason: str = "") -> None:
        self.reason = str(reason)
        super().__init__(self.reason)
