"""Workers are told what has arrived after the commit, together, on a connection of its own."""

import os
import threading
import time
from contextlib import suppress

import pytest
from django.core import mail
from django.db import connection, transaction

from messaging import publish, send, send_many
from messaging.engines import wakeup
from messaging.engines.wakeup import Arrival, Coalescer, decode, encode
from messaging.models import Delivery, Queue, Stat, Subscription, Topic
from messaging.store import notifications

SENDING = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'wake-up of a test'
"""


class TestPayloads:
    def test_arrivals_come_out_as_they_went_in(self):
        arrivals = {(1, 0): 10, (1, -5): 7, (2, 100): 9_000_000_000}
        (payload,) = encode(arrivals)
        assert decode(payload) == [Arrival(*key, first) for key, first in arrivals.items()]

    def test_many_arrivals_are_split_below_the_limit_of_postgresql(self):
        arrivals = {(10**12 + n, -100): 10**15 for n in range(5000)}
        payloads = encode(arrivals)
        assert max(len(payload.encode()) for payload in payloads) < 8000
        decoded = [arrival for payload in payloads for arrival in decode(payload)]
        assert {(a.queue_id, a.priority): a.first for a in decoded} == arrivals
        assert len(payloads) < 30

    def test_no_arrivals_are_no_payload(self):
        assert encode({}) == []

    @pytest.mark.parametrize("payload", ["*", "", "1:2", "1:2:x", "1:0:5;", "{}"])
    def test_anything_else_means_to_look_at_everything(self, payload):
        assert decode(payload) is None


@pytest.fixture
def listening(transactional_db, way_past_a_pooler):
    """Return a function that gathers what is heard until a condition on it holds."""
    heard = []
    with notifications.connect(connection) as session:
        session.execute("SET application_name = 'listens'")
        notifications.start_listening(session)

        def until(condition, seconds=15):
            deadline = time.monotonic() + seconds
            while not condition(heard):
                assert time.monotonic() < deadline, f"heard only {heard}"
                heard.extend(notifications.listen(session, 0.1))
            return heard

        yield until


def arrivals_in(heard, queue):
    """Return (priority, first) of each arrival in a queue that was heard of."""
    arrivals = [arrival for payload in heard for arrival in decode(payload) or ()]
    return [(a.priority, a.first) for a in arrivals if a.queue_id == queue.pk]


@pytest.fixture
def queues(transactional_db):
    """Return two queues, the first of which subscribes to a topic."""
    first, second = (Queue.objects.create(name=name) for name in ("first", "second"))
    Topic.objects.create(name="happened")
    Subscription.objects.create(pattern="happened", queue=first)
    return first, second


@pytest.mark.django_db(transaction=True)
class TestAnnouncing:
    def test_what_is_committed_is_announced_by_queue_priority_and_first_delivery(
        self, queues, listening
    ):
        first, second = queues
        with transaction.atomic():
            send_many("second", [1, 2, 3], priority=4)
            publish("happened", 1)
        delivery = Delivery.objects.filter(queue=second).earliest("id")
        heard = listening(lambda heard: arrivals_in(heard, first) and arrivals_in(heard, second))
        assert arrivals_in(heard, second) == [(4, delivery.pk)]
        assert arrivals_in(heard, first) == [(0, Delivery.objects.get(queue=first).pk)]

    def test_nothing_is_announced_before_the_commit(self, queues, listening, elsewhere):
        first, second = queues
        with transaction.atomic():
            send("first", 1)
            elsewhere(send, "second", 1).result(15)
            heard = listening(lambda heard: arrivals_in(heard, second))
            assert arrivals_in(heard, first) == []
        assert arrivals_in(listening(lambda heard: arrivals_in(heard, first)), first)

    def test_what_is_rolled_back_is_never_announced(self, queues, listening):
        first, second = queues
        with suppress(LookupError), transaction.atomic():
            send("first", 1)
            raise LookupError
        with transaction.atomic():
            with suppress(LookupError), transaction.atomic():
                send("first", 1)
                raise LookupError
            send("second", 1)
        heard = listening(lambda heard: arrivals_in(heard, second))
        assert arrivals_in(heard, first) == []

    def test_what_is_due_later_is_not_announced(self, queues, listening):
        first, second = queues
        send("first", 1, delay=60)
        send("second", 1)
        heard = listening(lambda heard: arrivals_in(heard, second))
        assert arrivals_in(heard, first) == []

    def test_a_duplicate_is_not_announced_again(self, queues, listening):
        first, second = queues
        send("first", 1, deduplication_id="a")
        listening(lambda heard: arrivals_in(heard, first))
        send("first", 1, deduplication_id="a")
        send("second", 1)
        heard = listening(lambda heard: arrivals_in(heard, second))
        assert len(arrivals_in(heard, first)) == 1

    def test_who_commits_by_hand_stores_without_announcing(self, queues):
        transaction.set_autocommit(False)
        try:
            send("first", 1)
            transaction.commit()
        finally:
            transaction.set_autocommit(True)
        assert Delivery.objects.count() == 1

    def test_publishing_sends_no_notification_in_the_publishers_transaction(
        self, queues, django_assert_num_queries
    ):
        with transaction.atomic():
            with django_assert_num_queries(1) as asked:
                send("first", 1)
            assert "notify" not in asked.captured_queries[0]["sql"].lower()

    def test_what_was_published_is_counted_by_queue(self, queues, until):
        first, second = queues
        send_many("first", range(3))
        publish("happened", 1)
        send("second", 1, delay=60)

        def counted(queue):
            return sum(Stat.objects.filter(queue=queue).values_list("published", flat=True))

        until(lambda: (counted(first), counted(second)) == (4, 1))


@pytest.fixture
def coalescer(queues, way_past_a_pooler, monkeypatch):
    # A name that no session of a pooler keeps from before.
    monkeypatch.setattr(notifications, "APPLICATION", "wake-up of a test")
    return Coalescer(connection)


def senders():
    """Return the processes of the server that serve wake-up connections."""
    with connection.cursor() as cursor:
        cursor.execute(SENDING)
        return [pid for (pid,) in cursor.fetchall()]


@pytest.mark.django_db(transaction=True)
class TestCoalescing:
    def test_what_arrives_meanwhile_is_one_notification_with_the_lowest_ids(
        self, queues, coalescer, listening
    ):
        first, second = queues
        with coalescer._condition:  # the thread waits for it
            for n in range(100):
                coalescer.announce([Arrival(first.pk, 0, 1000 - n, 1)])
                coalescer.announce([Arrival(second.pk, n % 2, 1000 + n, 1)])
        heard = listening(lambda heard: arrivals_in(heard, second))
        assert arrivals_in(heard, first) == [(0, 901)]
        assert sorted(arrivals_in(heard, second)) == [(0, 1000), (1, 1001)]
        assert len([payload for payload in heard if arrivals_in([payload], first)]) == 1

    def test_what_was_counted_when_it_was_published_is_not_counted_when_it_is_due(
        self, queues, coalescer, listening, until
    ):
        first, _ = queues
        coalescer.announce([Arrival(first.pk, 0, 1)])
        listening(lambda heard: arrivals_in(heard, first))
        until(lambda: senders() == [])
        assert not Stat.objects.filter(queue=first).exists()

    def test_a_change_of_configuration_is_announced_to_all(self, coalescer, listening):
        coalescer.announce_change()
        listening(lambda heard: "*" in heard)

    def test_the_connection_is_kept_and_replaced_when_the_server_ends_it(
        self, queues, coalescer, listening, monkeypatch, until
    ):
        monkeypatch.delattr(mail, "outbox")  # as outside of a test run
        first, second = queues
        coalescer.announce([Arrival(first.pk, 0, 1)])
        listening(lambda heard: arrivals_in(heard, first))
        kept = coalescer._raw.info.backend_pid
        assert kept in senders()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [kept])
        until(lambda: kept not in senders())

        def announced(heard):
            # One that finds the connection ended is lost; the workers poll.
            coalescer.announce([Arrival(second.pk, 0, 1)])
            return arrivals_in(heard, second)

        listening(announced)
        assert coalescer._raw.info.backend_pid in senders()

        monkeypatch.setattr(wakeup, "IDLE", 0.01)  # a quiet time, which ends the connection
        coalescer.announce([Arrival(first.pk, 0, 1)])
        until(lambda: senders() == [])

    def test_in_a_test_run_no_connection_keeps_the_database_from_being_dropped(
        self, queues, coalescer, listening, until
    ):
        first, _ = queues
        coalescer.announce([Arrival(first.pk, 0, 1)])
        listening(lambda heard: arrivals_in(heard, first))
        until(lambda: senders() == [])

    def test_a_failure_costs_one_notification_and_not_the_next(
        self, queues, coalescer, listening, monkeypatch, caplog, until
    ):
        first, second = queues
        connect, failed = notifications.connect, threading.Event()

        def fail_once(settings):
            if not failed.is_set():
                failed.set()
                raise OSError("no route to host")
            return connect(settings)

        monkeypatch.setattr(notifications, "connect", fail_once)
        coalescer.announce([Arrival(first.pk, 0, 1)])
        until(lambda: "Wake-up not sent, workers will poll error=no route to host" in caplog.text)
        coalescer.announce([Arrival(second.pk, 0, 1)])
        heard = listening(lambda heard: arrivals_in(heard, second))
        assert arrivals_in(heard, first) == []

    def test_the_end_of_the_process_sends_what_is_left(self, queues, coalescer, listening, until):
        first, _ = queues
        coalescer._start = lambda: None  # no thread comes to it in time
        coalescer.announce([Arrival(first.pk, 0, 1, 2)])
        coalescer.finish()
        listening(lambda heard: arrivals_in(heard, first))
        assert Stat.objects.get(queue=first).published == 2
        until(lambda: senders() == [])


@pytest.mark.django_db(transaction=True)
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_process_starts_anew(queues):
    send("first", 1)
    assert wakeup._coalescers
    pid = os.fork()
    if pid == 0:
        os._exit(len(wakeup._coalescers))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert wakeup._coalescers
