"""Kinds of operations: what one step of a purge, move, cancel, edit, redrive or discard does."""

from functools import partial
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.translation import gettext_lazy as _

from ..exceptions import OperationRefused
from ..models import Operation, Queue
from ..store import deadletters, groups, receipts, redriving, searching, selected
from ..store.filters import State
from ..store.purging import Ceiling
from ..store.searching import Position
from .batches import announced
from .freezing import thawed
from .operating import Step, register
from .patching import merge
from .rewriting import Rewriting
from .selecting import WAITING, newest_of, taken_away

SECONDS = 10.0
LOOK_AT_CANARY = 0.5


class Selecting:
    """A verb on what a filter describes on one queue."""

    def __init__(self, name: str, label: Any, permission: str, default: Any, act: Any) -> None:
        self.name = name
        self.label = label
        self.permission = permission
        self.default = default
        self.act = act

    def step(self, connection: BaseDatabaseWrapper, operation: Operation, limit: int) -> Step:
        """Act on the next page of a section, then go on with the next section."""
        queue = existing(connection, operation.queue_id)
        wanted = thawed(operation)
        sections = searching.sections_of(wanted.states or self.default, of_one_queue=True)
        name = operation.position.get("section", sections[0].name)
        section = searching.BY_NAME[name]
        after = operation.position.get("after")
        with searching.bounded(connection, SECONDS, f"A look at queue {queue.name!r}"):
            page = searching.page(
                connection,
                section,
                wanted,
                queue_id=queue.pk,
                after=Position(*after) if after else None,
                upto=newest_of(section, Ceiling(*operation.options["ceiling"])),
                limit=limit,
                payload=False,
            )
        done = self.act(connection, operation, section, page.rows) if page.rows else 0
        if page.next:
            return Step(done, {"section": name, "after": list(page.next)})
        if section is sections[-1]:
            return Step(done, {}, finished=True)
        return Step(done, {"section": sections[sections.index(section) + 1].name})


def _purge(connection: BaseDatabaseWrapper, operation: Operation, section: Any, rows: Any) -> int:
    if section.state is State.DEAD:
        return len(deadletters.discard(connection, [row.id for row in rows]))
    outcome = receipts.CANCELLED if operation.kind == "cancel" else receipts.PURGED
    queue_id, by = operation.queue_id or 0, operation.created_by
    return taken_away(connection, section, queue_id, rows, by, outcome)


def _move(connection: BaseDatabaseWrapper, operation: Operation, section: Any, rows: Any) -> int:
    to = existing(connection, operation.to_id).pk
    if section.state is State.DEAD:
        ids = [row.id for row in rows]
        moved = redriving.redrive(connection, ids, to, by=operation.created_by)
        return announced(connection, moved)
    taken = selected.take(connection, section, operation.queue_id or 0, rows)
    if taken:
        announced(connection, selected.place(connection, to, taken))
    return len(taken)


def _edit(connection: BaseDatabaseWrapper, operation: Operation, section: Any, rows: Any) -> int:
    return rewriting_of(operation).act(connection, section, rows)


class Redrive:
    """Dead letters, back to where they come from or elsewhere; one first where asked for."""

    name, label, permission = "redrive", _("Redrive"), "redrive_deadletter"

    def step(self, connection: BaseDatabaseWrapper, operation: Operation, limit: int) -> Step:
        """Redrive the next dead letters, once the canary was handled."""
        canary = operation.position.get("canary")
        after = operation.position.get("after", 0)
        to = (
            existing(connection, operation.to_id).pk if operation.options.get("elsewhere") else None
        )
        if canary is None and operation.options.get("canary"):
            limit = 1
        if canary:
            what = groups.became(connection, canary)
            if what == "failed":
                reason = f"The canary, message {canary['message_id']}, has failed again."
                return Step(0, {"after": after}, failed=reason)
            if what == "waits":
                return Step(0, operation.position, wait=LOOK_AT_CANARY)
            canary = {}
        chosen = _choose(connection, operation, after, limit)
        ids = _rewritten(connection, operation, chosen.ids)
        first = None
        if limit == 1 and canary is None and ids and operation.options.get("canary"):
            first = groups.canary_of(connection, ids[0], to)
        rows = redriving.redrive(connection, ids, to, by=operation.created_by) if ids else []
        done = announced(connection, rows)
        stay = _stay(connection, operation, ids, done, to)
        position: dict[str, Any] = {"after": chosen.next if chosen.next is not None else after}
        position |= {"stay": stay} if any(stay) else {}
        if first and done:
            # Whether others follow is seen once it was handled.
            position |= {"after": chosen.ids[-1], "canary": first}
            return Step(done, position, wait=LOOK_AT_CANARY)
        if canary is not None:
            position["canary"] = canary
        if chosen.next is not None or not any(stay):
            return Step(done, position, finished=chosen.next is None)
        if operation.done + done:
            return Step(done, position, finished=True, note=_told(stay))
        return Step(done, position, failed=_told(stay))


