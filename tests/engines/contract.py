"""What any engine must do: tests that a subclass runs against its own."""

import json
from abc import ABC, abstractmethod
from contextlib import suppress

import pytest
from django.db import transaction

from messaging.engines import Outgoing
from messaging.messages import Delivered, Failure, Outcome, Settlement
from messaging.models import DeadLetter, Queue, Subscription, Topic
from messaging.policies import QueuePolicy

FAILURE = Failure(error="KeyError", description="'a'", traceback="Traceback", fingerprint="f")


def delivered(row):
    """Return what puts a claimed delivery back."""
    return Delivered(
        id=row.id,
        queue_id=row.queue_id,
        priority=row.priority,
        message_id=row.message_id,
        attempt=row.attempt,
        subscription_id=row.subscription_id,
    )


def retried(row, **fields):
    return Outcome(delivered=delivered(row), settlement=Settlement.RETRY, failure=FAILURE, **fields)


class EngineContract(ABC):
    """Messages are claimed once, in order, and settled in the transaction of their handler.

    A subclass has the fixture ``engine``, too: the Engine that it is about.
    """

    @abstractmethod
    def make_due(self):
        """Make every message that is scheduled for now or earlier ready."""

    @abstractmethod
    def arrive(self):
        """Make what this transaction has stored with a key ready, as its commit would."""

    @pytest.fixture
    def policy(self, db):
        """Return the policy of a queue that subscribes to a topic."""
        queue = Queue.objects.create(name="contract")
        Topic.objects.create(name="contract.signed")
        Subscription.objects.create(pattern="contract.signed", queue=queue)
        return QueuePolicy(id=queue.pk, name=queue.name)

    @pytest.fixture
    def source(self, engine, policy):
        return engine.source(policy, None)

    @pytest.fixture
    def store(self, engine, policy):
        """Return a function that stores messages."""

        def stored(*bodies, **options):
            fields = {"name": "contract", "is_topic": False, **options}
            outgoing = Outgoing(bodies=[json.dumps(body) for body in bodies], **fields)
            ids = engine.store(outgoing, None)
            self.arrive()
            return ids

        return stored

    def bodies(self, rows):
        return [json.loads(row.body) for row in rows]

    def test_a_message_is_claimed_once_with_everything_that_was_sent(self, store, source, policy):
        options = {"headers": '{"a": 1}', "priority": 3, "ordering_key": "k"}
        (message_id,) = store({"n": 1}, **options)
        (row,) = source.claim(10, thorough=True)
        assert (row.message_id, row.queue_id, row.attempt) == (message_id, policy.id, 1)
        assert (json.loads(row.body), json.loads(row.headers)) == ({"n": 1}, {"a": 1})
        assert (row.priority, row.ordering_key, row.topic) == (3, "k", None)
        assert row.published_at.tzinfo is not None
        assert source.claim(10, thorough=True) == []

    def test_a_topics_message_is_claimed_with_its_topic_and_subscription(self, store, source):
        store("x", name="contract.signed", is_topic=True)
        (row,) = source.claim(10, thorough=True)
        assert row.topic == "contract.signed"
        assert row.subscription_id == Subscription.objects.get(queue__name="contract").pk

    def test_an_unknown_name_stores_nothing(self, store, source):
        assert store("x", name="unknown") is None
        assert store("x", name="unknown", is_topic=True) is None
        assert store("x", name="contract", is_topic=True) is None
        assert source.claim(10, thorough=True) == []

    def test_a_message_that_is_rolled_back_is_never_claimed(self, store, source):
        with suppress(LookupError), transaction.atomic():
            store("x")
            raise LookupError
        assert source.claim(10, thorough=True) == []

    def test_a_claim_that_is_rolled_back_is_claimed_again_uncounted(self, store, source):
        store("x")
        with suppress(LookupError), transaction.atomic():
            assert self.bodies(source.claim(10)) == ["x"]
            raise LookupError
        source.rewind()
        (row,) = source.claim(10)
        assert (json.loads(row.body), row.attempt) == ("x", 1)

    def test_higher_priorities_come_first_and_equal_ones_in_order(self, store, source):
        for body, priority in (("a", 0), ("b", -1), ("c", 9), ("d", 0), ("e", 9)):
            store(body, priority=priority)
        assert self.bodies(source.claim(10, thorough=True)) == ["c", "e", "a", "d", "b"]

    @pytest.mark.parametrize("limit", [1, 2, 3, 4])
    def test_a_claim_takes_no_more_than_its_limit_over_all_priorities(self, store, source, limit):
        store("a", "b", "c")
        store("d", "e", priority=5)
        taken = []
        while rows := source.claim(limit, thorough=True):
            assert len(rows) == min(limit, 5 - len(taken))
            taken += self.bodies(rows)
        assert taken == ["d", "e", "a", "b", "c"]

    def test_two_readers_never_get_the_same_message(self, engine, policy, store, source):
        store(*range(10))
        other = engine.source(policy, None)
        taken = []
        for _ in range(5):
            taken += self.bodies(source.claim(1, thorough=True))
            taken += self.bodies(other.claim(1, thorough=True))
        assert sorted(taken) == list(range(10))

    def test_what_is_put_back_is_claimed_next_in_its_old_order_and_uncounted(self, store, source):
        store(*range(5))
        claimed = source.claim(3, thorough=True)
        source.settle([], [delivered(row) for row in claimed[1:]], "worker")
        again = source.claim(10)
        assert self.bodies(again) == [1, 2, 3, 4]
        assert [row.id for row in again[:2]] == [row.id for row in claimed[1:]]
        assert {row.attempt for row in again} == {1}

    def test_an_announced_priority_is_claimed_without_looking_everywhere(self, store, source):
        assert source.claim(10, thorough=True) == []
        store("x", priority=-7)
        assert source.claim(10) == []
        source.notice(-7, 1)
        assert self.bodies(source.claim(10)) == ["x"]

    def test_a_retry_is_the_next_attempt_when_it_is_due(self, store, source):
        store("x", priority=4)
        (row,) = source.claim(10, thorough=True)
        source.settle([retried(row, after=3600.0)], [], "worker")
        self.make_due()
        assert source.claim(10, thorough=True) == []

        store("y", priority=4)
        (row,) = source.claim(10, thorough=True)
        source.settle([retried(row, after=0.0)], [], "worker")
        self.make_due()
        (again,) = source.claim(10, thorough=True)
        assert (json.loads(again.body), again.attempt, again.priority) == ("y", 2, 4)
        assert again.message_id == row.message_id

    def test_a_retry_that_does_not_count_is_the_same_attempt(self, store, source):
        store("x")
        (row,) = source.claim(10, thorough=True)
        source.settle([retried(row, after=0.0, counts=False)], [], "worker")
        self.make_due()
        assert [each.attempt for each in source.claim(10, thorough=True)] == [1]

    def test_a_dead_message_is_never_claimed_again(self, store, source, policy):
        (message_id,) = store({"n": 1})
        (row,) = source.claim(10, thorough=True)
        outcome = Outcome(
            delivered=delivered(row),
            settlement=Settlement.DEAD,
            reason="rejected",
            failure=FAILURE,
        )
        source.settle([outcome], [], "worker")
        self.make_due()
        assert source.claim(10, thorough=True) == []
        dead = DeadLetter.objects.get()
        assert (dead.message_id, dead.origin_id, dead.body) == (message_id, policy.id, {"n": 1})
        assert (dead.reason, dead.error, dead.attempts) == ("rejected", "KeyError", 1)

    def test_a_settlement_that_is_rolled_back_never_was(self, store, source):
        store("x")
        with suppress(LookupError), transaction.atomic():
            (row,) = source.claim(10, thorough=True)
            source.settle([retried(row, after=0.0)], [], "worker")
            raise LookupError
        source.rewind()
        self.make_due()
        assert [each.attempt for each in source.claim(10, thorough=True)] == [1]

    def test_a_duplicate_is_not_delivered(self, store, source):
        first = store("x", deduplication_ids=["a"])
        second = store("x", deduplication_ids=["a"])
        assert (first, second[0].duplicate) == (second, True)
        assert self.bodies(source.claim(10, thorough=True)) == ["x"]

    def test_a_lost_delivery_is_taken_once(self, engine, store, source):
        store("x")
        with suppress(LookupError), transaction.atomic():
            (row,) = source.claim(10, thorough=True)
            raise LookupError
        assert engine.take_lost(delivered(row), None) == (delivered(row), False)
        assert engine.take_lost(delivered(row), None) == (None, False)
        assert source.claim(10, thorough=True) == []
