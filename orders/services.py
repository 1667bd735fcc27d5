"""Services: each change of an order, from placed to processed or cancelled.

Every change locks the order first and then its product, always in this order and at most one of
each, so two workers never wait for each other in a circle. The locks are `no_key`: rows that
merely point to the order or the product can still be inserted beside them.
"""

from django.core.mail import EmailMessage
from django.db import transaction
from django.template.loader import render_to_string
from django.utils import timezone

from messaging import send

from . import events, gateway
from .models import (
    BillingEntry,
    Card,
    Notification,
    Order,
    Payment,
    Product,
    StockMovement,
)


class OutOfStock(Exception):
    """There are too few on the shelf, and a delivery is on its way."""


def place_order(order: Order) -> Order:
    """Store an unsaved order and publish `orders.placed`, both or neither.

    An empty amount becomes price times quantity. Raise ValidationError for what no order can be.
    """
    if order.amount is None:
        order.amount = order.product.price * order.quantity
    # That customer and product exist is the foreign keys' business: no query for each here.
    order.clean_fields(exclude={"customer", "product"})
    with transaction.atomic():
        order.save(force_insert=True)
        events.order_placed(order)
    return order


def lock_order(order_id: int) -> Order:
    """Return the order, locked until the end of the transaction; raise Order.DoesNotExist."""
    orders = Order.objects.select_related("product", "customer")
    return orders.select_for_update(of=("self",), no_key=True).get(pk=order_id)


def take_payment(order: Order, *, attempt: int) -> None:
    """Charge a locked, placed order; cancel it when its card is declined.

    The order stays locked while the gateway answers: only the other half of the same order waits.
    """
    try:
        authorization = _charge(order, attempt)
    except gateway.CardDeclined as declined:
        detail = str(declined)
        events.payment_declined(order, detail)
        cancel(order, Order.CancelReason.CARD_DECLINED, detail)
        return
    Payment.objects.create(order=order, amount=order.amount, authorization=authorization)
    if order.movements.filter(returned_at=None).exists():
        _finish(order)


def take_stock(order: Order) -> None:
    """Take a locked, placed order's copies off the shelf; cancel it when they can never come.

    Raise OutOfStock when a delivery is on its way.
    """
    product = Product.objects.select_for_update(no_key=True).get(pk=order.product_id)
    if product.stock < order.quantity:
        shortage = f"{product} has {product.stock} left, {order.quantity} were ordered"
        if product.is_delivered_again:
            raise OutOfStock(f"{shortage}; a delivery is on its way")
        cancel(order, Order.CancelReason.OUT_OF_STOCK, shortage)
        return
    was_low = product.is_low
    _move(product, -order.quantity, order=order)
    if product.is_low and not was_low and product.is_delivered_again:
        events.stock_low(product)
    if order.payments.filter(refunded_at=None).exists():
        _finish(order)


def deliver(sku: str) -> None:
    """Put one delivery of a product on the shelf; raise Product.DoesNotExist."""
    product = Product.objects.select_for_update(no_key=True).get(sku=sku)
    if product.is_delivered_again:
        _move(product, product.restock_size)


def cancel(order: Order, reason: Order.CancelReason, detail: str) -> None:
    """Cancel a locked order and give back, in the same transaction, whatever it had taken."""
    now = timezone.now()
    order.payments.filter(refunded_at=None).update(refunded_at=now)
    for movement in order.movements.filter(returned_at=None):
        product = Product.objects.select_for_update(no_key=True).get(pk=movement.product_id)
        product.stock -= movement.quantity
        product.save(update_fields=["stock"])
        movement.returned_at = now
        movement.save(update_fields=["returned_at"])
    order.status = Order.Status.CANCELLED
    order.cancelled_at = now
    order.cancel_reason = reason
    order.cancel_detail = detail
    order.save(update_fields=["status", "cancelled_at", "cancel_reason", "cancel_detail"])
    events.order_cancelled(order)


def obstacle(order: Order) -> str | None:
    """Say what still stops a cancelled order and what to do about it, or None."""
    if order.cancel_reason == Order.CancelReason.CARD_DECLINED:
        if order.card == Card.DECLINED:
            return (
                f"Card declined: {order.cancel_detail}. Give {order} another card in the admin, "
                f"then redrive this message."
            )
    elif order.product.stock < order.quantity:
        return (
            f"Out of stock: {order.product} has {order.product.stock} left, {order} needs "
            f"{order.quantity}. Restock it in the admin, then redrive this message."
        )
    return None


def reopen(order: Order) -> None:
    """Send a locked, cancelled order through payment and stock again."""
    order.status = Order.Status.PLACED
    order.cancelled_at = None
    order.cancel_reason = order.cancel_detail = ""
    order.save(update_fields=["status", "cancelled_at", "cancel_reason", "cancel_detail"])
    # Straight to the two queues: `orders.placed` would tell every subscriber of a new order.
    for queue in ("payments", "inventory"):
        send(queue, events.facts_of(order), ordering_key=events.key_of(order))


def send_confirmation(order: Order) -> Notification:
    """Mail the confirmation of a processed order and record it."""
    subject = f"Your order {order.number} is on its way"
    EmailMessage(
        subject=subject,
        body=render_to_string("orders/confirmation.txt", {"order": order}),
        to=[order.customer.email],
        # The same for every try, so that a mailbox shows a repeated mail once.
        headers={"Message-ID": f"<order-{order.reference}@shop.example>"},
    ).send()
    return Notification.objects.create(order=order, recipient=order.customer.email, subject=subject)


def log_sale(order: Order) -> None:
    """Add a processed order to the billing log."""
    BillingEntry.objects.create(order=order, amount=order.amount)


def _charge(order: Order, attempt: int) -> str:
    if order.is_free:
        return "promotion"
    key = order.source_reference or str(order.reference)
    return gateway.charge(key=key, amount=order.amount, card=order.card, attempt=attempt)


def _move(product: Product, quantity: int, *, order: Order | None = None) -> None:
    """Change the stock of a locked product and write down why."""
    product.stock += quantity
    product.save(update_fields=["stock"])
    StockMovement.objects.create(product=product, order=order, quantity=quantity)


def _finish(order: Order) -> None:
    """Mark a locked order as processed: whoever completes it comes here, so only one does."""
    order.status = Order.Status.PROCESSED
    order.processed_at = timezone.now()
    order.save(update_fields=["status", "processed_at"])
    events.order_processed(order)
