"""Configuration: the queues that a worker serves, and their policies as the rows now say."""

from collections.abc import Callable, Sequence

from ..consuming import Consumer, declarations
from ..exceptions import UnknownQueue
from ..policies import QueuePolicy
from ..store.configuration import policies
from ..store.connection import connection_for

# Finds the consumers that rows make, and not code; by the alias of the database.
Finder = Callable[[str | None], Sequence[Consumer]]


def consumers_for(queues: Sequence[str]) -> list[Consumer]:
    """Return the consumers of the queues named, or of all; raise UnknownQueue for a wrong name."""
    declared = declarations.consumers
    for name in queues:
        if name not in declared:
            raise UnknownQueue(name, declared)
    return [declared[name] for name in dict.fromkeys(queues or declared)]


class Configuration:
    """Policies by queue name; refreshed by one thread, read by the others.

    ``found`` are the consumers that rows make at present, beside those that code declares.
    """

    def __init__(
        self, consumers: Sequence[Consumer], using: str | None, find: Finder | None = None
    ) -> None:
        self._declared = consumers
        self._using = using
        self._find = find
        self.found: Sequence[Consumer] = ()
        self._policies: dict[str, QueuePolicy] = {}
        self._changed = False
        self.is_held = False

    def refresh(self) -> None:
        """Read the rows again."""
        self._changed = False
        found = self._find(self._using) if self._find is not None else ()
        names = [consumer.queue for consumer in (*self._declared, *found)]
        rows = policies(connection_for(self._using), names=names)
        self._policies = {policy.name: policy for policy in rows}
        self.found = found

    @property
    def queues(self) -> list[str]:
        """Return the names of the queues that are served at present."""
        return [consumer.queue for consumer in (*self._declared, *self.found)]

    def expire(self) -> None:
        """Note that the rows have changed."""
        self._changed = True

    @property
    def is_expired(self) -> bool:
        return self._changed

    def hold(self, held: bool) -> None:
        """Serve no queue for the time being, or serve them again."""
        self.is_held = held

    def known(self) -> Sequence[QueuePolicy]:
        """Return the policies of all queues that exist."""
        return list(self._policies.values())

    def policy(self, queue: str) -> QueuePolicy | None:
        """Return the policy of a queue, or None while it does not exist or none is served."""
        return None if self.is_held else self._policies.get(queue)
