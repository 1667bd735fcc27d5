"""The shop's staff place orders in the admin, and undo nothing that a worker did meanwhile."""

from decimal import Decimal

import pytest
from django.urls import reverse

from orders.models import BillingEntry, Customer, Order, Product
from orders.services import deliver

pytestmark = pytest.mark.django_db


def change(thing):
    """Return the address of a thing's form."""
    return reverse(f"admin:orders_{thing._meta.model_name}_change", args=[thing.pk])


class TestOrders:
    def test_placed_in_the_admin_are_published(self, admin_client, product, customer):
        fields = {
            "customer": customer.pk,
            "product": product.pk,
            "quantity": 2,
            "amount": "",
            "card": "good",
            "ordered_on": "2026-01-31",
        }
        response = admin_client.post(reverse("admin:orders_order_add"), fields)
        assert response.status_code == 302, response.context["adminform"].form.errors
        order = Order.objects.get()
        assert order.amount == Decimal("25.00")

    def test_refuse_what_no_order_can_be(self, admin_client, product, customer):
        fields = {
            "customer": customer.pk,
            "product": product.pk,
            "quantity": 41,
            "amount": "-1",
            "card": "stolen",
            "ordered_on": "2026-02-31",
        }
        response = admin_client.post(reverse("admin:orders_order_add"), fields)
        errors = response.context["adminform"].form.errors
        assert set(errors) == {"quantity", "amount", "card", "ordered_on"}
        assert not Order.objects.exists()

    def test_get_another_card_and_keep_the_status_that_a_worker_gave_them(
        self, admin_client, place, monkeypatch
    ):
        order = place(card="declined")
        save = Order.save

        def save_after_the_worker(self, *args, **kwargs):
            Order.objects.filter(pk=self.pk).update(cancel_detail="the worker was here")
            save(self, *args, **kwargs)

        monkeypatch.setattr(Order, "save", save_after_the_worker)
        response = admin_client.post(change(order), {"card": "good", "quantity": 40})
        assert response.status_code == 302
        order.refresh_from_db()
        assert (order.card, order.quantity) == ("good", 2)
        assert order.cancel_detail == "the worker was here"

    def test_are_never_deleted(self, admin_client, place):
        order = place()
        address = reverse("admin:orders_order_delete", args=[order.pk])
        assert admin_client.post(address, {"post": "yes"}).status_code == 403
        assert Order.objects.exists()


class TestProducts:
    def test_are_delivered_by_an_action(self, admin_client, product):
        limited = Product.objects.get(restock_size=0)
        response = admin_client.post(
            reverse("admin:orders_product_changelist"),
            {"action": "bring_delivery", "_selected_action": [product.pk, limited.pk]},
            follow=True,
        )
        product.refresh_from_db()
        assert product.stock == 70
        assert product.movements.get().quantity == 30
        told = [str(message) for message in response.context["messages"]]
        assert told == [
            "1 products were delivered.",
            "1 products were not delivered: their restock size is 0.",
        ]

    def test_keep_the_stock_that_a_worker_left(self, admin_client, product, monkeypatch):
        save = Product.save

        def save_after_a_delivery(self, *args, **kwargs):
            monkeypatch.setattr(Product, "save", save)
            deliver(self.sku)
            save(self, *args, **kwargs)

        monkeypatch.setattr(Product, "save", save_after_a_delivery)
        fields = {
            "sku": "CD-TEST",
            "artist": "The Quiet Testers",
            "title": "Greener Bar",
            "price": "13.00",
            "restock_level": 10,
            "restock_size": 30,
            "stock": 0,
        }
        assert admin_client.post(change(product), fields).status_code == 302
        product.refresh_from_db()
        assert (product.title, product.stock) == ("Greener Bar", 70)


class TestCustomers:
    def test_have_one_address_each_however_it_is_written(self, admin_client, customer):
        address = reverse("admin:orders_customer_add")
        response = admin_client.post(address, {"name": "Ada", "email": "ADA@Example.org"})
        assert "already exists" in str(response.context["adminform"].form.errors)
        admin_client.post(address, {"name": "Bob", "email": "BOB@Example.org"})
        assert Customer.objects.get(name="Bob").email == "bob@example.org"


class TestTheLists:
    @pytest.mark.parametrize(
        "model",
        [
            "product",
            "customer",
            "order",
            "payment",
            "stockmovement",
            "notification",
            "billingentry",
        ],
    )
    @pytest.mark.parametrize("query", ["", "?q=ada", "?q=%00", "?o=zzz", "?p=abc", "?o=1"])
    def test_open(self, admin_client, place, model, query):
        place()
        response = admin_client.get(reverse(f"admin:orders_{model}_changelist") + query)
        assert response.status_code in (200, 302)

    @pytest.mark.parametrize("query", ["status__exact=%00", "card__exact=x", "nosuch=1"])
    def test_survive_strange_filters(self, admin_client, place, query):
        place()
        response = admin_client.get(reverse("admin:orders_order_changelist") + "?" + query)
        assert response.status_code in (200, 302)

    def test_of_what_happened_offer_no_change(self, admin_client, place):
        entry = BillingEntry.objects.create(order=place(), amount=1)
        assert admin_client.get(reverse("admin:orders_billingentry_add")).status_code == 403
        assert admin_client.post(change(entry), {"amount": 2}).status_code == 403
