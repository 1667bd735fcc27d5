"""Steps: how far an order has come, in words for the page that follows it."""

import datetime
from dataclasses import dataclass

from .models import Card, Order

PAYMENT_WAITS = {
    Card.GOOD: "The gateway is asked for the orders of a customer one after another.",
    Card.FLAKY: "The gateway times out at first. The queue backs off, then asks again.",
    Card.UNREACHABLE: "The gateway does not answer. After the last delivery the message becomes "
    "a dead letter, and waits there for a person.",
    Card.DECLINED: "The gateway is asked for the orders of a customer one after another.",
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of an order.

    ``state`` is done, waiting, later, failed, undone or skipped; ``after`` is the time since the
    order.
    """

    title: str
    queue: str
    state: str
    text: str
    at: datetime.datetime | None = None
    after: str = ""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """All steps of an order; ``finished`` when none of them will change by itself."""

    steps: list[Step]
    finished: bool
    headline: str


def progress_of(order: Order) -> Progress:
    """Return how far an order has come."""
    steps = [
        _placed(order),
        _payment(order),
        _stock(order),
        _processed(order),
        _confirmation(order),
        _billing(order),
    ]
    return Progress(
        steps=steps,
        finished=not any(step.state in ("waiting", "later") for step in steps),
        headline=_headline(order, steps),
    )


def _headline(order: Order, steps: list[Step]) -> str:
    if order.status == Order.Status.CANCELLED:
        return f"Cancelled: {order.get_cancel_reason_display().lower()}"
    if order.status == Order.Status.PROCESSED:
        seconds = (order.processed_at - order.placed_at).total_seconds()
        return f"Processed in {seconds:.2f} s"
    waiting = [step.title.lower() for step in steps[1:3] if step.state == "waiting"]
    return f"Waiting for {' and '.join(waiting)}"


def _placed(order: Order) -> Step:
    return Step(
        title="Order",
        queue="orders.placed",
        state="done",
        text="Stored and announced in one transaction.",
        at=order.placed_at,
    )


def _payment(order: Order) -> Step:
    payment = order.payments.first()
    if payment and payment.refunded_at:
        text = f"${payment.amount} was paid and is given back."
        return _step(order, "Payment", "payments", "undone", text, payment.refunded_at)
    if payment:
        text = (
            "A promotional order: $0.00 recorded, the gateway was not asked."
            if order.is_free
            else f"${payment.amount} paid, authorization {payment.authorization}."
        )
        return _step(order, "Payment", "payments", "done", text, payment.paid_at)
    if order.cancel_reason == Order.CancelReason.CARD_DECLINED:
        text = f"The card was declined: {order.cancel_detail}."
        return _step(order, "Payment", "payments", "failed", text, order.cancelled_at)
    if order.status == Order.Status.CANCELLED:
        return _step(order, "Payment", "payments", "skipped", "Nothing was charged.")
    return _step(order, "Payment", "payments", "waiting", PAYMENT_WAITS[Card(order.card)])


def _stock(order: Order) -> Step:
    movement = order.movements.first()
    if movement and movement.returned_at:
        text = f"{order.quantity} taken, and put back on the shelf."
        return _step(order, "Stock", "inventory", "undone", text, movement.returned_at)
    if movement:
        text = f"{order.quantity} taken off the shelf."
        return _step(order, "Stock", "inventory", "done", text, movement.moved_at)
    if order.cancel_reason == Order.CancelReason.OUT_OF_STOCK:
        text = f"{order.cancel_detail}."
        return _step(order, "Stock", "inventory", "failed", text, order.cancelled_at)
    if order.status == Order.Status.CANCELLED:
        return _step(order, "Stock", "inventory", "skipped", "Nothing was taken.")
    return _step(order, "Stock", "inventory", "waiting", "The shelf is being looked at.")


def _processed(order: Order) -> Step:
    title, topic = "Processed", "orders.processed"
    if order.status == Order.Status.PROCESSED:
        text = "Paid and packed; three subscribers were told."
        return _step(order, title, topic, "done", text, order.processed_at)
    if order.status == Order.Status.CANCELLED:
        text = "What was taken is given back; a person will look at it."
        return _step(order, "Cancelled", "orders.cancelled", "failed", text, order.cancelled_at)
    return _step(order, title, topic, "later", "As soon as it is paid and packed.")


def _confirmation(order: Order) -> Step:
    title, queue = "Confirmation", "notifications"
    if notification := order.notifications.first():
        text = f"Mailed to {order.customer.masked_email}."
        return _step(order, title, queue, "done", text, notification.sent_at)
    if order.status == Order.Status.CANCELLED:
        return _step(order, title, queue, "skipped", "Nothing to confirm.")
    if order.status == Order.Status.PROCESSED:
        return _step(order, title, queue, "waiting", "The mail is on its way out.")
    return _step(order, title, queue, "later", "When the order is processed.")


def _billing(order: Order) -> Step:
    title, queue = "Billing log", "billing-log"
    if entry := order.billing_entries.first():
        return _step(order, title, queue, "done", "Written down.", entry.booked_at)
    if order.status == Order.Status.CANCELLED:
        return _step(order, title, queue, "skipped", "Nothing to bill.")
    if order.status == Order.Status.PROCESSED:
        return _step(order, title, queue, "waiting", "Being written down.")
    return _step(order, title, queue, "later", "When the order is processed.")


def _step(
    order: Order,
    title: str,
    queue: str,
    state: str,
    text: str,
    at: datetime.datetime | None = None,
) -> Step:
    after = f"{(at - order.placed_at).total_seconds():.2f} s" if at else ""
    return Step(title=title, queue=queue, state=state, text=text, at=at, after=after)
