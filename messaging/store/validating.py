"""Validate: hold bodies against the schema of their topic before they are stored.

The statement that stores says which version counts. A process remembers the last one of each topic
only to have validated before it asks, so that the usual case is one statement.
"""

import json
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from django.db.backends.base.base import BaseDatabaseWrapper

from ..exceptions import InvalidMessage
from .connection import run
from .outgoing import Outgoing

if TYPE_CHECKING:
    from ..schemas import Validator

# So many topics are remembered.
REMEMBERED = 500


class Version(NamedTuple):
    """A version of a topic's schema, which never changes, made ready to hold bodies against."""

    id: int
    number: int
    validator: "Validator"


_remembered: dict[tuple[str, str], Version] = {}
_lock = Lock()


def recalled(connection: BaseDatabaseWrapper, outgoing: Outgoing) -> Outgoing:
    """Return messages marked as valid, if they are for the last version that is remembered.

    What is not valid for that one may be for the one that counts now.
    """
    known = _remembered.get((connection.alias, outgoing.name))
    if known is None or outgoing.schema_id is not None:
        return outgoing
    try:
        return _checked(outgoing, known)
    except InvalidMessage:
        return outgoing


CURRENT = """
    SELECT version.id, version.version, version.document::text
    FROM messaging_topic AS topic JOIN messaging_schema AS version ON version.id = topic.schema_id
    WHERE topic.name = %s
"""


def validated(connection: BaseDatabaseWrapper, outgoing: Outgoing) -> Outgoing:
    """Return messages marked as valid for the version that counts now, or raise InvalidMessage."""
    # Whoever has no schemas need not have loaded this.
    from ..schemas import Validator

    rows = run(connection, CURRENT, (outgoing.name,))
    if not rows:
        return outgoing._replace(schema_id=None)
    schema_id, number, document = rows[0]
    place = connection.alias, outgoing.name
    known = _remembered.get(place)
    if known is None or known.id != schema_id:
        known = Version(schema_id, number, Validator(json.loads(document)))
        _remember(place, known)
    return _checked(outgoing, known)


def forget() -> None:
    """Forget all versions: the tables were emptied, and ids may come again."""
    _remembered.clear()


def _checked(outgoing: Outgoing, known: Version) -> Outgoing:
    for index, body in enumerate(outgoing.bodies):
        if fault := known.validator.fault(json.loads(body)):
            raise InvalidMessage(
                f"{fault.reason} (topic {outgoing.name!r}, schema version {known.number}, "
                f"{fault.rule}).",
                path=fault.path,
                index=index if outgoing.is_batch else None,
            )
    return outgoing._replace(schema_id=known.id)


def _remember(place: tuple[str, str], known: Version) -> None:
    with _lock:
        _remembered.pop(place, None)
        while len(_remembered) >= REMEMBERED:
            del _remembered[next(iter(_remembered))]
        _remembered[place] = known
