"""Two workers have the two halves of one order in their hands at the same moment."""

import pytest
from django.db import transaction

from messaging.testing import drain
from orders.models import Order
from orders.services import lock_order, take_payment, take_stock

pytestmark = pytest.mark.django_db(transaction=True)


def test_the_second_waits_for_the_first_and_processes_the_order(place, elsewhere, until, waiters):
    order = place()
    with transaction.atomic():
        take_payment(lock_order(order.pk), attempt=1)
        other_worker = elsewhere(drain, "inventory")
        until(waiters)
    assert other_worker.result(30) == 1
    order.refresh_from_db()
    assert order.status == "processed"
    assert drain("notifications") == 1


def test_orders_of_one_cd_are_stored_while_a_worker_changes_its_stock(place, elsewhere):
    order = place()
    with transaction.atomic():
        take_stock(lock_order(order.pk))
        elsewhere(place).result(20)
    assert Order.objects.count() == 2
