"""Answer: send the reply that a message asks for, by the handler's word or by what it returns."""

from typing import Any

from .causation import cause
from .encoding import encode_body
from .messages import Message
from .publishing import send
from .replying import keep_reply
from .store.replies import is_token


class Answer:
    """The reply to one message, in the transaction of whoever handles it."""

    def __init__(self, message: Message, using: str | None) -> None:
        self._message = message
        self._using = using
        self._is_given = False

    def give(self, body: Any) -> None:
        """Reply to where the message says."""
        message = self._message
        reply_to = message.reply_to
        if reply_to is None:
            return
        causing = cause.set(message)
        try:
            if is_token(reply_to):
                keep_reply(reply_to, encode_body(body), self._using)
            else:
                # JMS: without a correlation id, the id of the request correlates.
                correlation = message.correlation_id or str(message.id)
                send(reply_to, body, correlation_id=correlation, using=self._using)
        finally:
            cause.reset(causing)
        self._is_given = True

    def give_result(self, result: Any) -> None:
        """Reply with what the handler returned, unless it has replied, or has nothing to say.

        Whoever waits in request() gets None too; a queue gets no message for it.
        """
        reply_to = self._message.reply_to
        if reply_to is None or self._is_given:
            return
        if result is not None or is_token(reply_to):
            self.give(result)


def answerable(message: Message, using: str | None) -> Answer:
    """Let a message be replied to on this database, from now on."""
    message.answer = answer = Answer(message, using)
    return answer
