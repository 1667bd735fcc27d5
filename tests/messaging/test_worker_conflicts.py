"""Two workers whose handlers lock the same rows: what is no deadlock, and what one comes to."""

import threading

import pytest
from django.contrib.auth.models import Group
from effects import effects, failures, waiting

from messaging import consumer, send, send_many
from messaging.models import Delivery
from messaging.testing import drain
from messaging.worker.configuration import Configuration, consumers_for
from messaging.worker.runner import Runner

pytestmark = pytest.mark.django_db(transaction=True)

# So many messages without SQL, and the claims are of sixteen.
QUIET = [None] * 24
ROWS = {"left": ["a", "b"], "right": ["b", "a"]}


def serve(name):
    """Handle what is ready in one queue, as a worker would."""
    consumers = consumers_for([name])
    configuration = Configuration(consumers, None)
    configuration.refresh()
    Runner(consumers, configuration, name=name, drain=True).run()


def test_rows_locked_one_a_message_in_opposite_orders_are_no_deadlock(declared, elsewhere):
    calls = {name: [] for name in ROWS}
    both_hold_their_first = threading.Barrier(2, timeout=10)

    def lock_one_row(message):
        if message.body is None:
            return
        Group.objects.select_for_update().get(name=message.body)
        calls[message.queue].append(message.body)
        if len(calls[message.queue]) == 1:
            both_hold_their_first.wait()

    for name in ROWS:
        consumer(name)(lock_one_row)
    drain()
    Group.objects.bulk_create([Group(name="a"), Group(name="b")])
    for name, rows in ROWS.items():
        send_many(name, [*QUIET, *rows])

    other = elsewhere(serve, "left")
    serve("right")
    other.result(timeout=20)
    assert calls == ROWS


@pytest.mark.parametrize("options", [{}, {"lease": 30}, {"batch": 5}], ids=str)
def test_a_deadlock_of_two_handlers_is_tried_again_at_once_and_not_counted(
    declared, elsewhere, options
):
    attempts = []
    both_hold_their_first = threading.Barrier(2, timeout=10)

    def lock_both_rows(given):
        (message,) = given if isinstance(given, list) else [given]
        attempts.append(message.attempt)
        first, second = message.body
        Group.objects.select_for_update().get(name=first)
        if len(attempts) <= 2:
            both_hold_their_first.wait()
        Group.objects.select_for_update().get(name=second)
        Group.objects.create(name=f"{message.queue} has locked both")

    for name in ROWS:
        consumer(name, max_deliveries=1, **options)(lock_both_rows)
    drain()
    Group.objects.bulk_create([Group(name="a"), Group(name="b")])
    for name, rows in ROWS.items():
        send_many(name, [rows])
    other = elsewhere(serve, "left")
    serve("right")
    other.result(timeout=20)
    assert attempts == [1, 1, 1]
    assert sorted(effects()) == ["a", "b", "left has locked both", "right has locked both"]
    assert (failures(), waiting()) == ([], {})


def test_handlers_that_fill_two_limited_queues_in_opposite_orders_are_both_handled(
    queue, declared, elsewhere
):
    attempts = []
    both_have_sent_once = threading.Barrier(2, timeout=10)

    def send_to_both(message):
        attempts.append(message.attempt)
        first, second = message.body
        send(first, message.queue)
        if len(attempts) <= 2:
            both_have_sent_once.wait()
        send(second, message.queue)

    for name in ROWS:
        consumer(name, max_deliveries=1)(send_to_both)
    drain()
    targets = [queue(name, max_length=10) for name in "ab"]
    for name, rows in ROWS.items():
        send_many(name, [rows])
    other = elsewhere(serve, "left")
    serve("right")
    other.result(timeout=20)
    assert attempts == [1, 1, 1]
    assert failures() == []
    assert [Delivery.objects.filter(queue=each).count() for each in targets] == [2, 2]
