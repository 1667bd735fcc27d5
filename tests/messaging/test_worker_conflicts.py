"""Two workers whose handlers lock the same rows never deadlock because messages share claims."""

import threading

import pytest
from django.contrib.auth.models import Group

from messaging import consumer, send_many
from messaging.testing import drain
from messaging.worker.configuration import Configuration, consumers_for
from messaging.worker.runner import Runner

pytestmark = pytest.mark.django_db(transaction=True)

# So many messages without SQL, and the claims are of sixteen.
QUIET = [None] * 24
ROWS = {"left": ["a", "b"], "right": ["b", "a"]}


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

    def serve(name):
        consumers = consumers_for([name])
        configuration = Configuration(consumers, None)
        configuration.refresh()
        Runner(consumers, configuration, name=name, drain=True).run()

    other = elsewhere(serve, "left")
    serve("right")
    other.result(timeout=20)
    assert calls == ROWS
