"""Causation: the message that is being handled, which is the cause of those sent meanwhile.

``handling`` sets it around the call of a handler; ``publishing`` reads it. A context variable, so
that threads do not see each other's, and ``sync_to_async`` and event loops take it along.
"""

from contextvars import ContextVar

from .messages import Message

cause: ContextVar[Message | None] = ContextVar("messaging_cause", default=None)
