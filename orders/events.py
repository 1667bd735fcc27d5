"""Events: what the shop announces, each in the transaction of what it tells about."""

from typing import Any

from messaging import declare_topic, publish

from .models import Order, Product

declare_topic("orders.placed", description="An order was stored; payment and stock come next.")
declare_topic("orders.processed", description="An order is paid and its stock is taken.")
declare_topic("orders.cancelled", description="An order failed; what was taken is given back.")
declare_topic("payments.declined", description="The gateway refused a card.")
declare_topic("stock.low", description="A CD fell below its restock level.")


def order_placed(order: Order) -> None:
    """Announce a stored order."""
    publish(
        "orders.placed",
        facts_of(order),
        ordering_key=key_of(order),
        deduplication_id=f"order-placed-{order.pk}",
    )


def order_processed(order: Order) -> None:
    """Announce an order that is paid and has its stock."""
    publish("orders.processed", facts_of(order), ordering_key=key_of(order))


def order_cancelled(order: Order) -> None:
    """Announce a cancelled order with its reason."""
    facts = {"reason": order.cancel_reason, "detail": order.cancel_detail}
    publish("orders.cancelled", facts_of(order) | facts, ordering_key=key_of(order))


def payment_declined(order: Order, detail: str) -> None:
    """Announce that the gateway refused to charge an order."""
    publish("payments.declined", facts_of(order) | {"detail": detail}, ordering_key=key_of(order))


def stock_low(product: Product) -> None:
    """Announce that a product needs a delivery."""
    publish("stock.low", {"sku": product.sku, "title": product.title, "left": product.stock})


def key_of(order: Order) -> str:
    """Return the key that keeps the orders of one customer in their order, on every queue."""
    return f"customer-{order.customer_id}"


def facts_of(order: Order) -> dict[str, Any]:
    """Return the body that every event about an order has; personal data stays in the database."""
    return {
        "order_id": order.pk,
        "reference": order.reference,
        "sku": order.product.sku,
        "quantity": order.quantity,
        "amount": order.amount,
    }
