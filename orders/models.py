"""Tables: products, customers, orders, and each effect that an order has.

The unique constraints are a net: the consumers are right without them, and should one ever
run twice for an order, the second effect is an error that everybody sees.
"""

import uuid
from decimal import Decimal
from typing import Any, ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.db.models.functions import Lower
from django.urls import reverse
from django.utils import timezone

printable = RegexValidator(
    r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z", "Use one line of text without control characters."
)


class Product(models.Model):
    """A CD, and how many of it are on the shelf."""

    sku = models.CharField("SKU", max_length=12, unique=True)
    artist = models.CharField(max_length=80, validators=[printable])
    title = models.CharField(max_length=80, validators=[printable])
    price = models.DecimalField(
        max_digits=8, decimal_places=2, validators=[MinValueValidator(Decimal(0))]
    )
    stock = models.PositiveIntegerField(
        default=0, editable=False, help_text="Changes with each stock movement, never by hand."
    )
    restock_level = models.PositiveSmallIntegerField(
        default=60, help_text="With fewer on the shelf, stock.low is published."
    )
    restock_size = models.PositiveSmallIntegerField(
        default=240, help_text="How many a delivery brings. 0: it is never delivered again."
    )

    class Meta:
        ordering: ClassVar[list[str]] = ["sku"]
        constraints: ClassVar[list[Any]] = [
            models.CheckConstraint(condition=Q(price__gte=0), name="orders_product_price"),
        ]

    def __str__(self) -> str:
        return f"{self.artist}: {self.title}"

    @property
    def is_low(self) -> bool:
        """Say whether it is time for a delivery."""
        return self.stock < self.restock_level

    @property
    def is_delivered_again(self) -> bool:
        """Say whether an empty shelf will be filled."""
        return self.restock_size > 0


class Customer(models.Model):
    """Who orders, known by e-mail address."""

    name = models.CharField(max_length=100, validators=[printable])
    email = models.EmailField("e-mail", max_length=254, unique=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-pk"]
        constraints: ClassVar[list[Any]] = [
            models.CheckConstraint(
                condition=Q(email=Lower("email")), name="orders_customer_email_lower_case"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>"

    def clean(self) -> None:
        """Write the address in lower case: one mailbox, one customer."""
        self.email = self.email.lower()

    @property
    def masked_email(self) -> str:
        """Return what a page that anybody may open shows of the address."""
        local, _, domain = self.email.partition("@")
        return f"{local[:1]}•••@{domain}"


class Card(models.TextChoices):
    """The test cards: what the simulated payment gateway does with each."""

    GOOD = "good", "Good"
    FLAKY = "flaky", "Flaky"
    DECLINED = "declined", "Declined"
    UNREACHABLE = "unreachable", "Unreachable"


class Order(models.Model):
    """Some copies of one CD, for one customer."""

    MAX_QUANTITY = 40

    class Status(models.TextChoices):
        PLACED = "placed", "Placed"
        PROCESSED = "processed", "Processed"
        CANCELLED = "cancelled", "Cancelled"

    class CancelReason(models.TextChoices):
        CARD_DECLINED = "card_declined", "Card declined"
        OUT_OF_STOCK = "out_of_stock", "Out of stock"

    # In addresses, so that nobody can count or guess the orders of others.
    reference = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    source_reference = models.CharField(
        max_length=120,
        null=True,
        blank=True,
        unique=True,
        editable=False,
        help_text="The order's name in the file that it was replayed from.",
    )
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="orders")
    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="orders")
    quantity = models.PositiveSmallIntegerField(
        default=1, validators=[MinValueValidator(1), MaxValueValidator(MAX_QUANTITY)]
    )
    amount = models.DecimalField(
        max_digits=10,
        decimal_places=2,
        blank=True,
        validators=[MinValueValidator(Decimal(0))],
        help_text="Dollars for the whole order. Empty: price times quantity.",
    )
    card = models.CharField(max_length=12, choices=Card, default=Card.GOOD)
    ordered_on = models.DateField(default=timezone.localdate)
    placed_at = models.DateTimeField(default=timezone.now, editable=False)
    status = models.CharField(max_length=10, choices=Status, default=Status.PLACED, editable=False)
    processed_at = models.DateTimeField(null=True, editable=False)
    cancelled_at = models.DateTimeField(null=True, editable=False)
    cancel_reason = models.CharField(
        max_length=16, choices=CancelReason, blank=True, default="", editable=False
    )
    cancel_detail = models.CharField(max_length=200, blank=True, default="", editable=False)

    class Meta:
        ordering: ClassVar[list[str]] = ["-pk"]
        constraints: ClassVar[list[Any]] = [
            models.CheckConstraint(
                condition=Q(quantity__gte=1, quantity__lte=40), name="orders_order_quantity"
            ),
            models.CheckConstraint(condition=Q(amount__gte=0), name="orders_order_amount"),
            models.CheckConstraint(
                condition=(
                    Q(
                        status="placed",
                        processed_at=None,
                        cancelled_at=None,
                        cancel_reason="",
                    )
                    | Q(
                        status="processed",
                        processed_at__isnull=False,
                        cancelled_at=None,
                        cancel_reason="",
                    )
                    | Q(
                        status="cancelled",
                        processed_at=None,
                        cancelled_at__isnull=False,
                        cancel_reason__in=["card_declined", "out_of_stock"],
                    )
                ),
                name="orders_order_status",
            ),
        ]

    def __str__(self) -> str:
        return f"Order {self.number}"

    def get_absolute_url(self) -> str:
        """Return the page that follows this order."""
        return reverse("orders:order", args=[self.reference])

    @property
    def number(self) -> str:
        """Return the short name that people read."""
        return str(self.reference)[:8]

    @property
    def is_free(self) -> bool:
        """Say whether there is nothing to charge: a promotional order."""
        return self.amount == 0


class Payment(models.Model):
    """What a customer paid for an order, until it is given back."""

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="payments")
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    authorization = models.CharField(max_length=40)
    paid_at = models.DateTimeField(default=timezone.now)
    refunded_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-pk"]
        constraints: ClassVar[list[Any]] = [
            models.CheckConstraint(condition=Q(amount__gte=0), name="orders_payment_amount"),
            models.UniqueConstraint(
                fields=["order"], condition=Q(refunded_at=None), name="orders_one_payment"
            ),
        ]

    def __str__(self) -> str:
        return f"Payment of ${self.amount} ({self.authorization})"


