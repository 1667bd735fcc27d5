"""Replaying: real orders through the shop, and the sums that must come out."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

from machinery import CHECKOUT, Database

ORDERS = 6_919
CDS = 16_479
DOLLARS = Decimal("244091.94")
CUSTOMERS_WHO_CAME_BACK = 1_152
PATIENCE = 900  # seconds; on two idle cores it takes one or two minutes


@contextmanager
def replay(database: Database, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Place all orders, as fast as it goes, beside what the block does."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "manage.py", "replay_orders", "--speed", "max"],
            cwd=CHECKOUT, env=database.environment(), stdout=output, stderr=output,
        )  # fmt: skip
    try:
        yield process
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def check_shop(database: Database) -> None:
    """Every order was placed, paid, packed, confirmed and billed exactly once."""
    assert database.rows("SELECT status, count(*) FROM orders_order GROUP BY 1") == [
        ("processed", ORDERS)
    ]
    assert database.rows(
        "SELECT count(*), count(DISTINCT order_id), sum(amount), count(refunded_at)"
        " FROM orders_payment"
    ) == [(ORDERS, ORDERS, DOLLARS, 0)]
    assert database.rows(
        "SELECT count(*), count(DISTINCT order_id), -sum(quantity), count(returned_at)"
        " FROM orders_stockmovement WHERE order_id IS NOT NULL"
    ) == [(ORDERS, ORDERS, CDS, 0)]
    for table in ("orders_notification", "orders_billingentry"):
        found = database.rows(f"SELECT count(*), count(DISTINCT order_id) FROM {table}")
        assert found == [(ORDERS, ORDERS)], table
    assert database.value("SELECT sum(amount) FROM orders_billingentry") == DOLLARS
    shelves = """
        SELECT product.sku, product.stock, sum(movement.quantity) FROM orders_product AS product
        JOIN orders_stockmovement AS movement ON movement.product_id = product.id
        GROUP BY product.id HAVING product.stock <> sum(movement.quantity)
    """
    assert database.rows(shelves) == []


def check_order(database: Database) -> None:
    """Each step handled the orders of a customer in the order in which they were placed.

    A handler's row gets its id in the transaction that acknowledges the message, and the orders
    are placed by one process: both ids only rise.
    """
    came_back = """
        SELECT count(*) FROM (
            SELECT FROM orders_order GROUP BY customer_id HAVING count(*) > 1
        ) AS customer
    """
    assert database.value(came_back) == CUSTOMERS_WHO_CAME_BACK
    for table in ("payment", "stockmovement", "notification", "billingentry"):
        inversions = f"""
            SELECT customer_id, placed, previous FROM (
                SELECT orders.customer_id, orders.id AS placed,
                    lag(orders.id) OVER (
                        PARTITION BY orders.customer_id ORDER BY effect.id) AS previous
                FROM orders_{table} AS effect JOIN orders_order AS orders
                    ON orders.id = effect.order_id
            ) AS handled
            WHERE placed < previous
        """
        assert database.rows(inversions) == [], table


def check_messages(database: Database) -> None:
    """Every event was published once for each order, and nothing waits or has died."""
    published = """
        SELECT topic.name, count(*), count(DISTINCT message.body ->> 'order_id')
        FROM messaging_message AS message JOIN messaging_topic AS topic
            ON topic.id = message.topic_id
        WHERE topic.name LIKE 'orders.%%' GROUP BY 1 ORDER BY 1
    """
    assert database.rows(published) == [
        ("orders.placed", ORDERS, ORDERS),
        ("orders.processed", ORDERS, ORDERS),
    ]
    assert database.dead() == {}
    assert database.waiting == 0
