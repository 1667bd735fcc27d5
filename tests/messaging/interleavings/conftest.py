"""What interleavings start from: queues, sessions, and a function that runs every schedule."""

import logging
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from interleaving import Job, Schedule, Stage, explore
from invariants import hold
from journal import current
from proofs import SEED
from stories import EFFECT, RESET, execute, handled, held, take_effect, work_off

from messaging import DeduplicationConflict, LeaseLost, consumer, declare_topic, receiving
from messaging.engines import wakeup
from messaging.engines.postgresql import PostgreSQLEngine
from messaging.sync import synchronise

# Of three sessions there may be tens of thousands of orders: so many of them at most, twice.
MOST = 40
EXPECTED = (DeduplicationConflict, LeaseLost)
POLICIES = {"max_deliveries": 2, "backoff": "fixed", "backoff_base": 0, "jitter": "none"}


@pytest.fixture(autouse=True)
def shop(transactional_db: None, declared: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Declare queues whose handlers leave an effect; nobody has to be woken, or tidies by time."""
    for where in ("announce", "announce_change"):
        monkeypatch.setattr(wakeup, where, lambda *_: None)
    monkeypatch.setattr(receiving.Tidied, "is_long_ago", lambda *_: False)
    monkeypatch.setattr(logging.getLogger("messaging"), "disabled", True)
    store = PostgreSQLEngine.store
    monkeypatch.setattr(
        PostgreSQLEngine, "store", lambda *args: current.journal.store(store, *args)
    )
    for name in ("invoices", "copies"):
        consumer(name, **POLICIES)(take_effect)
    declare_topic("orders.placed")
    synchronise()
    execute("SET synchronous_commit = off")
    execute(EFFECT)
    yield
    execute("DROP TABLE effect")


@pytest.fixture
def stage(shop: None) -> Iterator[Stage]:
    """Give a test three sessions."""
    stage = Stage(
        "abc",
        ending=lambda session: current.journal.ending(session),
        ended=lambda session, committed: current.journal.ended(session, committed),
    )
    yield stage
    stage.close()


@pytest.fixture
def every_order(
    stage: Stage, record_property: Callable[[str, Any], None]
) -> Callable[..., list[Schedule]]:
    """Return a function that runs jobs in every order, and checks what must always hold.

    ``start`` prepares, ``check`` looks right after the jobs, ``finally_`` when all is worked off;
    ``ordered``: what has the key "k" took effect in the order in which it was sent.
    """

    def every_order(
        start: Callable[[], Any],
        jobs: Mapping[str, Job],
        check: Callable[[Schedule], None] = lambda schedule: None,
        finally_: Callable[[Schedule], None] = lambda schedule: None,
        *,
        ordered: bool = True,
        most: int = MOST,
    ) -> list[Schedule]:
        def run(prefix: Any, chance: random.Random | None) -> Schedule:
            execute(RESET)
            held.clear()
            current.begin()
            start()
            return stage.run(jobs, prefix, chance)

        seen = []
        for schedule in explore(run, most=most, seed=SEED):
            seen.append(schedule)
            try:
                look_at(schedule)
                check(schedule)
                work_off()
                finally_(schedule)
                assert not ordered or handled() == sorted(handled()), handled()
            except BaseException as error:
                error.add_note(f"PROOF_SEED={SEED}, schedule {len(seen)}: {schedule}")
                raise
        steps = sum(len(schedule.steps) for schedule in seen)
        record_property("tried", {"schedules": len(seen), "statements": steps, "stories": 1})
        assert len({tuple(schedule.steps) for schedule in seen}) > 1
        return seen

    return every_order


def look_at(schedule: Schedule) -> None:
    """Look that nothing went wrong that no story tells of."""
    assert not schedule.deadlocks, "a deadlock"
    for result in schedule.results.values():
        if isinstance(result, BaseException) and not isinstance(result, EXPECTED):
            raise result
    hold(schedule)
