"""Find the webhooks to serve, and note how requests to them went."""

import datetime
from collections.abc import Sequence
from typing import NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from .connection import run


class WebhookRow(NamedTuple):
    """A webhook as a worker serves it; with ``rests_until``, which is over, it is on trial."""

    id: int
    name: str
    queue: str
    url: str
    secret: str
    timeout: float
    failures: int
    rests_until: datetime.datetime | None


# One that rests is served by nobody, so its messages stay where they are and count no attempt.
SERVED = """
    SELECT webhook.id, webhook.name, queue.name, webhook.url, webhook.secret, webhook.timeout,
        webhook.failures, webhook.rests_until
    FROM messaging_webhook AS webhook
    JOIN messaging_queue AS queue ON queue.id = webhook.queue_id
    WHERE webhook.disabled_at IS NULL
    AND (webhook.rests_until IS NULL OR webhook.rests_until <= statement_timestamp())
    AND (%(queues)s::text[] IS NULL OR queue.name = ANY (%(queues)s::text[]))
    ORDER BY queue.name
"""


def served(connection: BaseDatabaseWrapper, queues: Sequence[str] | None) -> list[WebhookRow]:
    """Return the webhooks that may be sent to now, of the queues named or of all."""
    rows = run(connection, SERVED, {"queues": None if queues is None else list(queues)})
    return [WebhookRow._make(row) for row in rows]


class Described(NamedTuple):
    """A webhook as a check or an operator sees it."""

    name: str
    queue: str
    secret: str
    disabled_by: str | None
    reason: str
    failures: int
    rests_for: float

    @property
    def is_left_alone(self) -> bool:
        """Whether nobody serves it at present."""
        return self.disabled_by is not None or self.rests_for > 0


DESCRIBE = """
    SELECT webhook.name, queue.name, webhook.secret,
        CASE WHEN webhook.disabled_at IS NOT NULL THEN webhook.disabled_by END,
        webhook.disabled_reason, webhook.failures,
        coalesce(greatest(0, extract(epoch FROM webhook.rests_until - statement_timestamp())), 0)
            ::float8
    FROM messaging_webhook AS webhook
    JOIN messaging_queue AS queue ON queue.id = webhook.queue_id
    ORDER BY webhook.name
"""


def described(connection: BaseDatabaseWrapper) -> list[Described]:
    """Return all webhooks; none before the table is there."""
    if not run(connection, "SELECT to_regclass('messaging_webhook')")[0][0]:
        return []
    return [Described._make(row) for row in run(connection, DESCRIBE)]


# By what was read before: of many workers that see the rest to be over one makes the trial. For as
# long as that may take the webhook rests for all others.
TRY = """
    UPDATE messaging_webhook
    SET rests_until = statement_timestamp() + make_interval(secs => %(seconds)s)
    WHERE id = %(id)s AND rests_until = %(rests_until)s
    RETURNING id
"""


def begin_trial(connection: BaseDatabaseWrapper, webhook: WebhookRow, seconds: float) -> bool:
    """Say that one request finds out whether a webhook answers again; tell if nobody else does."""
    values = {"id": webhook.id, "rests_until": webhook.rests_until, "seconds": seconds}
    return bool(run(connection, TRY, values))


SUCCEEDED = """
    UPDATE messaging_webhook SET failures = 0, rests_until = NULL
    WHERE id = %s AND (failures > 0 OR rests_until IS NOT NULL)
"""


def succeeded(connection: BaseDatabaseWrapper, webhook_id: int) -> None:
    """Note that a request was answered with 2xx: the failures in a row are over."""
    run(connection, SUCCEEDED, (webhook_id,))


# What was in flight when the rest began says nothing new.
TAKE = """
    SELECT failures FROM messaging_webhook
    WHERE id = %(id)s
    AND (%(trial)s OR rests_until IS NULL OR rests_until <= statement_timestamp())
    FOR UPDATE
"""


def take_failures(connection: BaseDatabaseWrapper, webhook_id: int, *, trial: bool) -> int | None:
    """Lock a webhook and return its failures in a row; None: it rests already, or is gone."""
    rows = run(connection, TAKE, {"id": webhook_id, "trial": trial})
    return int(rows[0][0]) if rows else None


REST = """
    UPDATE messaging_webhook
    SET failures = %(failures)s,
        rests_until = CASE WHEN %(seconds)s > 0
            THEN statement_timestamp() + make_interval(secs => %(seconds)s) END
    WHERE id = %(id)s
"""


def failed(connection: BaseDatabaseWrapper, webhook_id: int, failures: int, seconds: float) -> None:
    """Note how many failures in a row there are now, and for how long the webhook rests."""
    run(connection, REST, {"id": webhook_id, "failures": failures, "seconds": seconds})
