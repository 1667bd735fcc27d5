"""A state machine: random operations on the real SQL, beside a model of what they mean."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, connections, transaction
from effects import execute
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from model import GONE, NEVER, Item, Model
from model import Queue as QueueModel
from proofs import SEED

import messaging
from messaging import (
    DeduplicationConflict,
    LeaseLost,
    Message,
    Reject,
    Retry,
    control,
    leasing,
    maintenance,
    publish,
    receive,
    send,
    send_many,
)
from messaging.delivery import deliver
from messaging.engines import engine, wakeup
from messaging.models import Queue, Subscription, Topic
from messaging.store.configuration import policies
from messaging.worker.casualties import Casualties
from messaging.worker.configuration import Configuration, consumers_for
from messaging.worker.runner import Runner
from messaging.worker.slots import Slots

RUNS = int(os.environ.get("MODEL_RUNS", "300"))
STEPS = int(os.environ.get("MODEL_STEPS", "50"))
# Of a part each, so that several processes share them.
PARTS = 4
# A failure is made as short as it gets, which takes minutes: not where only a yes or no is wanted.
IS_HURRIED = bool(os.environ.get("CI") or os.environ.get("MODEL_AS_FOUND"))
PHASES = [Phase.generate] if IS_HURRIED else [Phase.generate, Phase.shrink]
# So long that the time a run takes makes no difference to what is due.
UNIT = 600  # seconds
DEDUPLICATION = 6  # units
RETENTION = 1_008  # units: seven days

QUEUES = {
    "blocks": QueueModel("blocks", "block"),
    "skips": QueueModel("skips", "skip"),
    "parks": QueueModel("parks", "park", keeps_expired=True),
}
SUBSCRIBERS = ("blocks", "skips")
names = st.sampled_from(sorted(QUEUES))
keys = st.sampled_from([None, "a", "b"])
units = st.integers(1, 4)
# What ends a story for many messages at once happens now and then only.
seldom = st.sampled_from([False, False, False, False, True])

STATE = """
    SELECT message_id, queue.name, place, attempt, reason FROM (
        SELECT message_id, queue_id, 'ready' AS place, attempt, '' AS reason
            FROM messaging_delivery WHERE lane_id IS NULL
        UNION ALL SELECT message_id, queue_id, 'ready', attempt, '' FROM messaging_laneentry
        UNION ALL SELECT message_id, queue_id, 'leased', attempt, '' FROM messaging_lease
        UNION ALL SELECT message_id, queue_id, 'scheduled', attempt, '' FROM messaging_scheduled
            WHERE message_id <> 0
        UNION ALL SELECT message_id, origin_id, 'dead', attempts, reason FROM messaging_deadletter
    ) AS waiting JOIN messaging_queue AS queue ON queue.id = waiting.queue_id
"""
EFFECTS = "SELECT message_id, queue, count(*) FROM model_effect GROUP BY message_id, queue"
RESET = """
    DELETE FROM messaging_message; DELETE FROM messaging_delivery; DELETE FROM messaging_scheduled;
    DELETE FROM messaging_lane; DELETE FROM messaging_laneentry; DELETE FROM messaging_lease;
    DELETE FROM messaging_arrival; DELETE FROM messaging_deadletter;
    DELETE FROM messaging_deduplication; DELETE FROM messaging_attempt; DELETE FROM model_effect;
    UPDATE messaging_queue SET paused_at = NULL;
"""
# The clock of the database cannot be turned, but all that it is compared with can be turned back.
PASS = """
    UPDATE messaging_scheduled SET due_at = due_at - {0}, expires_at = expires_at - {0};
    UPDATE messaging_delivery SET expires_at = expires_at - {0} WHERE expires_at IS NOT NULL;
    UPDATE messaging_laneentry SET expires_at = expires_at - {0} WHERE expires_at IS NOT NULL;
    UPDATE messaging_lease SET leased_until = leased_until - {0}, expires_at = expires_at - {0};
    UPDATE messaging_deduplication SET expires_at = expires_at - {0};
    UPDATE messaging_message SET published_at = published_at - {0};
