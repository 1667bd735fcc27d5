"""An order goes through its queues: processed once, or cancelled with everything given back."""

from decimal import Decimal

import pytest
from django.apps import apps
from django.core import mail
from django.db import IntegrityError, transaction
from django.utils import timezone

from messaging import InvalidMessage, control, publish, send
from messaging.testing import drain
from orders.models import (
    BillingEntry,
    Card,
    Customer,
    Notification,
    Order,
    Payment,
    Product,
    StockMovement,
)

pytestmark = pytest.mark.django_db


def dead_letters(queue):
    """Return reason and description of each dead letter that came from a queue."""
    rows = apps.get_model("messaging", "DeadLetter").objects.filter(origin__name=queue)
    return list(rows.order_by("pk").values_list("reason", "description"))


@pytest.fixture
def at_once(db):
    """Let retries be due at once, as an operator would: in the queues' rows."""
    apps.get_model("messaging", "Queue").objects.update(backoff_base=0)


@pytest.fixture
def no_retry_today(db):
    """Let whatever fails wait for longer than the test."""
    apps.get_model("messaging", "Queue").objects.update(
        jitter="none", backoff_base=3600, backoff_cap=3600
    )


@pytest.fixture
def other_customer(db):
    return Customer.objects.create(name="Grace Example", email="grace@example.org")


@pytest.fixture
def limited():
    return Product.objects.get(restock_size=0)


def let_the_back_off_pass():
    apps.get_model("messaging", "Scheduled").objects.update(due_at=timezone.now())


def orders_of(effects):
    """Return the orders of the rows of a model, in the order in which the rows were written."""
    return [row.order for row in effects.objects.exclude(order=None).order_by("pk")]


def status_of(order):
    return Order.objects.get(pk=order.pk).status


class TestAGoodOrder:
    def test_is_paid_packed_processed_confirmed_and_billed_once(self, place, product):
        order = place(quantity=3)
        drain()
        order.refresh_from_db()
        assert order.status == "processed"
        payment = Payment.objects.get()
        assert (payment.order, payment.amount, payment.refunded_at) == (
            order,
            Decimal("37.50"),
            None,
        )
        movement = StockMovement.objects.get(order=order)
        assert (movement.product, movement.quantity) == (product, -3)
        product.refresh_from_db()
        assert product.stock == 37
        assert Notification.objects.get().order == order
        assert BillingEntry.objects.get().amount == Decimal("37.50")

    def test_is_confirmed_by_mail(self, place):
        order = place(quantity=3)
        drain()
        (sent,) = mail.outbox
        assert sent.to == ["ada@example.org"]
        assert sent.subject == f"Your order {order.number} is on its way"
        assert "Dear Ada Example" in sent.body
        assert "3 x Green Bar, by The Quiet Testers" in sent.body
        assert "$37.50" in sent.body
        assert str(order.reference) in sent.extra_headers["Message-ID"]

    @pytest.mark.parametrize("queues", [("payments", "inventory"), ("inventory", "payments")])
    def test_is_processed_by_whoever_is_second(self, place, queues):
        order = place()
        first, second = queues
        drain(first)
        assert status_of(order) == "placed"
        drain(second)
        assert status_of(order) == "processed"

    def test_leaves_no_dead_letter_and_nothing_to_do(self, place):
        place()
        assert drain() == 4
        assert drain() == 0
        assert not apps.get_model("messaging", "DeadLetter").objects.exists()

    def test_for_nothing_has_a_payment_of_zero_whatever_the_card(self, place):
        order = place(amount=Decimal("0.00"), card=Card.DECLINED)
        drain()
        assert status_of(order) == "processed"
        payment = Payment.objects.get()
        assert (payment.amount, payment.authorization) == (0, "promotion")

    def test_is_not_stored_when_it_cannot_be_published(self, place, monkeypatch):
        def refuse(*args, **kwargs):
            raise InvalidMessage("refused")

        monkeypatch.setattr("orders.events.publish", refuse)
        with pytest.raises(InvalidMessage):
            place()
        assert not Order.objects.exists()

    def test_that_is_rolled_back_never_travels(self, place):
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            place()
            raise ZeroDivisionError
        assert drain() == 0
        assert not mail.outbox

    def test_shows_its_steps_as_done(self, client, place):
        order = place()
        drain()
        page = client.get(order.get_absolute_url()).content.decode()
        assert "Processed in" in page
        assert page.count('<li class="done">') == 6
        assert "data-finished" in page


