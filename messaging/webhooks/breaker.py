"""Breaker: leave a webhook alone that fails, so that it does not use up what waits for it.

After some failures in a row nobody serves it for a while, twice as long each time; then a single
request of one worker finds out whether it answers again. What waits meanwhile counts no attempt.
"""

from django.db import transaction

from .. import control
from ..store import webhooks
from ..store.connection import connection_for
from ..store.webhooks import WebhookRow

FAILURES = 5
FIRST_REST = 10.0
LONGEST_REST = 600.0
# How much longer than its timeout the trial may take, until another worker makes one; seconds.
MARGIN = 15.0


def rest_after(failures: int) -> float:
    """Return how long a webhook rests after so many failures in a row, seconds."""
    if failures < FAILURES:
        return 0.0
    return min(LONGEST_REST, FIRST_REST * 2.0 ** min(failures - FAILURES, 30))


def may_try(webhook: WebhookRow, using: str | None) -> bool:
    """Tell whether this worker is the one that tries a webhook again whose rest is over."""
    return webhooks.begin_trial(connection_for(using), webhook, webhook.timeout + MARGIN)


def succeeded(webhook: WebhookRow, using: str | None) -> None:
    """Note that it was answered with 2xx."""
    webhooks.succeeded(connection_for(using), webhook.id)
    control.tell_workers(using)


def failed(webhook: WebhookRow, asked: float, using: str | None) -> float:
    """Note a failure; return for how many seconds the webhook rests now, at least those asked."""
    connection = connection_for(using)
    with transaction.atomic(using=connection.alias):
        trial = webhook.rests_until is not None
        failures = webhooks.take_failures(connection, webhook.id, trial=trial)
        if failures is None:
            return 0.0
        rest = max(asked, rest_after(failures + 1))
        webhooks.failed(connection, webhook.id, failures + 1, rest)
        control.tell_workers(using)
    return rest
