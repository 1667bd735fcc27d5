"""Deliver: send a message, and have its answer decide what becomes of it."""

import datetime
import time
from email.utils import parsedate_to_datetime

from asgiref.sync import sync_to_async

from .. import control
from ..exceptions import Retry, WebhookFailed
from ..messages import Message
from ..signing_keys import keys_of
from ..store.webhooks import WebhookRow
from . import breaker
from .sending import Answer, post
from .signing import body_of, signed

GONE = 410
# Those whose Retry-After is heard, and for how long at most, seconds.
BUSY = (429, 503)
LONGEST_WAIT = 86_400.0
# How soon to look again whether another worker has found that a webhook answers; seconds.
TRIAL_WAIT = 1.0
# Until when a process has surely read the rows again, and leaves out what rests; seconds.
READ_AGAIN = 5.0


class Postponed(Retry):
    """A failed delivery that the receiver wants to have again at a time of its own choice."""

    def __init__(self, after: float, reason: str) -> None:
        super().__init__(after)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Endpoint:
    """The consumer of a queue that has a webhook, as the row was when it was read."""

    def __init__(self, webhook: WebhookRow, using: str | None) -> None:
        self.webhook = webhook
        self._using = using
        # Whether the row counts failures that an answer would end.
        self._has_failed = webhook.failures > 0
        self._rests_until = 0.0

    async def __call__(self, message: Message) -> None:
        """Send one message; return when it was accepted, raise when it was not."""
        rest = self._rests_until - time.monotonic()
        if rest > 0:
            return await message.arelease(after=rest)
        on_trial = self.webhook.rests_until is not None
        if on_trial and not await sync_to_async(breaker.may_try)(self.webhook, self._using):
            return await message.arelease(after=TRIAL_WAIT)
        try:
            answer = await self._send(message)
        except Exception:  # whatever it is, nothing was accepted
            await self._fail()
            raise
        if answer.is_success:
            if self._has_failed:
                await self._recover()
            return None
        if answer.status == GONE:
            return await self._disable(message)
        wait = seconds_of(answer.retry_after) if answer.status in BUSY else None
        await self._fail(wait or 0.0)
        reason = f"{self.webhook.name} was answered {answer.status}: {answer.text or '(no text)'}"
        if wait is not None:
            raise Postponed(wait, reason)
        raise WebhookFailed(reason, answer.status)

    async def _send(self, message: Message) -> Answer:
        body = body_of(message)
        headers = signed(message, body, keys_of(self.webhook.secret))
        return await post(self.webhook.url, body, headers, self.webhook.timeout)

    async def _fail(self, asked: float = 0.0) -> None:
        self._has_failed = True
        rest = await sync_to_async(breaker.failed)(self.webhook, asked, self._using)
        self._rest(rest)

    async def _recover(self) -> None:
        self._has_failed = False
        await sync_to_async(breaker.succeeded)(self.webhook, self._using)
        # The trial is over; until the row is read again this sends like any other.
        self.webhook = self.webhook._replace(failures=0, rests_until=None)

    async def _disable(self, message: Message) -> None:
        """Send nothing more to where nobody wants it; what waits goes on waiting."""
        await sync_to_async(control.disable_webhook)(
            self.webhook.name, by="receiver", reason="answered 410 Gone", using=self._using
        )
        self._rest(READ_AGAIN)
        await message.arelease()

    def _rest(self, seconds: float) -> None:
        """Give back what is claimed until the row is read again."""
        until = time.monotonic() + min(seconds, READ_AGAIN)
        self._rests_until = max(self._rests_until, until)


def seconds_of(retry_after: str | None) -> float | None:
    """Return how long a Retry-After says to wait, a day at most; None: it says nothing sensible."""
    text = (retry_after or "").strip()
    if text.isascii() and text.isdecimal():
        return min(float(text), LONGEST_WAIT)
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    if at.tzinfo is None:  # "-0000", and RFC 9110 knows no other zone than GMT
        at = at.replace(tzinfo=datetime.UTC)
    seconds = (at - datetime.datetime.now(datetime.UTC)).total_seconds()
    return min(seconds, LONGEST_WAIT) if seconds > 0 else None
