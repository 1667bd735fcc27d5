"""Sources: tell who publishes a message, and in which process, for its timeline.

Like the cause of a message it is a context variable, so that threads do not see each other's.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# What a row of the log holds of it.
LONGEST = 200

_publisher: ContextVar[Callable[[], str] | None] = ContextVar("messaging_publisher", default=None)
_process = ""


@contextmanager
def publishing_as(publisher: str | Callable[[], str]) -> Iterator[None]:
    """Let the messages sent in this block say who sent them: a name, or what returns it."""
    name = publisher if callable(publisher) else lambda: publisher
    token = _publisher.set(name)
    try:
        yield
    finally:
        _publisher.reset(token)


def source() -> str:
    """Return who publishes and where, such as ``ada@web-1/4711``: the host and the process."""
    publisher = _publisher.get()
    if publisher is None or not (name := publisher()):
        return _process or _named()
    return f"{name}@{_process or _named()}".replace("\0", "")[:LONGEST]


def _named() -> str:
    global _process
    _process = f"{socket.gethostname()}/{os.getpid()}"[:LONGEST]
    return _process


def _forget() -> None:
    global _process
    _process = ""


os.register_at_fork(after_in_child=_forget)
