"""Request: send a message and wait for the reply to it.

Sending commits by itself: nobody could answer what is not committed. Nothing is stored when nobody
is there to answer.
"""

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.db.backends.base.base import BaseDatabaseWrapper

from . import conf
from .encoding import decode_body
from .engines.mailbox import mailbox
from .exceptions import InvalidOption, NoConsumer, NotSupported, RequestFailed, UnknownQueue
from .names import check_queue_name
from .publishing import send
from .store import replies
from .store.connection import connection_for
from .store.publishing import known_names
from .store.workers import SILENCE

MAX_TIMEOUT = 3_600
# How soon to look again where no wake-up is heard, seconds: soon first, then less often.
FIRST_LOOK = 0.005
LAST_LOOK = 0.25


def request(
    queue: str,
    body: Any,
    *,
    timeout: float | timedelta = 5,
    headers: Mapping[str, Any] | None = None,
    priority: int = 0,
    ordering_key: str | None = None,
    correlation_id: str | None = None,
    using: str | None = None,
) -> Any:
    """Send a message to a queue, wait for the reply and return its body.

    The reply is what the handler gives to ``message.reply()``, or else what it returns, and commits
    with the handler's effects. ``timeout`` is more than 0 and at most 3,600 seconds, and the
    request expires with it. The other options are those of :func:`send`.

    Raises NoConsumer at once, and stores nothing, when no living worker serves the queue or it is
    paused; TimeoutError when no reply came in time, after which a request that still waits is
    withdrawn; RequestFailed when the request became a dead letter; NotSupported inside a
    transaction, which nobody could see into; UnknownQueue, and what :func:`send` raises.
    """
    asking = Asking(queue, timeout, using)
    asking.check()
    heard = threading.Event()
    with asking.expecting(heard.set):
        asking.send(
            body,
            headers=headers,
            priority=priority,
            ordering_key=ordering_key,
            correlation_id=correlation_id,
        )
        while not asking.is_answered():
            heard.wait(asking.pause())
            heard.clear()
    return asking.reply


async def arequest(
    queue: str,
    body: Any,
    *,
    timeout: float | timedelta = 5,
    headers: Mapping[str, Any] | None = None,
    priority: int = 0,
    ordering_key: str | None = None,
    correlation_id: str | None = None,
    using: str | None = None,
) -> Any:
    """Ask from async code; the same as :func:`request`, and holds no thread while it waits."""
    asking = Asking(queue, timeout, using)
    await sync_to_async(asking.check)()
    loop = asyncio.get_running_loop()
    heard = asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(heard.set)

    with asking.expecting(wake):
        await sync_to_async(asking.send)(
            body,
            headers=headers,
            priority=priority,
            ordering_key=ordering_key,
            correlation_id=correlation_id,
        )
        while not await sync_to_async(asking.is_answered)():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(asking.pause()):
                    await heard.wait()
            heard.clear()
    return asking.reply


class Asking:
    """One request: whom it asks, and until when it waits."""

    def __init__(self, queue: str, timeout: object, using: str | None) -> None:
        self._queue = check_queue_name(queue)
        self._timeout = _check_timeout(timeout)
        self._using = using
        self._token = f"{replies.PREFIX}{uuid.uuid4().hex}"
        self._until = time.monotonic() + self._timeout
        self._look = FIRST_LOOK
        self._newest = 0
        self._priority = 0
        self._message_id = 0
        self.reply: Any = None

    @property
    def _connection(self) -> BaseDatabaseWrapper:
        return connection_for(self._using)

    def check(self) -> None:
        """Raise when nobody could answer."""
        connection = self._connection
        if connection.in_atomic_block or not connection.get_autocommit():
            raise NotSupported(
                "request() was called inside a transaction: nobody sees the request before it "
                "commits, and so nobody would reply. Ask outside of transaction.atomic() (and of "
                "ATOMIC_REQUESTS: @transaction.non_atomic_requests); in a test, use "
                "TransactionTestCase."
            )
        found = replies.servers(connection, self._queue, SILENCE)
        if found is None:
            raise UnknownQueue(self._queue, known_names(connection, False))
        is_paused, is_served, self._newest = found
        if is_paused:
            raise NoConsumer(
                f"Queue {self._queue!r} is paused, and nobody would reply. Nothing was sent. Have "
                f"it resumed (messaging.control.resume, or the admin)."
            )
        if not is_served:
            raise NoConsumer(
                f"No worker serves queue {self._queue!r}: none has given a sign of life in the "
                f"last {SILENCE:g} seconds. Nothing was sent. Start one with `manage.py runworker "
                f"{self._queue}`."
            )

    def expecting(self, wake: Any) -> contextlib.AbstractContextManager[None]:
        """Have ``wake`` called when the reply may have come."""
        self._mailbox = mailbox(self._connection)
        return self._mailbox.expecting(self._token, wake)

    def send(self, body: Any, *, priority: int, **options: Any) -> None:
        """Send the request, which expires when nobody waits any more."""
        self._priority = priority
        left = max(0.001, self._until - time.monotonic())
        self._message_id = send(
            self._queue,
            body,
            priority=priority,
            expires_in=left,
            reply_to=self._token,
            using=self._using,
            **options,
        )

    def is_answered(self) -> bool:
        """Look for the reply; raise when there will be none."""
        connection = self._connection
        text = replies.take(connection, self._token)
        if text is not None:
            self.reply = decode_body(text)
            return True
        if dead := replies.fate(connection, self._message_id):
            raise RequestFailed(self._queue, self._message_id, *dead)
        if time.monotonic() < self._until:
            return False
        withdrawn = replies.withdraw(
            connection,
            self._queue,
            priority=self._priority,
            after=self._newest,
            message_id=self._message_id,
        )
        what = "it was withdrawn" if withdrawn else "it may have been handled all the same"
        raise TimeoutError(
            f"No reply from queue {self._queue!r} to message {self._message_id} in "
            f"{self._timeout:g} seconds; {what}."
        )

    def pause(self) -> float:
        """Return how long to wait until the next look, if nothing is heard, in seconds."""
        longest: float = conf.POLL_INTERVAL
        if not self._mailbox.hears:
            longest, self._look = self._look, min(2 * self._look, LAST_LOOK)
        return max(0.0, min(longest, self._until - time.monotonic()))


def _check_timeout(timeout: object) -> float:
    seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not 0 < seconds <= MAX_TIMEOUT
    ):
        raise InvalidOption("timeout", timeout, f"use more than 0 to {MAX_TIMEOUT:,} seconds")
    return float(seconds)
