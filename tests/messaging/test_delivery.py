"""Deliver: each message once, in order, decoded by itself, whatever others hold or left behind."""

from concurrent.futures import TimeoutError as StillWaiting

import pytest
from django.db import connection, transaction
from effects import effects, execute, failures, take_effect, waiting

from messaging import consumer, publish, send, send_many
from messaging.delivery import deliver
from messaging.engines import engine
from messaging.models import DeadLetter, Delivery
from messaging.policies import QueuePolicy
from messaging.store import lanes
from messaging.testing import drain


@pytest.fixture
def source(queue):
    """Return a reader of the queue ``invoices``."""
    created = queue("invoices", max_deliveries=3)
    return engine().source(QueuePolicy(id=created.pk, name="invoices"), None)


def bodies(messages):
    return [message.body for message in messages]


def read(source, limit=100, *, thorough=True):
    messages, outcomes = deliver(source, limit, thorough=thorough)
    assert outcomes == []
    return bodies(messages)


class TestAClaim:
    def test_takes_no_more_than_asked(self, source):
        send_many("invoices", range(10))
        assert read(source, 3) == [0, 1, 2]
        assert read(source, 3) == [3, 4, 5]
        assert Delivery.objects.count() == 4

    def test_takes_no_more_than_asked_over_several_priorities(self, source):
        for priority in (1, 2, 3):
            send_many("invoices", [priority] * 2, priority=priority)
        assert read(source, 3) == [3, 3, 2]
        assert read(source, 3) == [2, 1, 1]

    def test_comes_by_priority_and_then_in_the_order_of_sending(self, source):
        for body, priority in [("c", 0), ("a", 5), ("d", 0), ("b", 5), ("e", -5)]:
            send("invoices", body, priority=priority)
        assert read(source) == ["a", "b", "c", "d", "e"]

    def test_leaves_other_queues_alone(self, source, queue):
        queue("others")
        send("others", 1)
        send("invoices", 2)
        assert read(source) == [2]

    def test_of_an_empty_queue_is_empty(self, source):
        assert read(source) == []

    def test_gives_everything_that_was_sent(self, source, topic, subscribe):
        topic("bills.sent")
        subscription = subscribe("bills.*", "invoices")
        sent = publish("bills.sent", {"n": 1}, headers={"a": "b"}, priority=4, ordering_key="k")
        lanes.join_now(connection)
        (message,), _ = deliver(source, 1, thorough=True)
        assert message.id == sent
        assert (message.queue, message.topic, message.body) == ("invoices", "bills.sent", {"n": 1})
        assert (message.headers, message.priority, message.attempt) == ({"a": "b"}, 4, 1)
        assert message.ordering_key == "k"
        assert message.published_at.tzinfo is not None
        assert message.delivery.subscription_id == subscription.pk

    @pytest.mark.parametrize("body", [None, 0, "", False, {}, [], 2**60 + 1, "ä\u2028"])
    def test_gives_the_body_as_it_was(self, source, body):
        send("invoices", body)
        (message,), _ = deliver(source, 1, thorough=True)
        assert message.body == body
        assert type(message.body) is type(body)


@pytest.mark.django_db(transaction=True)
class TestTwoSessions:
    def test_never_get_the_same_message_and_never_wait_for_each_other(self, source, elsewhere):
        send_many("invoices", range(5))

        def read_the_rest():
            other = engine().source(source.policy, None)
            with transaction.atomic():
                return read(other)

        with transaction.atomic():
            mine = read(source, 3)
            try:
                theirs = elsewhere(read_the_rest).result(timeout=10)
            except StillWaiting:
                pytest.fail("the second session waits for the first")
        assert (mine, theirs) == ([0, 1, 2], [3, 4])
        assert not Delivery.objects.exists()

    def test_find_what_the_other_gave_up(self, source, elsewhere):
        send_many("invoices", range(3))

        def claim_and_give_up():
            with transaction.atomic():
                assert read(engine().source(source.policy, None)) == [0, 1, 2]
                transaction.set_rollback(True)

        elsewhere(claim_and_give_up).result()
        assert read(source) == [0, 1, 2]