class TestAFlakyCard:
    def test_is_charged_once_after_the_gateway_answers(self, place, at_once):
        order = place(card=Card.FLAKY, source_reference="flaky")
        drain()
        assert status_of(order) == "processed"
        assert Payment.objects.count() == 1
        assert not dead_letters("payments")

    def test_waits_for_the_back_off_and_holds_no_other_customer_up(
        self, place, other_customer, no_retry_today
    ):
        flaky = place(card=Card.FLAKY)
        good = place(customer=other_customer)
        drain()
        assert status_of(flaky) == "placed"
        assert status_of(good) == "processed"

    def test_never_uses_up_the_deliveries_of_its_queue(self, place, at_once):
        for number in range(30):
            place(card=Card.FLAKY, quantity=1, source_reference=f"flaky-{number}")
        drain()
        assert Order.objects.filter(status="processed").count() == 30


class TestAnUnreachableGateway:
    def test_ends_in_the_dead_letters_and_the_order_stays_placed(self, place, at_once):
        order = place(card=Card.UNREACHABLE)
        drain()
        assert status_of(order) == "placed"
        ((reason, _),) = dead_letters("payments")
        assert reason == "max_deliveries"
        assert not Payment.objects.exists()
        assert StockMovement.objects.get(order=order).returned_at is None


class TestTheOrdersOfOneCustomer:
    def test_are_paid_in_their_order_when_the_first_payment_fails(self, place, no_retry_today):
        orders = [place(card=Card.FLAKY, source_reference="flaky"), place(), place()]
        drain()
        assert [status_of(order) for order in orders] == ["placed"] * 3
        assert not Payment.objects.exists()
        while any(status_of(order) == "placed" for order in orders):
            let_the_back_off_pass()
            assert drain()
        for effects in (Payment, StockMovement, Notification, BillingEntry):
            assert orders_of(effects) == orders

    def test_are_packed_in_their_order_when_the_first_finds_the_shelf_empty(self, place, product):
        Product.objects.filter(pk=product.pk).update(stock=1)
        orders = [place(quantity=2), place(quantity=1)]
        drain("inventory", "payments")
        assert not orders_of(StockMovement)
        Product.objects.filter(pk=product.pk).update(stock=40)
        let_the_back_off_pass()
        drain()
        assert orders_of(StockMovement) == orders

    def test_are_confirmed_in_their_order_when_the_first_mail_fails(
        self, place, other_customer, no_retry_today, monkeypatch
    ):
        first, second, other = place(), place(), place(customer=other_customer)

        def refuse_the_first(self, fail_silently=False):
            if first.number in self.subject:
                raise ConnectionRefusedError("not this one")
            return real_send(self, fail_silently)

        real_send = mail.EmailMessage.send
        monkeypatch.setattr(mail.EmailMessage, "send", refuse_the_first)
        drain()
        assert orders_of(Notification) == [other]
        monkeypatch.undo()
        let_the_back_off_pass()
        drain()
        assert orders_of(Notification) == [other, first, second]

    def test_go_on_after_one_that_became_a_dead_letter(self, place, at_once):
        stuck, next_one = place(card=Card.UNREACHABLE), place()
        drain()
        assert [reason for reason, _ in dead_letters("payments")] == ["max_deliveries"]
        assert (status_of(stuck), status_of(next_one)) == ("placed", "processed")

    def test_wait_for_one_that_is_sent_through_again(self, place, no_retry_today):
        declined = place(card=Card.DECLINED)
        drain()
        Order.objects.filter(pk=declined.pk).update(card=Card.FLAKY)
        control.redrive_queue("cancelled-orders")
        drain("cancelled-orders")
        next_one = place()
        drain()
        assert (status_of(declined), status_of(next_one)) == ("placed", "placed")


