"""Call async handlers: as tasks of an event loop, each in its time, none able to end the loop."""

import asyncio
import time
from collections.abc import Sequence

from asgiref.sync import sync_to_async
from django.db import DatabaseError, InterfaceError, close_old_connections

from ..answering import answerable
from ..causation import cause
from ..consuming import Consumer
from ..exceptions import Expired, HandlerTimeout
from ..handling import Handled
from ..messages import Message
from .deadlines import Deadlines


async def call(consumer: Consumer, message: Message, deadlines: Deadlines) -> Handled:
    """Await the function for one message; run it as a task, whose context is its own."""
    if message.deadline is not None and time.monotonic() >= message.deadline:
        return Handled(message, Expired(), 0.0, False)
    cause.set(message)
    using = getattr(message.lease, "using", None)
    answer = None if message.reply_to is None else answerable(message, using)
    error: BaseException | None = None
    limit = asyncio.timeout(consumer.timeout)
    started = time.perf_counter()
    try:
        with deadlines.kept(message.delivery, consumer.hard_timeout):
            async with limit:
                result = await consumer.function(message)
                if answer is not None:
                    # Before the acknowledgement: a crash between the two repeats it.
                    await sync_to_async(answer.give_result)(result)
    # SystemExit and the like too: out of a task they would end the loop and all that run in it.
    except BaseException as raised:
        error = raised
    duration = time.perf_counter() - started
    if isinstance(error, TimeoutError) and limit.expired():
        late = HandlerTimeout(consumer.timeout).with_traceback(error.__traceback__)
        late.__cause__ = error.__cause__
        error = late
    if isinstance(error, DatabaseError | InterfaceError):
        # Django gives a thread a new connection only when it is asked to look.
        await sync_to_async(close_old_connections)()
    return Handled(message, error, duration, False)


async def call_all(
    consumer: Consumer, messages: Sequence[Message], deadlines: Deadlines
) -> list[Handled]:
    """Await the function for all messages at once."""
    return await asyncio.gather(*(call(consumer, message, deadlines) for message in messages))