class StockMovement(models.Model):
    """Copies of a CD that came with a delivery, or went with an order until they are returned."""

    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="movements")
    order = models.ForeignKey(
        Order, on_delete=models.PROTECT, related_name="movements", null=True, blank=True
    )
    quantity = models.IntegerField(help_text="Positive: delivered. Negative: taken by an order.")
    moved_at = models.DateTimeField(default=timezone.now)
    returned_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering: ClassVar[list[str]] = ["-pk"]
        constraints: ClassVar[list[Any]] = [
            models.CheckConstraint(
                condition=Q(order=None, quantity__gt=0, returned_at=None)
                | Q(order__isnull=False, quantity__lt=0),
                name="orders_movement_direction",
            ),
            models.UniqueConstraint(
                fields=["order"], condition=Q(returned_at=None), name="orders_one_movement"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.quantity:+} of {self.product}"


class Notification(models.Model):
    """The confirmation e-mail of a processed order."""

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="notifications")
    recipient = models.EmailField(max_length=254)
    subject = models.CharField(max_length=200)
    sent_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering: ClassVar[list[str]] = ["-pk"]
        constraints: ClassVar[list[Any]] = [
            models.UniqueConstraint(fields=["order"], name="orders_one_confirmation"),
        ]

    def __str__(self) -> str:
        return self.subject


class BillingEntry(models.Model):
    """A line of the billing log, which is only ever added to."""

    order = models.ForeignKey(Order, on_delete=models.PROTECT, related_name="billing_entries")
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    booked_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering: ClassVar[list[str]] = ["-pk"]
        verbose_name_plural = "billing entries"
        constraints: ClassVar[list[Any]] = [
            models.UniqueConstraint(fields=["order"], name="orders_one_billing_entry"),
        ]

    def __str__(self) -> str:
        return f"${self.amount} for {self.order}"
