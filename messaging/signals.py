"""Signals: what happened to a message, for observers; and the log lines about it.

Receivers get keyword arguments only and cannot change what happens: an exception in one is
logged and otherwise ignored.
"""

import logging

from django.dispatch import Signal

logger = logging.getLogger("messaging")

# message=Message, duration=seconds
message_handled = Signal()
# message=Message, error=BaseException, retry_after=seconds
message_failed = Signal()
# message=Message, reason=str, error=BaseException | None
message_dead_lettered = Signal()
# name=str
worker_started = Signal()
worker_stopped = Signal()


def printable(text: object, limit: int = 500) -> str:
    """Return the text on one line, without control characters, for a log record."""
    shown = str(text)[:limit]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
