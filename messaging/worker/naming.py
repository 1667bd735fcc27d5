"""Naming: a name given to a worker belongs to one that is alive."""

import os
import socket
import time

from django.db import transaction

from ..exceptions import MessagingError
from ..store import workers
from ..store.connection import connection_for

# One that has missed several heartbeats is dead, seconds.
SILENCE = 15.0
LOOK_EVERY = 0.5


class NameTaken(MessagingError):
    """Another worker bears the name."""

    def __init__(self, name: str, bearer: workers.Bearer) -> None:
        super().__init__(
            f"Another worker named {name!r} is alive: process {bearer.pid} on {bearer.host}, seen "
            f"{bearer.age:.0f} seconds ago. Stop it, or choose another name."
        )


def take_name(name: str, using: str | None = None) -> None:
    """Take the name of a worker that starts; raise NameTaken when another one bears it.

    One that was killed has left its heartbeat behind. So as not to refuse its successor, this waits
    until the heartbeat is renewed, or is so old that nobody can be behind it.
    """
    first = _try(name, using)
    bearer = first
    while bearer is not None and first is not None:
        if bearer.seen_at > first.seen_at:
            raise NameTaken(name, bearer)
        time.sleep(LOOK_EVERY)
        bearer = _try(name, using)


def give_back_name(name: str, using: str | None = None) -> None:
    """Let the next worker have the name, if no process has given a sign of life under it."""
    workers.sign_off(connection_for(using), name)


def _try(name: str, using: str | None) -> workers.Bearer | None:
    connection = connection_for(using)
    with transaction.atomic(using=connection.alias):
        return workers.take_name(
            connection,
            name,
            host=socket.gethostname()[:100],
            pid=os.getpid(),
            silence=SILENCE,
        )
