"""Import what people configure, queues to webhooks, all of it or nothing."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from django.core.exceptions import ValidationError
from django.db import models, transaction

from .. import conf
from ..exceptions import InvalidDefinitions
from ..models import Queue, Topic, Webhook
from ..sync import dead_letter_queue
from .definitions import IDENTITIES, KINDS, Definition, fields_of, parse, value_of
from .history import Operator, enter, log
from .queues import tell_workers
from .versions import add_version, version_of
from .webhooks import obstacle_to_webhook


class Change(NamedTuple):
    """One policy of one row: ``what`` is "queue emails"."""

    what: str
    policy: str
    before: Any
    after: Any


@dataclass(slots=True)
class Imported:
    """What an import has created and changed."""

    created: list[str] = field(default_factory=list)
    changed: list[Change] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.created or self.changed)


def import_definitions(
    text: str | bytes, *, by: Operator = "", dry_run: bool = False, using: str | None = None
) -> Imported:
    """Create and change what an export has, queues to webhooks, as it says; delete none.

    Rows are found by their names, and policies that are not named stay as they are. A queue that is
    new and names no dead-letter queue gets its own. Doing it again changes nothing. Raises
    InvalidDefinitions with the line or the field that is wrong, and nothing is imported then.
    ``dry_run`` only tells.

    A version of a schema never changes: another document under its number is refused. What a topic
    promises of new versions is not checked again, since that may have been another promise then.
    """
    definitions = parse(text)
    alias = using or conf.DATABASE
    imported = Imported()
    with transaction.atomic(using=alias):
        # In one order in every import, so that two of them wait for each other and no more.
        rows = [
            _write(definition, by, alias, imported)
            for kind in KINDS
            for definition in sorted(
                _of_kind(definitions, kind), key=lambda each: tuple(each.identity.values())
            )
        ]
        _use_schemas(rows, by, imported)
        _hold_dead_letters(rows, alias, imported)
        if dry_run:
            transaction.set_rollback(True, using=alias)
        elif imported:
            tell_workers(alias)
    if imported and not dry_run:
        changed = len({change.what for change in imported.changed})
        log("Definitions imported", by, created=len(imported.created), changed=changed)
    return imported


def _of_kind(definitions: list[Definition], kind: str) -> list[Definition]:
    return [definition for definition in definitions if definition.kind == kind]


def _write(
    definition: Definition, by: Operator, alias: str, imported: Imported
) -> tuple[Definition, Any]:
    """Create or change a row; which queue holds a queue's dead letters is left for later."""
    if definition.kind == "schemas":
        return definition, add_version(definition, by, alias, imported.created)
    fields = fields_of(definition.kind)
    identity: dict[str, Any] = definition.identity
    if "queue" in identity:
        identity["queue"] = _queue(definition, "queue", alias)
    policies = {
        name: value
        for name, value in definition.values.items()
        if name not in IDENTITIES[definition.kind] and not fields[name].is_relation
    }
    model = KINDS[definition.kind]
    rows = model._default_manager.using(alias).select_for_update(of=("self",))
    if definition.kind in ("schedules", "webhooks"):
        policies |= _targets(definition, alias)
    row = rows.filter(**identity).first()
    if row is None:
        _check(definition, model(**identity, **policies))
        row, is_new = rows.get_or_create(**identity, defaults=policies)
        if is_new:
            imported.created.append(definition.what)
            enter(by, row, "Imported: created.")
            return definition, row
    changed = _change(definition, row, policies, imported)
    if changed:
        _check(definition, row)
        row.save(update_fields=changed)
        enter(by, row, f"Imported: {', '.join(changed)}.")
    return definition, row


def _targets(definition: Definition, alias: str) -> dict[str, Any]:
    """Return where the messages of a schedule go, or those of a webhook come from, as rows."""
    found: dict[str, Any] = {}
    if "queue" in definition.values:
        found["queue"] = _queue(definition, "queue", alias)
    if "topic" in definition.values:
        name = definition.values["topic"]
        found["topic"] = name and Topic.objects.using(alias).filter(name=name).first()
        if name and found["topic"] is None:
            raise InvalidDefinitions(
                f"{definition.place}, topic", f"topic {name[:80]!r} is neither defined nor there"
            )
    return found


def _use_schemas(rows: list[tuple[Definition, Any]], by: Operator, imported: Imported) -> None:
    """Say which version counts for each topic, now that all of them are there."""
    for definition, topic in rows:
        if definition.kind == "topics" and "schema" in definition.values:
            wanted = version_of(definition, topic)
            if _change(definition, topic, {"schema": wanted}, imported):
                topic.save(update_fields=["schema"])
                enter(by, topic, "Imported: schema.")


def _hold_dead_letters(rows: list[tuple[Definition, Any]], alias: str, imported: Imported) -> None:
    """Say which queue holds the dead letters of each, now that all of them are there."""
    queues = [(definition, row) for definition, row in rows if isinstance(row, Queue)]
    for definition, queue in queues:
        if "dead_letter_queue" in definition.values:
            holder = _queue(definition, "dead_letter_queue", alias)
            if _change(definition, queue, {"dead_letter_queue": holder}, imported):
                queue.save(update_fields=["dead_letter_queue"])
        elif definition.what in imported.created:
            holder, is_new = dead_letter_queue(queue.name, alias)
            if holder is not None and is_new:
                imported.created.append(f"queue {holder.name}")
            queue.dead_letter_queue = holder
            queue.save(update_fields=["dead_letter_queue"])
    for definition, queue in queues:
        queue.refresh_from_db()
        _check(definition, queue)


def _change(
    definition: Definition, row: models.Model, values: dict[str, Any], imported: Imported
) -> list[str]:
    """Set what is another value now; return the names of these columns."""
    fields = fields_of(definition.kind)
    changed = []
    for name, value in values.items():
        before = value_of(row, fields[name])
        setattr(row, name, value)
        after = value_of(row, fields[name])
        if before != after:
            changed.append(name)
            if definition.what not in imported.created:
                imported.changed.append(Change(definition.what, name, before, after))
    return changed


def _queue(definition: Definition, name: str, alias: str) -> Queue | None:
    """Return the queue that a definition names, of this document or already there."""
    wanted = definition.values[name]
    if wanted is None:
        return None
    found = Queue.objects.using(alias).filter(name=wanted).first()
    if found is None:
        raise InvalidDefinitions(
            f"{definition.place}, {name}", f"queue {wanted[:80]!r} is neither defined nor there"
        )
    return found


def _check(definition: Definition, row: models.Model) -> None:
    relations = {each.name for each in fields_of(definition.kind).values() if each.is_relation}
    try:
        row.clean_fields(exclude=relations)
        row.clean()
    except ValidationError as error:
        name, reasons = next(iter(error.message_dict.items()))
        raise InvalidDefinitions(f"{definition.place}, {name}", " ".join(reasons)) from error
    if isinstance(row, Webhook):
        if row.queue_id is None:
            raise InvalidDefinitions(definition.place, "queue is missing")
        if obstacle := obstacle_to_webhook(row.queue):
            raise InvalidDefinitions(f"{definition.place}, queue", obstacle)
        others = Webhook.objects.using(row._state.db).filter(queue=row.queue).exclude(name=row.name)
        if other := others.first():
            reason = f"webhook {other.name!r} has this queue already"
            raise InvalidDefinitions(f"{definition.place}, queue", reason)
