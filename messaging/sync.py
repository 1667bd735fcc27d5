"""Synchronise: create the rows that code declares, and never overwrite what is there."""

from dataclasses import dataclass, field
from typing import Any

from django.db import router, transaction

from . import conf
from .consuming import declarations


@dataclass(slots=True)
class Created:
    """The names that a synchronisation created."""

    queues: list[str] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    subscriptions: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.queues or self.topics or self.subscriptions)


def synchronise(using: str | None = None) -> Created:
    """Create the queues, dead-letter queues, topics and subscriptions that are missing.

    Several processes may do this at once. A queue's dead-letter queue is ``<queue>.dlq``.
    """
    from .models import Queue, Subscription, Topic

    alias = using or conf.DATABASE
    created = Created()
    with transaction.atomic(using=alias):
        queues = Queue.objects.using(alias)
        for name, policies in sorted(declarations.queues.items()):
            if queues.filter(name=name).exists():
                continue
            policies = policies | {"dead_letter_queue": _dead_letter_queue(name, alias, created)}
            _, new = queues.get_or_create(name=name, defaults=policies)
            if new:
                created.queues.append(name)
        for name, policies in sorted(declarations.topics.items()):
            _, new = Topic.objects.using(alias).get_or_create(name=name, defaults=policies)
            if new:
                created.topics.append(name)
        for consumer in declarations.consumers.values():
            if consumer.pattern is None:
                continue
            queue = queues.get(name=consumer.queue)
            _, new = Subscription.objects.using(alias).get_or_create(
                pattern=consumer.pattern, queue=queue
            )
            if new:
                created.subscriptions.append(f"{consumer.pattern} → {consumer.queue}")
    return created


def _dead_letter_queue(name: str, alias: str, created: Created) -> Any:
    """Return the queue that holds the dead letters of ``name``; None where no name is left."""
    from .models import Queue

    dead_name = f"{name}.dlq"
    if name.endswith(".dlq") or len(dead_name) > 80:
        return None
    queue, new = Queue.objects.using(alias).get_or_create(
        name=dead_name, defaults={"description": f"Dead letters of {name}"}
    )
    if new:
        created.queues.append(dead_name)
    return queue


def sync_after_migrate(using: str, **kwargs: Any) -> None:
    """Receiver of ``post_migrate``: a migrated database has what the code declares."""
    from .models import Queue

    if using == conf.DATABASE and router.allow_migrate_model(using, Queue):
        synchronise(using)
