"""Consumers: which queue does which step of an order.

Each handler runs in the transaction that acknowledges its message: what it writes, what it
publishes and the acknowledgement commit together.

The customer is the ordering key. The queues keep the policy `block`: an order that is tried again
holds up the next ones of its customer, and nobody else's; once it is dead, they go on. `park` would
have them wait for a person, and `skip` would charge the card for the second order before the first.
"""

from messaging import Message, Reject, consumer, once

from . import services
from .models import Order, Product


@consumer("payments", topic="orders.placed", max_deliveries=6, backoff_base=1, backoff_cap=30)
def take_payment(message: Message) -> None:
    """Charge the card; a gateway that does not answer raises, and the queue backs off."""
    order = _locked_order(message)
    if _is_open(order):
        services.take_payment(order, attempt=message.attempt)


@consumer("inventory", topic="orders.placed", max_deliveries=8, backoff_base=1, backoff_cap=30)
def take_stock(message: Message) -> None:
    """Take the copies off the shelf; an empty shelf raises, and the queue backs off."""
    order = _locked_order(message)
    if _is_open(order):
        services.take_stock(order)


@consumer("restock", topic="stock.low", max_deliveries=8, backoff_base=1, backoff_cap=30)
def restock(message: Message) -> None:
    """Have a delivery brought to a shelf that runs low."""
    match message.body:
        case {"sku": str(sku)}:
            try:
                services.deliver(sku)
            except Product.DoesNotExist as error:
                raise Reject(f"No product has the SKU {sku!r}.") from error
        case _:
            raise Reject("The body names no product: it needs a text 'sku'.")


@consumer("cancelled-orders", topic="orders.cancelled", backoff_base=1, backoff_cap=30)
def review_cancelled_order(message: Message) -> None:
    """Hand a cancelled order to a person: the dead letters, with the reason.

    Redriven after the cause was put right, the same message opens the order again.
    """
    order = _locked_order(message)
    if order.status != Order.Status.CANCELLED:
        return
    if obstacle := services.obstacle(order):
        raise Reject(obstacle)
    services.reopen(order)


@consumer(
    "notifications", topic="orders.processed", max_deliveries=8, backoff_base=1, backoff_cap=30
)
def send_confirmation(message: Message) -> None:
    """Mail the confirmation.

    The record of it is written exactly once. The mail itself leaves the database: it goes out at
    least once. It is sent before the commit, so a crash in between sends it again (with the same
    Message-ID) and never loses it; sent in `on_commit`, it could be lost. `once()` keeps a redriven
    or replayed message from sending a second one.
    """
    order = _order(message)
    with once("order-confirmation", order.pk) as first:
        if first:
            notification = services.send_confirmation(order)
            first.save(notification.pk)


# Rows that are only added, in this database alone: fifty commit together, and nobody waits for
# the disk. After a crash of the server the entry and the acknowledgement are gone together.
@consumer("billing-log", topic="orders.processed", transaction_size=50, durable=False)
def log_sale(message: Message) -> None:
    """Write the sale into the billing log."""
    services.log_sale(_order(message))


def _is_open(order: Order) -> bool:
    """Say whether an order still needs this step: the other one may have cancelled it."""
    if order.status == Order.Status.PROCESSED:
        raise Reject(f"{order} was processed already, at {order.processed_at}.")
    return order.status == Order.Status.PLACED


def _order_id(message: Message) -> int:
    """Return the order that a message is about."""
    match message.body:
        case {"order_id": int(order_id)}:
            return order_id
    raise Reject("The body names no order: it needs an integer 'order_id'.")


def _order(message: Message) -> Order:
    """Return the order that a message is about, as it is now."""
    try:
        return Order.objects.select_related("product", "customer").get(pk=_order_id(message))
    except Order.DoesNotExist as error:
        raise Reject(f"There is no order {message.body['order_id']}.") from error


def _locked_order(message: Message) -> Order:
    """Return the order that a message is about, locked until the end of the transaction."""
    try:
        return services.lock_order(_order_id(message))
    except Order.DoesNotExist as error:
        raise Reject(f"There is no order {message.body['order_id']}.") from error