"""

GONE_OR_DEAD = ("dead", 0, "")

totals: Counter[str] = Counter()
# What has really happened, of all that was tried.
happened: Counter[str] = Counter()


class Killed(Exception):
    """Stands for the end of a process: its transaction is rolled back."""


class Messages(RuleBasedStateMachine):
    """What senders, workers, holders and operators do, and time."""

    def __init__(self) -> None:
        super().__init__()
        execute(RESET)
        self.model = Model({name: QueueModel(**vars(queue)) for name, queue in QUEUES.items()})
        self.held: list[tuple[Message, Item]] = []
        self.deduplicated: dict[str, tuple[int, int, int]] = {}
        self.handled: list[tuple[Message, str]] = []
        totals["runs"] += 1

    # Sending

    @rule(
        queue=names, key=keys, priority=st.sampled_from([0, 0, 0, 5, -5]),
        delay=st.sampled_from([0, 0, 0, 1, 3]), ttl=st.sampled_from([None, None, 1, 4]),
    )  # fmt: skip
    def send(self, queue, key, priority, delay, ttl):
        message_id = send(
            queue, 0, ordering_key=key, priority=priority,
            delay=delay * UNIT or None, expires_in=ttl and ttl * UNIT,
        )  # fmt: skip
        self._arrived(message_id, queue, key, priority, delay, ttl)
        happened["send"] += 1
        happened["delay"] += delay > 0

    @rule(queue=names, key=keys, number=st.integers(1, 4))
    def send_many(self, queue, key, number):
        for message_id in send_many(queue, range(number), ordering_key=key):
            self._arrived(message_id, queue, key)
        happened["send many"] += 1

    @rule(queue=names, first=keys, second=keys, commits=st.booleans())
    def send_in_a_transaction(self, queue, first, second, commits):
        with transaction.atomic():
            ids = [send(queue, 0, ordering_key=key) for key in (first, second)]
            transaction.set_rollback(not commits)
        happened["send in a transaction" if commits else "send and roll back"] += 1
        if commits:
            for message_id, key in zip(ids, (first, second), strict=True):
                self._arrived(message_id, queue, key)

    @rule(key=keys, delay=st.sampled_from([0, 0, 2]))
    def publish(self, key, delay):
        message_id = publish("model.things", 0, ordering_key=key, delay=delay * UNIT or None)
        for queue in SUBSCRIBERS:
            self._arrived(message_id, queue, key, delay=delay)
        happened["publish"] += 1

    @rule(name=st.sampled_from("xy"), body=st.integers(1, 2))
    def send_with_a_deduplication_id(self, name, body):
        known = self.deduplicated.get(name)
        if known is not None and known[2] <= self.model.now:
            known = None
        try:
            message_id = send("blocks", body, deduplication_id=name)
        except DeduplicationConflict:
            assert known is not None and known[1] != body
            happened["conflict"] += 1
            return
        if known is not None:
            assert (message_id, message_id.duplicate, body) == (known[0], True, known[1])
            happened["duplicate"] += 1
            return
        assert not message_id.duplicate
        self.deduplicated[name] = (int(message_id), body, self.model.now + DEDUPLICATION)
        self._arrived(message_id, "blocks", None)

    # Handling

    @rule(queue=names)
    def claim_and_acknowledge(self, queue):
        self._work(queue, "acknowledge")

    @rule(queue=names)
    def fail(self, queue):
        self._work(queue, "fail")

    @rule(queue=names, after=st.integers(0, 3), counts=st.booleans())
    def retry(self, queue, after, counts):
        self._work(queue, "retry", after, counts)

    @rule(queue=names)
    def reject_in_a_handler(self, queue):
        self._work(queue, "reject")

    @rule(queue=names, counted=st.booleans())
    def kill(self, queue, counted):
        self._tidy()
        slots = Slots(1)
        item = None
        with suppress(Killed), transaction.atomic():
            (policy,) = policies(connection, names=[queue])
            source = engine().source(policy, None)
            messages = [] if policy.paused else deliver(source, 1, thorough=True)[0]
            # What has expired is handled by nobody, and nobody dies of it.
            if messages and messages[0].id not in self._expired(queue):
                item = self._taken(messages[0])
                slots.start(0, messages[0].delivery)
            raise Killed
        happened["kill"] += item is not None
        if item is None or not counted:  # the supervisor is gone as well
            return
        casualties = Casualties(slots, None)
        assert casualties.add(0, -9, "worker")
        casualties.settle()
        assert not casualties
        self.model.fail(item, "worker_died")

    def _work(self, queue: str, act: str, after: int = 0, counts: bool = True) -> None:
        """Let a worker handle one message in a given way."""
        self._tidy()
        calls: list[Message] = []

        def handler(message: Message) -> None:
            calls.append(message)
            execute(
                "INSERT INTO model_effect (message_id, queue) VALUES (%s, %s)",
                message.id, message.queue,
            )  # fmt: skip
            match act:
                case "fail":
                    raise ValueError
                case "retry":
                    raise Retry(after * UNIT, counts=counts)
                case "reject":
                    raise Reject

        settled = run(queue, handler)
        if not calls:
            assert self._expire(queue) == settled
            assert settled or not self.model.deliverable(queue), "nothing was delivered"
            return
        (message,) = calls
        item = self._taken(message)
        assert settled == 1
        happened["fail" if act == "fail" else f"{act} in a handler"] += 1
        match act:
            case "acknowledge":
                self.model.acknowledge(item)
            case "fail":
                self.model.fail(item)
            case "reject":
                self.model.bury(item, "rejected")
            case "retry" if not counts:
                self.model.again(item, after)
            case "retry" if item.attempt >= 3:
                self.model.bury(item, "max_deliveries")
            case "retry":
                item.attempt += 1
                self.model.again(item, after)

    # Holding

    @rule(queue=names, limit=st.integers(1, 3), lease=st.integers(1, 9))
    def receive(self, queue, limit, lease):
        self._receive(queue, limit, lease)

    @rule(queue=names)
    def receive_more(self, queue):
        self._receive(queue, 3, 3)

    def _receive(self, queue: str, limit: int, lease: int) -> None:
        self._tidy()
        leasing._sources.known.clear()
        messages = receive(queue, limit=limit, lease=lease * UNIT)
        while self._expire(queue):  # what is behind it in its key may be next
            pass
        items = [self._taken(message, among=messages) for message in messages]
        for message, item in zip(messages, items, strict=True):
            self.model.hold(item, lease)
            self.held.append((message, item))
            happened["claim"] += 1
        assert len({(i.key) for i in items if i.in_lane}) == len([i for i in items if i.in_lane])
        assert messages or not self.model.deliverable(queue), "nothing was received"

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 9))
    def acknowledge(self, which):
        message, item, is_held = self._held(which)
        with self._attempt("acknowledge", is_held), transaction.atomic():
            execute(
                "INSERT INTO model_effect (message_id, queue) VALUES (%s, %s)",
                message.id, message.queue,
            )  # fmt: skip
            message.acknowledge()
        if is_held:
            self.model.acknowledge(item)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 9), after=st.sampled_from([0, 0, 2]))
    def release(self, which, after):
        message, item, is_held = self._held(which)
        with self._attempt("release", is_held):
            message.release(after=after * UNIT or None)
        if is_held and after:
            self.model.again(item, after)
        elif is_held:
            self.model.release(item)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 9))
    def reject(self, which):
        message, item, is_held = self._held(which)
        with self._attempt("reject", is_held):
            message.reject("no")
        if is_held:
            self.model.bury(item, "rejected")

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 9), length=units)
    def extend(self, which, length):
        message, item, is_held = self._held(which)
        with self._attempt("extend", is_held):
            message.extend(length * UNIT)
        if is_held:
            self.model.hold(item, length)

    # Operating

    @precondition(lambda self: self.model.at("dead"))
    @rule(which=st.integers(0, 9), twice=st.booleans())
    def redrive(self, which, twice):
        dead = self.model.at("dead")
        item = dead[which % len(dead)]
        rows = execute(
            "SELECT dead.id FROM messaging_deadletter AS dead JOIN messaging_queue AS queue"
            " ON queue.id = dead.origin_id WHERE message_id = %s AND queue.name = %s",
            item.message_id, item.queue,
        )  # fmt: skip
        assert len(rows) == 1
        assert control.redrive([rows[0][0]]) == 1
        if twice:
            assert control.redrive([rows[0][0]]) == 0
        self.model.redrive(item)
        happened["redrive"] += 1

    @rule(queue=names, sure=seldom)
    def purge(self, queue, sure):
        if not sure:
            return
        gone = control.purge(queue)
        assert gone == self.model.purge(queue)
        happened["purge"] += gone > 0

    @precondition(lambda self: self.model.at("scheduled"))
    @rule(which=st.integers(0, 9))
    def cancel(self, which):
        scheduled = self.model.at("scheduled")
        message_id = scheduled[which % len(scheduled)].message_id
        assert messaging.cancel(message_id) == self.model.cancel(message_id) > 0
        happened["cancel"] += 1

    @rule(queue=names, sure=seldom)
    def pause(self, queue, sure):
        if sure:
            assert control.pause(queue) != self.model.queues[queue].paused
            self.model.queues[queue].paused = True
            happened["pause"] += 1

    @precondition(lambda self: any(queue.paused for queue in self.model.queues.values()))
    @rule()
    def resume(self):
        for queue in self.model.queues.values():
            assert control.resume(queue.name) == queue.paused
            queue.paused = False
        happened["resume"] += 1

    @rule(queue=names, key=st.sampled_from("ab"))
    def release_a_key(self, queue, key):
        happened["release of a key"] += control.release_key(queue, key)
        self.model.release_key(queue, key)

    # Time

    @rule(length=units)
    def time_passes(self, length):
        self._pass(length)
        happened["time passing"] += 1

    @rule()
    def tidy(self):
        self._tidy()

    @precondition(lambda self: self.model.items)
    @rule(sure=seldom)
    def retention_passes(self, sure):
        if not sure:
            return
        self._pass(RETENTION)
        happened["prune"] += maintenance.prune() > 0
        needed = {i.message_id for i in self.model.items.values() if i.place not in GONE}
        dead = {item.message_id for item in self.model.at("dead")}
        kept = {message_id for (message_id,) in execute("SELECT id FROM messaging_message")}
        assert needed - dead <= kept <= needed

    # What holds at every moment

    @invariant()
    def every_message_is_where_the_model_says(self):
        totals["steps"] += 1
        expected = {
            key: (item.place, item.attempt, item.reason if item.place == "dead" else "")
            for key, item in self.model.items.items()
            if item.place not in GONE
        }
        assert state() == expected
        done = {(i.message_id, i.queue): 1 for i in self.model.at("done")}
        assert {(m, queue): number for m, queue, number in execute(EFFECTS)} == done

    def teardown(self):
        """Count the time that has passed."""
        totals["units"] += self.model.now

    def _arrived(self, message_id, queue, key, priority=0, delay=0, ttl=None) -> None:
        expires = NEVER if ttl is None else self.model.now + ttl
        item = Item(
            message_id=int(message_id), queue=queue, key=key, priority=priority, expires=expires
        )
        self.model.arrive(item, delay)

    def _pass(self, length: int) -> None:
        """Let time pass, for what is in the database and in the hands of those who received."""
        execute(PASS.format(f"interval '{length * UNIT} seconds'"))
        self.model.now += length
        back = timedelta(seconds=length * UNIT)
        for message, _ in self.held:
            if expires_at := message.delivery.expires_at:
                message.delivery = message.delivery._replace(expires_at=expires_at - back)

    def _tidy(self) -> None:
        """Do what workers do by the way."""
        happened["lease expiry"] += leasing.sweep_expired()
        maintenance.promote_due()
        self.model.tidy()

    def _taken(self, message: Message, among: list[Message] | None = None) -> Item:
        """Look that a message could be delivered, as it was, and that none was passed over."""
        item = self.model.items[message.id, message.queue]
        assert item in self.model.live(message.queue), f"must not be delivered: {item}"
        assert (message.attempt, message.ordering_key) == (item.attempt, item.key)
        beside = {m.id for m in among or ()}
        if not item.in_lane:
            passed = [i for i in self.model.may_precede(item) if i.message_id not in beside]
            assert not passed, f"passed over: {passed}"
        return item

    @contextmanager
    def _attempt(self, what: str, is_held: bool) -> Iterator[None]:
        """Expect LeaseLost exactly when a message is not held any more."""
        if is_held:
            yield
            happened[what] += 1
            return
        with pytest.raises(LeaseLost):
            yield
        happened["too late"] += 1

    def _held(self, which: int) -> tuple[Message, Item, bool]:
        """Choose one that was received, and say whether it is still held by its token."""
        message, item = self.held[-1 - which % len(self.held)]
        latest = [m for m, i in self.held if i is item][-1]
        return message, item, message is latest and self.model.is_held(item)

    def _expired(self, queue: str) -> set[int]:
        deliverable = self.model.deliverable(queue)
        return {item.message_id for item in deliverable if self.model.is_expired(item)}

    def _expire(self, queue: str) -> int:
        """Let the model expire what the database has; return how many that were."""
        here = state()
        gone = [
            item
            for item in self.model.deliverable(queue)
            if here.get((item.message_id, queue), GONE_OR_DEAD)[0] == "dead"
        ]
        for item in gone:
            assert self.model.is_expired(item), f"lost: {item}"
            self.model.expire(item)
        happened["message expiry"] += len(gone)
        return len(gone)


def state() -> dict[tuple[int, str], tuple[str, int, str]]:
    """Return where each message waits for each queue, with its attempt and reason."""
    rows = execute(STATE)
    found = {(message, queue): tuple(what) for message, queue, *what in rows}
    assert len(found) == len(rows), "a message is in two places"
    return found


handlers: dict[str, Any] = {}


def run(queue: str, handler: Any) -> int:
    """Let a worker handle once; return how many it settled."""
    handlers[queue] = handler
    consumers = consumers_for([queue])
    configuration = Configuration(consumers, None)
    configuration.refresh()
    runner = Runner(consumers, configuration, name="model")
    while True:
        done = runner.run_round()
        if done.settled or not done.unsettled:
            return done.settled


@pytest.fixture
def real(transactional_db: None, declared: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make the queues; nobody is woken, and the one connection is kept."""
    for where in ("announce", "announce_change"):
        monkeypatch.setattr(wakeup, where, lambda *_: None)
    monkeypatch.setattr(connections, "close_all", lambda: None)
    monkeypatch.setattr(logging.getLogger("messaging"), "disabled", True)
    topic = Topic.objects.create(name="model.things")
    for name, known in QUEUES.items():
        queue = Queue.objects.create(
            name=name, max_deliveries=known.max_deliveries, on_failure=known.on_failure,
            backoff="fixed", backoff_base=known.backoff * UNIT, backoff_cap=known.backoff * UNIT,
            jitter="none", dead_letter_expired=known.keeps_expired,
            deduplication_window=DEDUPLICATION * UNIT, retention=RETENTION * UNIT,
        )  # fmt: skip
        messaging.consumer(name)(lambda message: handlers[message.queue](message))
        if name in SUBSCRIBERS:
            Subscription.objects.create(pattern=topic.name, queue=queue)
    execute("SET synchronous_commit = off")
    execute(
        "CREATE UNLOGGED TABLE model_effect (id bigint GENERATED ALWAYS AS IDENTITY,"
        " message_id bigint NOT NULL, queue text NOT NULL)"
    )
    yield
    execute("DROP TABLE model_effect")


@pytest.mark.proof
@pytest.mark.parametrize("part", range(PARTS))
def test_the_database_does_what_the_model_says(real, record_property, part):
    totals.clear()
    happened.clear()
    runs = -(-RUNS // PARTS)
    options = settings(
        # Some runs end early.
        max_examples=runs + runs // 4, stateful_step_count=STEPS, deadline=None, database=None,
        suppress_health_check=list(HealthCheck), print_blob=True, phases=PHASES,
    )  # fmt: skip
    run_state_machine_as_test(seed(SEED + part)(Messages), settings=options)
    hours = totals["units"] * UNIT // 3600
    record_property(
        "tried", {"runs": totals["runs"], "steps": totals["steps"], "simulated hours": hours}
    )
    record_property("operations", dict(happened))
    assert totals["runs"] >= runs
    assert totals["steps"] >= runs * STEPS