def _stay(
    connection: BaseDatabaseWrapper,
    operation: Operation,
    ids: list[int],
    done: int,
    to: int | None,
) -> list[int]:
    """Return how many have lost their queue so far, and how many ``to`` itself holds."""
    before = operation.position.get("stay", [0, 0])
    if done == len(ids):
        return list(before)
    return [sum(each) for each in zip(before, redriving.stuck(connection, ids, to), strict=True)]


def _told(stay: list[int]) -> str:
    homeless, held = stay
    parts = []
    if homeless:
        parts.append(
            f"{homeless:,} dead letters stay: the queue that they come from no longer exists. "
            f"Redrive them to another queue, or discard them."
        )
    if held:
        parts.append(
            f"{held:,} dead letters stay: the queue that they would go to is the one that holds "
            f"them. Redrive them to one that handles them."
        )
    return " ".join(parts)


class Discard:
    """Dead letters, deleted for good."""

    name, label, permission = "discard", _("Discard"), "redrive_deadletter"

    def step(self, connection: BaseDatabaseWrapper, operation: Operation, limit: int) -> Step:
        """Delete the next dead letters."""
        after = operation.position.get("after", 0)
        chosen = _choose(connection, operation, after, limit)
        done = len(deadletters.discard(connection, chosen.ids)) if chosen.ids else 0
        position = {"after": after if chosen.next is None else chosen.next}
        return Step(done, position, finished=chosen.next is None)


def _choose(
    connection: BaseDatabaseWrapper, operation: Operation, after: int, limit: int
) -> groups.Chosen:
    conditions = {
        name: operation.filter[name] for name in groups.CONDITIONS if name in operation.filter
    }
    upto = Ceiling(*operation.options["ceiling"]).dead
    return groups.choose(
        connection, thawed(operation), conditions, after=after, upto=upto, limit=limit
    )


def _rewritten(
    connection: BaseDatabaseWrapper, operation: Operation, dead_ids: list[int]
) -> list[int]:
    """Patch the messages of dead letters where asked for; return those that are as they should."""
    if "patch" not in operation.options or not dead_ids:
        return dead_ids
    messages = groups.messages_of(connection, dead_ids)
    _, held = rewriting_of(operation).rewrite(connection, messages.values())
    return [each for each in dead_ids if messages.get(each) in held]


def rewriting_of(operation: Operation) -> Rewriting:
    """Return the change of a merge patch."""
    patch = operation.options["patch"]
    return Rewriting(partial(_merge, patch), operation.created_by)


def _merge(patch: Any, body: Any) -> Any:
    return merge(body, patch)


def existing(connection: BaseDatabaseWrapper, queue_id: int | None) -> Queue:
    """Return a queue of an operation, which may be gone by now."""
    found = Queue.objects.using(connection.alias).filter(pk=queue_id or 0).first()
    if found is None:
        raise OperationRefused("A queue of this operation no longer exists. Begin another one.")
    return found


register(Selecting("purge", _("Purge"), "purge_queue", WAITING, _purge))
register(Selecting("move", _("Move"), "consume_queue", WAITING, _move))
register(Selecting("cancel", _("Cancel"), "purge_queue", (State.SCHEDULED,), _purge))
register(Selecting("edit", _("Edit"), "edit_message", WAITING, _edit))
register(Redrive())
register(Discard())