@pytest.mark.django_db(transaction=True)
class TestBehindTheHint:
    @pytest.fixture
    def ahead(self, source, monkeypatch):
        """Return a source whose hint has moved past what it claimed; it sweeps when told to."""
        self.sweep = False
        monkeypatch.setattr("messaging.engines.hints.TRAIL", 0)
        monkeypatch.setattr(type(source._hints), "sweep_due", lambda hints: self.sweep)
        return source

    def test_what_commits_late_is_found_by_the_next_sweep(self, ahead, elsewhere, until):
        drawn, may_commit = [], []

        def send_slowly():
            with transaction.atomic():
                drawn.append(send("invoices", "late"))
                until(lambda: may_commit)

        sending = elsewhere(send_slowly)
        until(lambda: drawn)
        send("invoices", "in time")
        assert read(ahead, thorough=False) == ["in time"]
        assert read(ahead, thorough=False) == []
        may_commit.append(True)
        sending.result()
        assert read(ahead, thorough=False) == []
        self.sweep = True
        assert read(ahead, thorough=False) == ["late"]

    def test_what_was_rolled_back_elsewhere_is_found_by_the_next_sweep(
        self, ahead, elsewhere, until
    ):
        send_many("invoices", ["first", "second"])
        held, may_give_up = [], []

        def claim_and_give_up():
            with transaction.atomic():
                held.extend(read(engine().source(ahead.policy, None), 1))
                until(lambda: may_give_up)
                transaction.set_rollback(True)

        claiming = elsewhere(claim_and_give_up)
        until(lambda: held)
        assert read(ahead, thorough=False) == ["second"]
        may_give_up.append(True)
        claiming.result()
        assert read(ahead, thorough=False) == []
        self.sweep = True
        assert read(ahead, thorough=False) == held == ["first"]

    def test_what_was_put_back_is_the_next_again(self, ahead):
        send_many("invoices", range(4))
        with transaction.atomic():
            messages, _ = deliver(ahead, 4)
            ahead.settle([], [message.delivery for message in messages[1:]], "worker")
        assert read(ahead, thorough=False) == [1, 2, 3]

    def test_what_a_wake_up_announces_is_found_without_a_sweep(self, ahead):
        assert read(ahead, thorough=False) == []
        send("invoices", "new", priority=50)
        assert read(ahead, thorough=False) == []
        ahead.notice(50, Delivery.objects.get().pk)
        assert read(ahead, thorough=False) == ["new"]


class TestAMessageThatCannotBeDecoded:
    @pytest.fixture(autouse=True)
    def _recorder(self, declared):
        @consumer("invoices", transaction_size=10)
        def record(message):
            take_effect(message.body)

    def test_dies_alone_while_its_neighbours_flow(self, source):
        _, huge, _ = send_many("invoices", ["before", "huge", "after"])
        execute("UPDATE messaging_message SET body = repeat('9', 5000)::jsonb WHERE id = %s", huge)
        assert drain("invoices") == 3
        assert effects() == ["before", "after"]
        dead = DeadLetter.objects.defer("body").get()
        assert (dead.message_id, dead.reason, dead.attempts) == (huge, "undecodable", 1)
        assert dead.error == "ValueError"
        assert "digits" in dead.description
        assert failures() == [(huge, "ValueError")]
        # The payload is copied by the database, which can hold what Python does not read.
        stored = "SELECT body = repeat('9', 5000)::jsonb FROM messaging_deadletter"
        assert execute(stored) == [(True,)]
        assert waiting() == {"dead": 1}

    def test_dies_when_the_log_has_lost_it(self, source):
        lost, _ = send_many("invoices", ["lost", "kept"])
        execute("DELETE FROM messaging_message WHERE id = %s", lost)
        assert drain("invoices") == 2
        assert effects() == ["kept"]
        dead = DeadLetter.objects.get()
        assert (dead.message_id, dead.reason, dead.body) == (lost, "undecodable", None)
        assert "no longer holds this message" in dead.description
