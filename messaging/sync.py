"""Synchronise: create the rows that code declares, and never overwrite what is there."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.db import connections, router, transaction
from django.db.migrations.executor import MigrationExecutor

from . import conf
from .consuming import declarations
from .exceptions import UnknownQueue, UnknownTopic
from .store import validating
from .store.publishing import known_names

if TYPE_CHECKING:
    from .models import Queue


@dataclass(slots=True)
class Created:
    """The names that a synchronisation created."""

    queues: list[str] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    subscriptions: list[str] = field(default_factory=list)
    schedules: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.queues or self.topics or self.subscriptions or self.schedules)


def synchronise(using: str | None = None) -> Created:
    """Create the queues, dead-letter queues, topics and subscriptions that are missing.

    Several processes may do this at once. A queue's dead-letter queue is ``<queue>.dlq``.
    """
    from .models import Queue, Schedule, Subscription, Topic

    alias = using or conf.DATABASE
    created = Created()
    with transaction.atomic(using=alias):
        queues = Queue.objects.using(alias)
        for name, policies in sorted(declarations.queues.items()):
            if queues.filter(name=name).exists():
                continue
            holder, new = dead_letter_queue(name, alias)
            if holder and new:
                created.queues.append(holder.name)
            policies = policies | {"dead_letter_queue": holder}
            _, new = queues.get_or_create(name=name, defaults=policies)
            if new:
                created.queues.append(name)
        for name, policies in sorted(declarations.topics.items()):
            _, new = Topic.objects.using(alias).get_or_create(name=name, defaults=policies)
            if new:
                created.topics.append(name)
            if name in declarations.schemas:
                _begin_schema(name, declarations.schemas[name], alias)
        for consumer in declarations.consumers.values():
            if consumer.pattern is None:
                continue
            queue = queues.get(name=consumer.queue)
            _, new = Subscription.objects.using(alias).get_or_create(
                pattern=consumer.pattern,
                queue=queue,
                defaults={"filter": consumer.filter, "filter_scope": consumer.filter_scope},
            )
            if new:
                created.subscriptions.append(f"{consumer.pattern} → {consumer.queue}")
        for name, values in sorted(declarations.schedules.items()):
            if Schedule.objects.using(alias).filter(name=name).exists():
                continue
            queue_name, topic_name = values["queue"], values["topic"]
            target = {
                "queue": queue_name and queues.filter(name=queue_name).first(),
                "topic": topic_name and Topic.objects.using(alias).filter(name=topic_name).first(),
            }
            if not any(target.values()):
                raise (UnknownTopic if topic_name else UnknownQueue)(
                    topic_name or queue_name,
                    known_names(connections[alias], topic_name is not None),
                )
            _, new = Schedule.objects.using(alias).get_or_create(
                name=name, defaults=values | target
            )
            if new:
                created.schedules.append(name)
    return created


def missing(using: str) -> list[str]:
    """Return what code declares and the database lacks, without creating it."""
    from .models import Queue, Topic

    lacking = []
    for kind, model, names in (
        ("queue", Queue, declarations.queues),
        ("topic", Topic, declarations.topics),
    ):
        there = set(
            model._default_manager.using(using)
            .filter(name__in=names)
            .values_list("name", flat=True)
        )
        lacking += [f"{kind} {name}" for name in sorted(names) if name not in there]
    return lacking


def dead_letter_queue(name: str, using: str | None = None) -> "tuple[Queue | None, bool]":
    """Return the queue that holds the dead letters of ``name``, and whether it is new.

    It is ``<name>.dlq``, and None where no name is left for it.
    """
    from .models import Queue

    dead_name = f"{name}.dlq"
    if name.endswith(".dlq") or len(dead_name) > 80:
        return None, False
    return Queue.objects.using(using or conf.DATABASE).get_or_create(
        name=dead_name, defaults={"description": f"Dead letters of {name}"}
    )


def _begin_schema(topic: str, document: dict[str, Any], alias: str) -> None:
    """Make the first version of a topic's schema, where there is none yet."""
    from .models import Topic

    row = Topic.objects.using(alias).select_for_update(of=("self",)).get(name=topic)
    if not row.schemas.exists():
        row.schema = row.schemas.create(version=1, document=document)
        row.save(update_fields=["schema"])


def is_migrated(using: str) -> bool:
    """Tell whether the tables of this app are those that its models describe."""
    executor = MigrationExecutor(connections[using])
    targets = [key for key in executor.loader.graph.leaf_nodes() if key[0] == "messaging"]
    return not executor.migration_plan(targets)


def sync_after_migrate(using: str, plan: object = None, **kwargs: Any) -> None:
    """Receiver of ``post_migrate``: a migrated database has what the code declares.

    One that was migrated backwards may not even have the tables. Without a plan nothing was
    migrated: the tables were emptied.
    """
    from .models import Queue

    if using != conf.DATABASE or not router.allow_migrate_model(using, Queue):
        return
    validating.forget()
    if plan is None or is_migrated(using):
        synchronise(using)
