"""List the topics with what is going on in them."""

from collections.abc import Sequence

from ..exceptions import UnknownTopic
from ..names import check_topic_name
from ..store import searching
from ..store.connection import connection_for
from ..store.publishing import known_names
from ..store.topics import TopicRow
from ..store.topics import topics as found

SECONDS = 10.0


def topics(names: Sequence[str] | None = None, *, using: str | None = None) -> list[TopicRow]:
    """Return the topics named, or all, by name: subscriptions, schema, rate and last event.

    Raises UnknownTopic when one does not exist.
    """
    for name in names or ():
        check_topic_name(name)
    connection = connection_for(using)
    with searching.bounded(connection, SECONDS, "A look at the topics"):
        rows = found(connection, names)
        known = {row.name for row in rows}
        for name in names or ():
            if name not in known:
                raise UnknownTopic(name, known_names(connection, True))
    return rows
