"""Test: run consumers on the real SQL, in the test's own transaction."""

from . import leasing, maintenance
from .store import lanes
from .store.connection import connection_for
from .sync import synchronise
from .worker.configuration import Configuration, consumers_for
from .worker.runner import Runner

MAX_ROUNDS = 100_000


def drain(*queues: str, using: str | None = None) -> int:
    """Handle messages of the queues named, or of all, until nothing is ready.

    Returns how many deliveries were handled. Works inside ``TestCase``: nothing is committed that
    the test does not commit. What is scheduled for later stays, unless it has become due.
    """
    synchronise(using)
    consumers = consumers_for(queues)
    configuration = Configuration(consumers, using)
    configuration.refresh()
    runner = Runner(consumers, configuration, using=using, name="drain", drain=True)
    total = 0
    for _ in range(MAX_ROUNDS):
        leasing.sweep_expired(using)
        maintenance.promote_due(using)
        lanes.join_now(connection_for(using))
        done = runner.run_round()
        total += done.settled
        if not done.settled and not done.unsettled:
            return total
    raise RuntimeError(
        f"drain() handled {total:,} deliveries and there are more: does a consumer send to itself?"
    )
