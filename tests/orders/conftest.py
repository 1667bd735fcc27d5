"""What the shop's tests start from."""

from decimal import Decimal

import pytest

from orders.models import Customer, Order, Product
from orders.services import place_order


@pytest.fixture
def product(db):
    """Return a CD with forty copies left, which is delivered again below ten."""
    return Product.objects.create(
        sku="CD-TEST",
        artist="The Quiet Testers",
        title="Green Bar",
        price=Decimal("12.50"),
        stock=40,
        restock_level=10,
        restock_size=30,
    )


@pytest.fixture
def customer(db):
    return Customer.objects.create(name="Ada Example", email="ada@example.org")


@pytest.fixture
def place(product, customer):
    """Return a function that places an order, of two CDs with a good card unless told otherwise."""

    def place(**fields):
        return place_order(
            Order(**{"product": product, "customer": customer, "quantity": 2, **fields})
        )

    return place
