"""Signals: what happened to a message, for observers; and the log lines about it.

Receivers get keyword arguments only and cannot change what happens: an exception in one is
logged and otherwise ignored.
"""

import logging
from collections.abc import Sequence
from typing import Any

from django.dispatch import Signal

from .messages import Outcome, Settlement

logger = logging.getLogger("messaging")

# message=Message, duration=seconds
message_handled = Signal()
# message=Message, error=BaseException, retry_after=seconds
message_failed = Signal()
# message=Message, reason=str, error=BaseException | None
message_dead_lettered = Signal()
# message=Message
message_expired = Signal()
# name=str
worker_started = Signal()
worker_stopped = Signal()


def printable(text: object, limit: int = 500) -> str:
    """Return the text on one line, without control characters, for a log record."""
    shown = str(text)[:limit]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)


def report_batch(queue: str, count: int, error: BaseException) -> None:
    """Tell the log that a batch was undone, which counts against none of its messages."""
    logger.warning(
        "Batch failed, smaller ones follow queue=%s messages=%s error=%s",
        queue,
        count,
        printable(f"{type(error).__qualname__}: {error}", 300),
    )


def report_all(outcomes: Sequence[Outcome], queue: str, worker: str) -> None:
    """Report what the deliveries of a transaction came to. Call it after the commit."""
    told = logger.isEnabledFor(logging.DEBUG) or message_handled.receivers
    for outcome in outcomes:
        # Of most there is nothing to tell, and nobody to be told.
        if told or outcome.settlement is not Settlement.ACKNOWLEDGED:
            report(outcome, queue, worker)


def report(outcome: Outcome, queue: str, worker: str) -> None:
    """Tell observers, and the log, what a delivery came to. Call it after the commit."""
    delivered = outcome.delivered
    facts: tuple[Any, ...] = (delivered.message_id, queue, delivered.attempt)
    if outcome.settlement is Settlement.ACKNOWLEDGED:
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("Message handled id=%s queue=%s attempt=%s", *facts)
        if message_handled.receivers:
            message_handled.send_robust(worker, message=outcome.message, duration=outcome.duration)
        return
    if outcome.settlement is Settlement.EXPIRED:
        logger.info("Message expired id=%s queue=%s attempt=%s", *facts)
        if outcome.message is not None:  # nobody had decoded it
            message_expired.send_robust(worker, message=outcome.message)
        return
    failure = outcome.failure
    error = printable(f"{failure.error}: {failure.description}", 300) if failure else ""
    if outcome.settlement is Settlement.RETRY:
        logger.warning(
            "Message failed id=%s queue=%s attempt=%s retry_after=%.1f error=%s",
            *facts,
            outcome.after,
            error,
        )
        message_failed.send_robust(
            worker, message=outcome.message, error=outcome.error, retry_after=outcome.after
        )
    else:
        logger.error(
            "Message dead id=%s queue=%s attempt=%s reason=%s error=%s",
            *facts,
            outcome.reason,
            error,
        )
        message_dead_lettered.send_robust(
            worker, message=outcome.message, reason=outcome.reason, error=outcome.error
        )
