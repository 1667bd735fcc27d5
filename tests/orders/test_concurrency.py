"""Two workers have the two halves of one order in their hands at the same moment."""

import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
from django.db import connection, transaction

from messaging.testing import drain
from orders.models import Order
from orders.services import lock_order, take_payment, take_stock

pytestmark = pytest.mark.django_db(transaction=True)

# pg_locks, not pg_stat_activity, which shows a transaction the same picture all the time.
WAITS_FOR_THIS_TRANSACTION = """
    SELECT count(*) FROM pg_locks AS waiting
    JOIN pg_locks AS held ON held.transactionid = waiting.transactionid
    WHERE NOT waiting.granted AND held.granted AND held.pid = pg_backend_pid()
"""


def wait_until_somebody_waits_for_this_transaction():
    deadline = time.monotonic() + 20
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute(WAITS_FOR_THIS_TRANSACTION)
            if cursor.fetchone()[0]:
                return
            time.sleep(0.01)
    raise AssertionError("Nobody waited for this transaction within 20 s")


@contextmanager
def meanwhile(function, *arguments):
    """Run a function in a thread with a connection of its own, and wait for it at the end."""
    failures = []

    def run():
        try:
            function(*arguments)
        except BaseException as failure:
            failures.append(failure)
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert not failures


def test_the_second_waits_for_the_first_and_processes_the_order(place):
    order = place()
    with ExitStack() as other_worker, transaction.atomic():
        take_payment(lock_order(order.pk), attempt=1)
        other_worker.enter_context(meanwhile(drain, "inventory"))
        wait_until_somebody_waits_for_this_transaction()
    order.refresh_from_db()
    assert order.status == "processed"
    assert drain("notifications") == 1


def test_orders_of_one_cd_are_stored_while_a_worker_changes_its_stock(place):
    order = place()
    stored = threading.Event()

    def store():
        place()
        stored.set()

    with transaction.atomic():
        take_stock(lock_order(order.pk))
        with meanwhile(store):
            assert stored.wait(20)
    assert Order.objects.count() == 2
