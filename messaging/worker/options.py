"""Options: what `runworker` was asked for."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass

from ..consuming import Consumer
from .configuration import Finder


@dataclass(frozen=True, kw_only=True)
class Options:
    """Grace in seconds, memory of each process in bytes.

    ``find`` finds the consumers that come and go with rows, all of them asynchronous.
    """

    consumers: Sequence[Consumer]
    find: Finder | None = None
    processes: int = 1
    threads: int = 1
    drain: bool = False
    max_messages: int | None = None
    max_memory: int | None = None
    grace: float = 30.0
    name: str | None = None
    health: tuple[str, int] | None = None
    using: str | None = None

    def shared_out(self) -> tuple[list[Consumer], list[Consumer]]:
        """Return the consumers that threads run, and those that an event loop runs.

        A drain or a limited number of messages has the threads run all: they know when it is over.
        """
        if self.is_limited:
            return list(self.consumers), []
        in_a_loop = [consumer for consumer in self.consumers if consumer.is_async]
        return [consumer for consumer in self.consumers if not consumer.is_async], in_a_loop

    @property
    def is_limited(self) -> bool:
        """Whether it ends by itself."""
        return self.drain or self.max_messages is not None

    @property
    def has_a_loop(self) -> bool:
        """Whether each process has an event loop."""
        return bool(self.shared_out()[1]) or (self.find is not None and not self.is_limited)

    @property
    def holds_leases(self) -> bool:
        """Whether messages are held outside of the transactions of their handlers."""
        return self.find is not None or any(each.is_leased for each in self.consumers)

    @property
    def slots(self) -> int:
        """How many slots each process has: one for each thread, and one for an event loop."""
        return self.threads + self.has_a_loop

    def process_name(self, pid: int | None) -> str:
        """Return the name under which a process gives signs of life."""
        return f"{self.name or socket.gethostname()}/{pid}"
