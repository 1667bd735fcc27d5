"""Begin operations: check what is asked, freeze it, and leave it to whoever carries it out."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from ..encoding import encode_body
from ..exceptions import InvalidOption, OperationRefused, QueueDisabled
from ..models import Operation, Queue
from ..store import groups
from ..store.connection import connection_for
from ..store.depths import COUNT_LIMIT
from ..store.filters import Filter, State
from ..store.purging import Ceiling
from .freezing import frozen
from .history import Operator
from .operating import SAMPLES, begin
from .purging import ceiling
from .queues import find_queue
from .selecting import WAITING, checked_states, of_states, preview

MOST_IDS = 10_000
AS_IT_IS: Final = object()


def begin_purge(queue: Queue | str, wanted: Filter | None = None, **how: Any) -> Operation:
    """Begin to delete what ``purge_matching`` would; see :func:`begin_move` for ``how``."""
    return _selecting("purge", queue, wanted, WAITING, (*WAITING, State.DEAD), {}, **how)


def begin_cancel(queue: Queue | str, wanted: Filter | None = None, **how: Any) -> Operation:
    """Begin to cancel what ``cancel_matching`` would; see :func:`begin_move` for ``how``."""
    only = (State.SCHEDULED,)
    return _selecting("cancel", queue, wanted, only, only, {}, **how)


def begin_move(
    queue: Queue | str, to: Queue | str, wanted: Filter | None = None, **how: Any
) -> Operation:
    """Begin to move what ``move`` would.

    ``how``: ``rate`` messages a second, ``by``, ``upto`` (the ceiling), ``using``.
    """
    using = how.get("using")
    found, target = find_queue(queue, using), find_queue(to, using)
    if found.pk == target.pk:
        raise OperationRefused(
            f"Queue {found.name!r} cannot be moved to itself. Name another queue."
        )
    if target.is_disabled:
        raise QueueDisabled(target.name)
    allowed = (*WAITING, State.DEAD)
    return _selecting("move", found, wanted, WAITING, allowed, {}, to=target, **how)


def begin_edit(
    queue: Queue | str, wanted: Filter | None = None, *, patch: Any, **how: Any
) -> Operation:
    """Begin to change bodies by a JSON merge patch (RFC 7386); see :func:`begin_move`."""
    options = {"patch": json.loads(encode_body(patch))}
    return _selecting("edit", queue, wanted, WAITING, (*WAITING, State.DEAD), options, **how)


def begin_redrive(
    queue: Queue | str | None = None,
    wanted: Filter | None = None,
    *,
    ids: Collection[int] | None = None,
    fingerprint: str | None = None,
    to: Queue | str | None = None,
    patch: Any = AS_IT_IS,
    canary: bool = False,
    conditions: Mapping[str, Any] | None = None,
    rate: float | None = None,
    by: Operator = "",
    upto: Ceiling | None = None,
    using: str | None = None,
) -> Operation:
    """Begin to redrive dead letters: all, or those that fulfil every condition given.

    ``queue``: it holds them or they come from it; ``fingerprint``: of their group; ``ids``: of the
    dead letters. ``to`` another queue than each comes from; ``patch``: a merge patch of their
    bodies. With ``canary`` one goes first: when it fails again the operation has failed.
    """
    target = find_queue(to, using) if to is not None else None
    if target is not None and target.is_disabled:
        raise QueueDisabled(target.name)
    options: dict[str, Any] = {"canary": bool(canary), "elsewhere": target is not None}
    if patch is not AS_IT_IS:
        options["patch"] = json.loads(encode_body(patch))
    return _dead(
        "redrive", queue, wanted, ids, fingerprint, conditions, options,
        to=target, rate=rate, by=by, upto=upto, using=using,
    )  # fmt: skip


def begin_discard(
    queue: Queue | str | None = None,
    wanted: Filter | None = None,
    *,
    ids: Collection[int] | None = None,
    fingerprint: str | None = None,
    conditions: Mapping[str, Any] | None = None,
    **how: Any,
) -> Operation:
    """Begin to delete dead letters for good; they are named as for :func:`begin_redrive`."""
    return _dead("discard", queue, wanted, ids, fingerprint, conditions, {}, **how)


def _selecting(
    kind: str,
    queue: Queue | str,
    wanted: Filter | None,
    default: Sequence[State],
    allowed: Sequence[State],
    options: dict[str, Any],
    *,
    to: Queue | None = None,
    rate: float | None = None,
    by: Operator = "",
    upto: Ceiling | None = None,
    using: str | None = None,
) -> Operation:
    found = find_queue(queue, using)
    states = checked_states(wanted or Filter(), default, allowed)
    meant = of_states(wanted or Filter(), states)
    upto = upto or ceiling(using)
    seen = preview(found, meant, upto=upto, using=using)
    samples = [
        {"message": each.id, "state": str(each.state), "error": each.error[:200]}
        for each in seen.samples[:SAMPLES]
    ]
    return begin(
        kind,
        queue=found,
        to=to,
        filter=frozen(meant),
        options=options | {"ceiling": list(upto), "samples": samples},
        rate=rate,
        total=seen.count,
        is_exact=seen.is_exact,
        by=by,
        using=using,
    )


def _dead(
    kind: str,
    queue: Queue | str | None,
    wanted: Filter | None,
    ids: Collection[int] | None,
    fingerprint: str | None,
    conditions: Mapping[str, Any] | None,
    options: dict[str, Any],
    *,
    to: Queue | None = None,
    rate: float | None = None,
    by: Operator = "",
    upto: Ceiling | None = None,
    using: str | None = None,
) -> Operation:
    found = find_queue(queue, using) if queue is not None else None
    wanted = wanted or Filter()
    checked_states(wanted, (State.DEAD,), (State.DEAD,))
    if ids is not None and not 0 < len(ids) <= MOST_IDS:
        raise InvalidOption("ids", f"{len(ids):,} ids", f"give 1 to {MOST_IDS:,} ids")
    meant: dict[str, Any] = {
        "queue": found.pk if found else None,
        "fingerprint": fingerprint,
        "dead_ids": None if ids is None else [int(each) for each in ids],
        **(conditions or {}),
    }
    meant = {name: value for name, value in meant.items() if value is not None}
    above = meant.pop("above", 0)
    upto = upto or ceiling(using)
    chosen = _count(wanted, meant, above, upto, using)
    samples = [{"dead_letter": each} for each in chosen[:SAMPLES]]
    return begin(
        kind,
        queue=found,
        to=to,
        filter=frozen(wanted) | meant,
        options=options | {"ceiling": list(upto), "samples": samples},
        position={"after": above},
        rate=rate,
        total=min(len(chosen), COUNT_LIMIT),
        is_exact=len(chosen) <= COUNT_LIMIT,
        by=by,
        using=using,
    )


def _count(
    wanted: Filter, conditions: dict[str, Any], above: int, upto: Ceiling, using: str | None
) -> list[int]:
    """Return the ids of those that are meant, and one more than is counted at most."""
    found: list[int] = []
    after: int | None = above
    while after is not None and len(found) <= COUNT_LIMIT:
        page = groups.choose(
            connection_for(using), wanted, conditions,
            after=after, upto=upto.dead, limit=COUNT_LIMIT + 1 - len(found),
        )  # fmt: skip
        found += page.ids
        after = page.next
    return found
