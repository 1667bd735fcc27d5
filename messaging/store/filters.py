"""Filters: say which messages are meant, as a value and as conditions of a statement."""

import datetime
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol

from ..encoding import check_key, check_seconds, check_text, encode_body, encode_headers
from ..exceptions import InvalidOption
from ..names import check_topic_name

# More would make a statement that nobody reads and the server plans for longer than it runs.
MOST_CONDITIONS = 20
MOST_IDS = 10_000
NOTHING: Mapping[Any, Any] = MappingProxyType({})


class State(StrEnum):
    """Where a message is on its way.

    ``ready`` is also what waits behind a key, and what a worker handles in its transaction;
    ``in_flight`` is held under a lease. ``completed`` waits nowhere any more: handled, or else
    cancelled, purged or expired.
    """

    READY = "ready"
    SCHEDULED = "scheduled"
    IN_FLIGHT = "in_flight"
    DEAD = "dead"
    COMPLETED = "completed"


class Conditions(Protocol):
    """Conditions on ``looked``, the row that waits, and ``message``, its payload."""

    @property
    def where(self) -> str: ...

    @property
    def params(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Messages that fulfil every condition given.

    ``state``: one or several. ``headers``: names to values. ``body``: paths to JSON values, such as
    ``{"customer.country": "GB", "lines.0.sku": "A1"}``; a name with a dot in it takes a tuple as
    the path, and ``()`` is the whole body. ``key``: an ordering or fairness key. ``older_than`` and
    ``newer_than``: seconds or a ``timedelta`` since it was published. ``error``: part of the name
    or text of its last error, in small or capital letters. ``topic``: what it was published to.
    ``ids``: of messages.
    """

    state: State | str | Collection[str] | None = None
    headers: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    body: Mapping[str | tuple[str, ...], Any] = field(default_factory=lambda: NOTHING)
    key: str | None = None
    older_than: float | datetime.timedelta | None = None
    newer_than: float | datetime.timedelta | None = None
    error: str | None = None
    topic: str | None = None
    ids: Collection[int] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_conditions", _Conditions(self))
        self.states  # noqa: B018 - refuses what is no state

    @property
    def states(self) -> tuple[State, ...]:
        """The states asked for, in the order of a message's way; none stands for any."""
        if self.state is None:
            return ()
        asked = {self.state} if isinstance(self.state, str) else set(self.state)
        if not asked or not asked <= set(State):
            known = ", ".join(State)
            raise InvalidOption("state", self.state, f"use one or several of {known}")
        return tuple(state for state in State if state in asked)

    def __str__(self) -> str:
        given = {
            "state": ",".join(self.states),
            "headers": dict(self.headers),
            "body": {
                path if isinstance(path, str) else tuple(path): value
                for path, value in self.body.items()
            },
            "key": self.key,
            "older_than": self.older_than,
            "newer_than": self.newer_than,
            "error": self.error,
            "topic": self.topic,
            "ids": None if self.ids is None else list(self.ids)[:10],
        }
        return " ".join(f"{name}={value}" for name, value in given.items() if value) or "everything"

    @property
    def where(self) -> str:
        """Conditions on ``looked``, the row that waits, and ``message``, its payload."""
        conditions: _Conditions = self._conditions  # type: ignore[attr-defined]
        return conditions.sql

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of ``where``."""
        conditions: _Conditions = self._conditions  # type: ignore[attr-defined]
        return conditions.params


class _Conditions:
    """The conditions of a filter: checked, and as SQL that holds no value of it."""

    def __init__(self, wanted: Filter) -> None:
        self.sql = "true"
        self.params: dict[str, Any] = {}
        if len(wanted.body) + len(wanted.headers) > MOST_CONDITIONS:
            raise InvalidOption(
                "body", f"{len(wanted.body)} fields", f"use at most {MOST_CONDITIONS} conditions"
            )
        if wanted.headers:
            self._add("message.headers @> %(headers)s::jsonb", headers=_headers(wanted.headers))
        for number, (path, value) in enumerate(wanted.body.items()):
            self._add(
                f"message.body #> %(path_{number})s::text[] = %(value_{number})s::jsonb",
                **{f"path_{number}": _path(path), f"value_{number}": encode_body(value)},
            )
        if wanted.key is not None:
            self._add(
                "coalesce(message.ordering_key, message.fairness_key) = %(key)s",
                key=check_key(wanted.key, what="key"),
            )
        for option, comparison in (("older_than", "<"), ("newer_than", ">=")):
            if (age := getattr(wanted, option)) is not None:
                self._add(
                    f"message.published_at {comparison} statement_timestamp()"
                    f" - %({option})s::float8 * interval '1 second'",
                    **{option: check_seconds(age, what=option)},
                )
        if wanted.error is not None:
            text = check_text(wanted.error, what="error", limit=200)
            self._add("strpos(lower({error}), lower(%(error)s)) > 0", error=text)
        if wanted.topic is not None:
            self._add(
                "message.topic_id = (SELECT id FROM messaging_topic WHERE name = %(topic)s)",
                topic=check_topic_name(wanted.topic),
            )
        if wanted.ids is not None:
            self._add("looked.message_id = ANY (%(ids)s::bigint[])", ids=_ids(wanted.ids))

    def _add(self, condition: str, **params: Any) -> None:
        self.sql += f" AND {condition}"
        self.params |= params


def _headers(headers: Mapping[str, Any]) -> str:
    ours = {name: value for name, value in headers.items() if str(name).startswith("x-messaging-")}
    theirs = {name: value for name, value in headers.items() if name not in ours}
    encode_headers(theirs)
    return json.dumps(dict(headers), ensure_ascii=False)


def _path(path: str | tuple[str, ...]) -> list[str]:
    steps = path.split(".") if isinstance(path, str) else [str(step) for step in path]
    if len(steps) > 64 or any("\0" in step for step in steps):
        raise InvalidOption("body", path, "use a path such as 'customer.country', 64 steps at most")
    return steps


def _ids(ids: Collection[int]) -> list[int]:
    numbers = [int(each) for each in ids]
    if len(numbers) > MOST_IDS:
        raise InvalidOption("ids", f"{len(numbers):,} ids", f"use at most {MOST_IDS:,} ids")
    if any(not -(2**63) <= number < 2**63 for number in numbers):
        raise InvalidOption("ids", ids, "use ids of messages")
    return numbers
