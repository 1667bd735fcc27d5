"""Listen for a while: a subscription with a queue of its own, and both vanish with the block.

A small thread gives the signs of life while the block is open, so that handling may take its time;
it dies with the process. The workers' house-keeping then deletes what is left.
"""

import datetime
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, connections

from .exceptions import InvalidOption, SubscriptionEnded, UnknownQueue
from .matching import check_filter
from .messages import Message
from .names import check_pattern
from .receiving import areceive, check_commits, receive
from .settling import Seconds, check_seconds
from .signals import logger, printable
from .store import subscriptions
from .store.connection import connection_for

SHORTEST = 5
LONGEST = 86_400


@contextmanager
def subscription(
    pattern: str,
    *,
    filter: Mapping[str, Any] | None = None,
    filter_scope: str = "headers",
    since: datetime.datetime | datetime.timedelta | int | str | None = None,
    idle_timeout: Seconds = 30,
    using: str | None = None,
) -> Iterator["Messages"]:
    """Subscribe to a topic or pattern for as long as the block lasts, each block by itself.

    Gives a function: ``for message in messages(wait=5): ... message.acknowledge()``. What was
    published before the block does not come, unless ``since`` says from when on, as for
    subscribe(): it waits when the block begins. On leaving it, also by an exception, the
    subscription ends and its queue is deleted with what still waits there. When the process dies,
    or cannot reach the database, for ``idle_timeout`` seconds (5 to 86,400), the workers do that.

    Raises InvalidName, InvalidFilter, InvalidOption, and NotSupported inside of a transaction,
    whose rollback would undo the subscription; OperationRefused as subscribe(since=).
    """
    messages = Messages(pattern, filter, filter_scope, idle_timeout, using)
    messages.begin(since)
    messages.live()
    try:
        messages.catch_up()
        yield messages
    finally:
        messages.end()


@asynccontextmanager
async def asubscription(
    pattern: str,
    *,
    filter: Mapping[str, Any] | None = None,
    filter_scope: str = "headers",
    since: datetime.datetime | datetime.timedelta | int | str | None = None,
    idle_timeout: Seconds = 30,
    using: str | None = None,
) -> AsyncIterator["AsyncMessages"]:
    """Subscribe in async code: ``async for message in messages(wait=5)``, as :func:`subscription`.

    Settle by ``await message.aacknowledge()``.
    """
    messages = AsyncMessages(pattern, filter, filter_scope, idle_timeout, using)
    # Cancelled meanwhile, it leaves a subscription without any sign of life, which is swept.
    await sync_to_async(messages.begin)(since)
    messages.live()
    try:
        await sync_to_async(messages.catch_up)()
        yield messages
    finally:
        messages.die()
        await sync_to_async(messages.end)()


class Listening:
    """One ephemeral subscription while its block is open; ``queue`` is the name of its queue."""

    def __init__(
        self,
        pattern: str,
        filter: Mapping[str, Any] | None,
        filter_scope: str,
        idle_timeout: Seconds,
        using: str | None,
    ) -> None:
        self.pattern = check_pattern(pattern)
        check_filter(filter, filter_scope)
        self._filter = filter, filter_scope
        self._idle_timeout = check_idle_timeout(idle_timeout)
        self._using = using
        self._left = threading.Event()
        self._is_swept = False
        self._id = 0
        self._operation: int | None = None
        self.queue = ""

    def begin(self, since: Any = None) -> None:
        """Subscribe."""
        from .control.ephemeral import begin_ephemeral

        connection = connection_for(self._using)
        check_commits(connection, "subscription()", "the subscription")
        self._id, self.queue, self._operation = begin_ephemeral(
            self.pattern, *self._filter, self._idle_timeout, since=since, using=self._using
        )

    def catch_up(self) -> None:
        """Have what was published before wait, where it was asked for."""
        from .control.replaying import carried_out

        if self._operation is not None:
            carried_out(self._operation, self._using)

    def live(self) -> None:
        """Give signs of life from now on."""
        threading.Thread(target=self._beat, name=f"messaging-{self.queue}", daemon=True).start()

    def die(self) -> None:
        """Give no more signs of life."""
        self._left.set()

    def end(self) -> None:
        """Unsubscribe and delete the queue; what fails is left to the workers."""
        from .control.ephemeral import end_ephemeral

        self.die()
        try:
            end_ephemeral(self._id, self.queue, using=self._using)
        except (DatabaseError, InterfaceError) as error:
            logger.warning(
                "Ephemeral queue is left to the workers queue=%s error=%s",
                self.queue,
                printable(error, 200),
            )

    def _beat(self) -> None:
        """Touch the row at a third of the time; whoever was taken for dead is told so."""
        while not self._left.wait(self._idle_timeout / 3):
            try:
                if not subscriptions.touch(connection_for(self._using), self._id):
                    self._is_swept = True
                    return
            except (DatabaseError, InterfaceError) as error:
                logger.warning(
                    "Ephemeral subscription cannot give a sign of life queue=%s error=%s",
                    self.queue,
                    printable(error, 200),
                )
            finally:
                connections.close_all()

    def check(self) -> None:
        """Raise SubscriptionEnded where messages may be missing."""
        if self._is_swept or self._left.is_set():
            raise self.ended()

    def ended(self) -> SubscriptionEnded:
        """Return what says that it is over."""
        return SubscriptionEnded(self.pattern, self._idle_timeout, left=self._left.is_set())


class Messages(Listening):
    """What comes in: call it to iterate."""

    def __call__(self, *, wait: Seconds = 0, lease: Seconds | None = None) -> Iterator[Message]:
        """Give message by message, until none has come for ``wait`` seconds (0 to 3,600).

        Each is held under a lease as by receive(), and comes again where it is not settled. Raises
        SubscriptionEnded when the subscription is gone.
        """
        while True:
            self.check()
            try:
                found = receive(self.queue, lease=lease, wait=wait, using=self._using)
            except UnknownQueue as error:
                raise self.ended() from error
            if not found:
                return
            yield from found


class AsyncMessages(Listening):
    """What comes in, for async code."""

    async def __call__(
        self, *, wait: Seconds = 0, lease: Seconds | None = None
    ) -> AsyncIterator[Message]:
        """Give message by message, until none has come for ``wait`` seconds (0 to 3,600)."""
        while True:
            self.check()
            try:
                found = await areceive(self.queue, lease=lease, wait=wait, using=self._using)
            except UnknownQueue as error:
                raise self.ended() from error
            if not found:
                return
            for message in found:
                yield message


def check_idle_timeout(value: Seconds) -> float:
    """Return it as seconds, or raise InvalidOption."""
    seconds = check_seconds("idle_timeout", value, LONGEST, lowest=str(SHORTEST))
    if seconds < SHORTEST:
        raise InvalidOption("idle_timeout", value, f"use {SHORTEST} to {LONGEST:,} seconds")
    return seconds
