"""Enable and disable webhooks, and say whether a queue may have one."""

from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now

from .. import conf
from ..consuming import declarations
from ..exceptions import UnknownWebhook
from ..models import Queue, Webhook
from ..names import check_queue_name
from ..store.webhooks import Described
from .history import Operator, enter, keep, log, name_of
from .queues import tell_workers


def disable_webhook(
    webhook: Webhook | str, *, by: Operator = "", reason: str = "", using: str | None = None
) -> bool:
    """Send nothing more to a webhook; its queue's messages wait. Return whether it was enabled."""
    found = find_webhook(webhook, using)
    if len(reason) > 200 or "\0" in reason:
        raise ValueError(
            f"The reason has {len(reason)} characters; use at most 200, and no NUL character."
        )
    with transaction.atomic(using=using or conf.DATABASE):
        enabled = _rows(using).filter(pk=found.pk, disabled_at__isnull=True)
        values = {"disabled_by": name_of(by)[:150], "disabled_reason": reason}
        if not enabled.update(disabled_at=Now(), **values):
            return False
        meant = {"webhook": found.name} | ({"reason": reason} if reason else {})
        keep("disable_webhook", by, using, queue=found.queue, meant=meant)
        enter(by, found, f"Disabled: {reason}" if reason else "Disabled.")
        tell_workers(using)
    log("Webhook disabled", by, webhook=found.name, reason=reason)
    return True


def enable_webhook(webhook: Webhook | str, *, by: Operator = "", using: str | None = None) -> bool:
    """Send to a webhook again, also to one that rests; return whether that changes anything."""
    found = find_webhook(webhook, using)
    with transaction.atomic(using=using or conf.DATABASE):
        idle = _rows(using).filter(pk=found.pk).exclude(disabled_at=None, rests_until=None)
        values = {"disabled_at": None, "disabled_by": "", "disabled_reason": ""}
        if not idle.update(failures=0, rests_until=None, **values):
            return False
        keep("enable_webhook", by, using, queue=found.queue, meant={"webhook": found.name})
        enter(by, found, "Enabled.")
        tell_workers(using)
    log("Webhook enabled", by, webhook=found.name)
    return True


def find_webhook(webhook: Webhook | str, using: str | None = None) -> Webhook:
    """Return the row of a webhook, or raise UnknownWebhook."""
    if isinstance(webhook, Webhook):
        return webhook
    found = _rows(using).filter(name=check_queue_name(webhook)).first()
    if found is None:
        names = _rows(using).order_by("name").values_list("name", flat=True)[:1_000]
        raise UnknownWebhook(webhook, names)
    return found


def obstacle_to_webhook(queue: Queue) -> str:
    """Say why the messages of a queue cannot be sent to a webhook; nothing: they can."""
    consumer = declarations.consumers.get(queue.name)
    if consumer is None:
        return ""
    return (
        f"Queue {queue.name!r} has a consumer, {consumer.place}, and a message goes to one. "
        f"Subscribe another queue to the topic, and send that one's messages."
    )


def in_words(webhook: Described) -> str:
    """Say whether a webhook is sent to, and why not."""
    if webhook.disabled_by is not None:
        reason = f": {webhook.reason}" if webhook.reason else ""
        return f"is disabled by {webhook.disabled_by or '?'}{reason}"
    if webhook.rests_for:
        failures = f"{webhook.failures:,} failures in a row"
        return f"rests for {webhook.rests_for:,.0f} seconds more after {failures}"
    return "is enabled"


def _rows(using: str | None) -> QuerySet[Webhook]:
    return Webhook.objects.using(using or conf.DATABASE)