class TestADeclinedCard:
    @pytest.mark.parametrize("queues", [("payments", "inventory"), ("inventory", "payments")])
    def test_cancels_the_order_and_gives_back_what_it_took(self, place, product, queues):
        order = place(card=Card.DECLINED)
        for queue in queues:
            drain(queue)
        drain()
        order.refresh_from_db()
        assert (order.status, order.cancel_reason) == ("cancelled", "card_declined")
        product.refresh_from_db()
        assert product.stock == 40
        assert not StockMovement.objects.filter(order=order, returned_at=None).exists()
        assert not Payment.objects.exists()
        assert not mail.outbox
        assert not BillingEntry.objects.exists()

    def test_is_handed_to_a_person_with_the_reason(self, place):
        order = place(card=Card.DECLINED)
        drain()
        ((reason, description),) = dead_letters("cancelled-orders")
        assert reason == "rejected"
        assert description.startswith("Card declined: ")
        assert str(order) in description
        assert "another card in the admin" in description
        assert not dead_letters("payments")

    def test_is_announced_to_whoever_watches_payments(self, place):
        order = place(card=Card.DECLINED)
        drain()
        log = apps.get_model("messaging", "Message").objects
        (announced,) = log.filter(topic__name="payments.declined")
        assert announced.body["reference"] == str(order.reference)

    def test_is_told_on_the_page_of_the_order(self, client, place):
        order = place(card=Card.DECLINED)
        drain("inventory")
        drain()
        page = client.get(order.get_absolute_url()).content.decode()
        assert "Cancelled: card declined" in page
        assert "2 taken, and put back on the shelf." in page
        assert "data-finished" in page


class TestAnEmptyShelf:
    def test_that_is_never_filled_cancels_and_gives_the_payment_back(self, place, limited):
        order = place(product=limited, quantity=limited.stock + 1)
        drain("payments")
        drain()
        order.refresh_from_db()
        assert (order.status, order.cancel_reason) == ("cancelled", "out_of_stock")
        assert Payment.objects.get().refunded_at is not None
        ((reason, description),) = dead_letters("cancelled-orders")
        assert reason == "rejected"
        assert description.startswith("Out of stock: Opaline Drift: Numbered Pressing")

    def test_sells_its_last_copies_to_whoever_comes_first(self, place, limited):
        orders = [place(product=limited, quantity=10) for _ in range(3)]
        drain()
        assert [status_of(order) for order in orders] == ["processed", "processed", "cancelled"]
        limited.refresh_from_db()
        assert limited.stock == 5

    def test_that_is_filled_again_makes_the_order_wait_for_the_delivery(self, place, product):
        first, second = place(quantity=38), place(quantity=5)
        drain("inventory", "payments")
        assert status_of(first) == "processed"
        assert status_of(second) == "placed"
        drain("restock")
        let_the_back_off_pass()
        drain()
        assert status_of(second) == "processed"
        product.refresh_from_db()
        assert product.stock == 40 - 38 + 30 - 5

    def test_is_filled_by_an_event_when_it_runs_low(self, place, product):
        place(quantity=31)
        drain()
        product.refresh_from_db()
        assert product.stock == 9 + 30
        assert StockMovement.objects.get(product=product, order=None).quantity == 30

    def test_is_announced_once_however_far_it_falls(self, place, product):
        for _ in range(3):
            place(quantity=11)
        drain("inventory", "payments")
        place(quantity=1)
        drain("inventory", "payments")
        assert drain("restock") == 1


