"""Reply: keep the reply to a request in the caller's transaction, and wake who waits for it."""

from functools import partial

from django.db import transaction

from .engines import Outgoing, wakeup
from .exceptions import NotSupported
from .messages import MessageId
from .store import replies
from .store.connection import connection_for

# A reply is no message and has no id.
NO_MESSAGE = MessageId(0)


def keep_reply(token: str, body: str, using: str | None) -> None:
    """Store a reply, given as JSON text, and tell who waits for it after the commit."""
    connection = connection_for(using)
    if not replies.keep(connection, token, body):
        return
    if connection.in_atomic_block:
        announce = partial(wakeup.announce_reply, connection, token)
        transaction.on_commit(announce, using=connection.alias, robust=True)
    elif connection.autocommit:
        wakeup.announce_reply(connection, token)


def keep_sent(outgoing: Outgoing, using: str | None) -> list[MessageId]:
    """Store as a reply what was sent to the token of a request."""
    if len(outgoing.bodies) != 1 or outgoing.is_later:
        raise NotSupported(
            f"{outgoing.name!r} waits for one reply, now: send one body, without delay and "
            f"deliver_at."
        )
    keep_reply(outgoing.name, outgoing.bodies[0], using)
    return [NO_MESSAGE]
