"""Expire: settle what has expired on queues that no worker serves.

Elsewhere whoever claims a message finds that it is too late. Where nobody claims, the house-keeping
of any worker looks, at a bounded part of each queue at a time.
"""

import datetime
import socket

from django.db import transaction

from . import leasing
from .acknowledgement import outcome_of_unserved
from .engines import engine
from .messages import Delivered
from .policies import QueuePolicy
from .store import deliveries, unserved
from .store.configuration import policies
from .store.connection import connection_for
from .store.unserved import Unserved

LOOK = 1_000


class Expiry:
    """Goes through the queues that nobody serves, and remembers how far it has come."""

    def __init__(self, using: str | None) -> None:
        self._using = using
        self._after: dict[tuple[int, int], int] = {}
        # Since when each of the queues is known to be served by nobody.
        self._since: dict[int, datetime.datetime] = {}

    def settle(self) -> int:
        """Settle what has expired there; return how many messages that were."""
        connection = connection_for(self._using)
        found = {each.queue_id: each for each in unserved.unserved(connection)}
        self._since = {
            queue_id: each.served_at or self._since.get(queue_id, each.now)
            for queue_id, each in found.items()
        }
        known = policies(connection, ids=list(found)) if found else []
        return sum(self._settle_queue(policy, found[policy.id]) for policy in known)

    def _settle_queue(self, policy: QueuePolicy, nobody: Unserved) -> int:
        connection = connection_for(self._using)
        with transaction.atomic(using=connection.alias):
            taken = unserved.take_entries(connection, policy.id, LOOK)
            for priority in deliveries.priorities(connection, policy.id):
                taken += self._take(policy.id, priority)
            if not taken:
                return 0
            since, known = self._since[policy.id], nobody.served_at is not None
            outcomes = [outcome_of_unserved(policy, each, since, known) for each in taken]
            worker = f"{socket.gethostname()} (nobody's queues)"
            leasing.settle_ended(engine().source(policy, self._using), outcomes, worker)
            leasing.note(connection, policy, outcomes, worker)
        return len(taken)

    def _take(self, queue_id: int, priority: int) -> list[Delivered]:
        connection = connection_for(self._using)
        after = self._after.pop((queue_id, priority), 0)
        taken, further = unserved.take_ready(connection, queue_id, priority, after, LOOK)
        if further is not None:
            self._after[queue_id, priority] = further
        return taken