class TestARedriveOfACancelledOrder:
    def test_processes_it_after_it_got_another_card(self, place):
        order = place(card=Card.DECLINED)
        drain()
        Order.objects.filter(pk=order.pk).update(card=Card.GOOD)
        control.redrive_queue("cancelled-orders")
        drain()
        assert status_of(order) == "processed"
        assert Payment.objects.filter(refunded_at=None).count() == 1
        assert StockMovement.objects.filter(order=order, returned_at=None).count() == 1
        assert len(mail.outbox) == 1
        assert not dead_letters("cancelled-orders")

    def test_comes_back_while_nothing_was_put_right(self, place):
        order = place(card=Card.DECLINED)
        drain()
        control.redrive_queue("cancelled-orders")
        drain()
        assert status_of(order) == "cancelled"
        assert len(dead_letters("cancelled-orders")) == 1

    def test_charges_it_again_after_its_cd_was_delivered(self, place, limited):
        order = place(product=limited, quantity=30)
        drain("payments")
        drain()
        Product.objects.filter(pk=limited.pk).update(stock=40)
        control.redrive_queue("cancelled-orders")
        drain()
        assert status_of(order) == "processed"
        assert Payment.objects.filter(order=order).count() == 2
        assert Payment.objects.filter(order=order, refunded_at=None).count() == 1


class TestARedriveOfAnUnreachablePayment:
    def test_charges_it_when_the_card_was_changed(self, place, at_once):
        order = place(card=Card.UNREACHABLE)
        drain()
        Order.objects.filter(pk=order.pk).update(card=Card.GOOD)
        control.redrive_queue("payments")
        drain()
        assert status_of(order) == "processed"
        assert Payment.objects.count() == 1


class TestASecondDelivery:
    """Whoever delivers an order's message again finds that nothing happens twice, visibly."""

    def test_of_a_processed_order_is_rejected(self, place):
        order = place()
        drain()
        send("payments", {"order_id": order.pk})
        send("inventory", {"order_id": order.pk})
        drain()
        assert dead_letters("payments")[0][0] == "rejected"
        assert dead_letters("inventory")[0][0] == "rejected"
        assert Payment.objects.count() == 1

    def test_of_a_paid_order_is_an_error_that_is_seen(self, place, at_once):
        order = place()
        drain("payments")
        send("payments", {"order_id": order.pk})
        drain("payments")
        ((reason, _),) = dead_letters("payments")
        assert reason == "max_deliveries"
        assert Payment.objects.count() == 1

    def test_of_a_processed_event_mails_once(self, place, at_once):
        order = place()
        drain()
        publish("orders.processed", {"order_id": order.pk})
        drain()
        assert len(mail.outbox) == 1
        assert Notification.objects.count() == 1
        assert not dead_letters("notifications")

    @pytest.mark.parametrize("effect", ["payments", "movements", "notifications"])
    def test_is_stopped_by_the_database_in_the_end(self, place, effect):
        order = place()
        drain()
        copy = getattr(order, effect).get()
        copy.pk = None
        with pytest.raises(IntegrityError), transaction.atomic():
            copy.save(force_insert=True)


class TestAMailServerThatIsAway:
    def test_delays_the_confirmation_and_nothing_else(self, place, at_once, monkeypatch):
        order = place()
        refusals = iter([ConnectionRefusedError("no mail today")] * 2)

        def send_when_back(self, fail_silently=False):
            for refusal in refusals:
                raise refusal
            return real_send(self, fail_silently)

        real_send = mail.EmailMessage.send
        monkeypatch.setattr(mail.EmailMessage, "send", send_when_back)
        drain()
        assert status_of(order) == "processed"
        assert BillingEntry.objects.count() == 1
        assert len(mail.outbox) == 1
        assert Notification.objects.count() == 1


class TestAStrangeMessage:
    @pytest.mark.parametrize(
        "queue",
        ["payments", "inventory", "cancelled-orders", "notifications", "billing-log", "restock"],
    )
    def test_is_rejected_and_its_neighbours_are_handled(self, place, queue):
        strange = [None, 5, "text", [], {}, {"order_id": "1"}, {"order_id": -1}]
        strange += [{"order_id": 10**30}, {"sku": "CD-NONE"}, {"sku": None}]
        for body in strange:
            send(queue, body)
        order = place()
        drain()
        assert [reason for reason, _ in dead_letters(queue)] == ["rejected"] * len(strange)
        assert status_of(order) == "processed"
