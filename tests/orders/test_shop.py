"""The shop takes an order and shows how it comes along."""

import uuid

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from orders.models import Customer, Order
from orders.views import LATEST

pytestmark = pytest.mark.django_db


@pytest.fixture
def fields(product):
    """Return what a visitor fills in."""
    return {
        "product": product.pk,
        "quantity": 3,
        "name": "Grace Example",
        "email": "Grace@Example.org",
        "card": "good",
    }


def errors_of(response):
    return {name: errors[0] for name, errors in response.context["form"].errors.items()}


class TestTheCounter:
    def test_shows_every_product_with_price_and_stock(self, client, product):
        page = client.get("/").content.decode()
        assert page.count('name="product"') == 41
        assert "Green Bar" in page
        assert "$12.50" in page
        assert "40 left" in page

    def test_takes_an_order_and_leads_to_its_page(self, client, product, fields):
        response = client.post("/", fields)
        order = Order.objects.get()
        assert response.status_code == 302
        assert response["Location"] == f"/orders/{order.reference}/"
        assert (order.product, order.quantity, str(order.amount)) == (product, 3, "37.50")
        assert order.customer.name == "Grace Example"
        assert order.customer.email == "grace@example.org"

    def test_knows_a_customer_by_address_and_keeps_the_name(self, client, fields, customer):
        client.post("/", fields | {"name": "Somebody Else", "email": "ADA@example.org"})
        assert Order.objects.get().customer == customer
        assert Customer.objects.get().name == "Ada Example"

    @pytest.mark.parametrize(
        ("field", "value", "says"),
        [
            ("product", "", "Choose a CD."),
            ("product", "987654321", "Select a valid choice."),
            ("product", "x", "Select a valid choice."),
            ("product", "9" * 30, "Select a valid choice."),
            ("quantity", "", "required"),
            ("quantity", "0", "greater than or equal to 1"),
            ("quantity", "41", "less than or equal to 40"),
            ("quantity", "1.5", "whole number"),
            ("quantity", "9" * 5000, "whole number"),
            ("name", "", "required"),
            ("name", "n" * 101, "at most 100 characters"),
            ("name", "Ada\nBcc: you@example.org", "one line of text"),
            ("name", "A\0da", "one line of text"),
            ("email", "ada", "valid email address"),
            ("email", "a@example.org\nBcc: b@example.org", "valid email address"),
            ("email", f"{'a' * 250}@example.org", "at most 254 characters"),
            ("card", "", "Choose a test card."),
            ("card", "stolen", "not one of the available choices"),
        ],
    )
    def test_explains_what_is_wrong_and_stores_nothing(self, client, fields, field, value, says):
        response = client.post("/", fields | {field: value})
        assert response.status_code == 422
        assert says in errors_of(response)[field]
        assert says.split()[0] in response.content.decode()
        assert not Order.objects.exists()
        assert not Customer.objects.exists()

    def test_keeps_what_was_filled_in_when_something_is_wrong(self, client, product, fields):
        page = client.post("/", fields | {"email": "grace", "card": "flaky"}).content.decode()
        assert f'value="{product.pk}" required checked' in page
        assert 'value="flaky" checked' in page
        assert 'value="Grace Example"' in page

    def test_escapes_what_was_filled_in(self, client, fields):
        page = client.post("/", fields | {"name": "<script>x", "email": ""}).content.decode()
        assert "<script>x" not in page
        assert "&lt;script&gt;x" in page

    def test_asks_for_a_csrf_token(self, fields):
        assert Client(enforce_csrf_checks=True).post("/", fields).status_code == 403
        assert not Order.objects.exists()

    def test_takes_no_other_method(self, client):
        assert client.delete("/").status_code == 405


class TestThePageOfAnOrder:
    def test_shows_the_steps_and_hides_the_address(self, client, place):
        order = place()
        page = client.get(order.get_absolute_url()).content.decode()
        for step in ("Order", "Payment", "Stock", "Processed", "Confirmation", "Billing log"):
            assert f"<b>{step}</b>" in page
        assert "Waiting for payment and stock" in page
        assert "a•••@example.org" in page
        assert "ada@example.org" not in page
        assert "Ada Example" not in page

    def test_reloads_itself_without_javascript_while_something_may_change(self, client, place):
        order = place()
        assert 'http-equiv="refresh"' in client.get(order.get_absolute_url()).content.decode()
        Order.objects.filter(pk=order.pk).update(
            status="cancelled", cancelled_at=timezone.now(), cancel_reason="out_of_stock"
        )
        page = client.get(order.get_absolute_url()).content.decode()
        assert 'http-equiv="refresh"' not in page
        assert "data-finished" in page

    def test_gives_the_steps_alone_for_javascript(self, client, place):
        order = place()
        response = client.get(reverse("orders:steps", args=[order.reference]))
        assert "<b>Payment</b>" in response.content.decode()
        assert "<html" not in response.content.decode()
        assert "no-store" in response["Cache-Control"]

    @pytest.mark.parametrize("page", ["order", "steps"])
    def test_of_an_unknown_order_is_not_found(self, client, page):
        assert client.get(reverse(f"orders:{page}", args=[uuid.uuid4()])).status_code == 404

    @pytest.mark.parametrize("reference", ["1", "x", "%00", "..%2f", "a" * 10_000])
    def test_of_a_strange_reference_is_not_found(self, client, place, reference):
        place()
        assert client.get(f"/orders/{reference}/").status_code == 404

    def test_only_answers_to_reading(self, client, place):
        assert client.post(place().get_absolute_url()).status_code == 405


class TestTheLatestOrders:
    def test_explain_the_next_step_when_there_are_none(self, client):
        page = client.get("/orders/").content.decode()
        assert "No order yet." in page
        assert "replay_orders" in page

    def test_are_the_newest_and_no_more_than_fit(self, client, place):
        orders = [place() for _ in range(LATEST + 1)]
        page = client.get("/orders/").content.decode()
        assert page.count("<tr>") == LATEST + 1
        assert orders[-1].number in page
        assert orders[0].number not in page

    def test_cost_one_query_however_many_there_are(self, client, place, django_assert_num_queries):
        for _ in range(5):
            place()
        with django_assert_num_queries(1):
            client.get("/orders/rows/")


class TestEveryPage:
    @pytest.mark.parametrize("address", ["/", "/orders/"])
    def test_has_no_inline_style_or_script(self, client, place, address):
        for page in (address, place().get_absolute_url()):
            response = client.get(page)
            text = response.content.decode()
            assert "default-src 'self'" in response["Content-Security-Policy"]
            assert "<style" not in text
            assert " style=" not in text
            assert " onclick=" not in text
            assert text.count("<script") == text.count("<script src=")
