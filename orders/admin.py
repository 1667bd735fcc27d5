"""Admin: what the shop's staff sees, and the few things that they may change.

Workers change orders and stock at the same time, so a form writes the fields that were edited and
no others: saving whole rows would undo what a worker did meanwhile.
"""

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ChangeList
from django.db import models, transaction
from django.http import HttpRequest

from .models import (
    BillingEntry,
    Customer,
    Notification,
    Order,
    Payment,
    Product,
    StockMovement,
)
from .services import deliver, place_order


class ListAdmin(admin.ModelAdmin):
    """Show lists of any length, whatever is asked of them."""

    list_per_page = 50
    show_full_result_count = False

    def get_changelist_instance(self, request: HttpRequest) -> ChangeList:
        # PostgreSQL has no NUL in texts, and Django does not expect the error that it raises.
        if any("\0" in value for value in request.GET.values()):
            raise IncorrectLookupParameters
        return super().get_changelist_instance(request)


class EditedFieldsAdmin(ListAdmin):
    """Write only the fields that were edited."""

    def save_model(self, request: HttpRequest, obj: models.Model, form: Any, change: bool) -> None:
        if change:
            obj.save(update_fields=form.changed_data)
        else:
            obj.save()


class RecordAdmin(ListAdmin):
    """Show what happened, which nobody may change."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Product)
class ProductAdmin(EditedFieldsAdmin):
    list_display = ("sku", "artist", "title", "price", "stock", "restock_level", "restock_size")
    search_fields = ("sku", "artist", "title")
    readonly_fields = ("stock",)
    actions: ClassVar[list[Any]] = ["bring_delivery"]

    @admin.action(description="Bring a delivery of the selected products", permissions=["change"])
    def bring_delivery(self, request: HttpRequest, queryset: models.QuerySet[Product]) -> None:
        """Put one delivery of each on the shelf."""
        delivered = [product for product in queryset if product.is_delivered_again]
        # By SKU, one transaction each: never two product locks at once.
        for product in sorted(delivered, key=lambda product: product.sku):
            with transaction.atomic():
                deliver(product.sku)
        refused = len(queryset) - len(delivered)
        if delivered:
            self.message_user(request, f"{len(delivered)} products were delivered.")
        if refused:
            self.message_user(
                request,
                f"{refused} products were not delivered: their restock size is 0.",
                messages.WARNING,
            )


@admin.register(Customer)
class CustomerAdmin(EditedFieldsAdmin):
    list_display = ("name", "email")
    search_fields = ("name", "email")


@admin.register(Order)
class OrderAdmin(EditedFieldsAdmin):
    list_display = (
        "number",
        "status",
        "cancel_reason",
        "product",
        "quantity",
        "amount",
        "card",
        "ordered_on",
        "placed_at",
    )
    list_filter = ("status", "cancel_reason", "card")
    list_select_related = ("product",)
    search_fields = ("=reference", "=source_reference", "customer__email")
    autocomplete_fields = ("customer", "product")
    fields = ("customer", "product", "quantity", "amount", "card", "ordered_on")
    recorded_fields = (
        "reference",
        "source_reference",
        "status",
        "placed_at",
        "processed_at",
        "cancelled_at",
        "cancel_reason",
        "cancel_detail",
    )

    def get_fields(self, request: HttpRequest, obj: Order | None = None) -> tuple[str, ...]:
        return self.fields + self.recorded_fields if obj else self.fields

    def get_readonly_fields(
        self, request: HttpRequest, obj: Order | None = None
    ) -> tuple[str, ...]:
        # A new card is what a declined or stuck order may need; the rest is history.
        if obj is None:
            return ()
        return tuple(name for name in self.get_fields(request, obj) if name != "card")

    def save_model(self, request: HttpRequest, obj: Order, form: Any, change: bool) -> None:
        if change:
            super().save_model(request, obj, form, change)
        else:
            place_order(obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Payment)
class PaymentAdmin(RecordAdmin):
    list_display = ("order", "amount", "authorization", "paid_at", "refunded_at")
    list_select_related = ("order",)


@admin.register(StockMovement)
class StockMovementAdmin(RecordAdmin):
    list_display = ("product", "quantity", "order", "moved_at", "returned_at")
    list_select_related = ("product", "order")


@admin.register(Notification)
class NotificationAdmin(RecordAdmin):
    list_display = ("subject", "recipient", "order", "sent_at")
    list_select_related = ("order",)


@admin.register(BillingEntry)
class BillingEntryAdmin(RecordAdmin):
    list_display = ("order", "amount", "booked_at")
    list_select_related = ("order",)
