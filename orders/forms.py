"""Forms: what a visitor fills in to place an order."""

from typing import Any, ClassVar

from django import forms
from django.db import transaction

from .models import Card, Customer, Order, Product, printable
from .services import place_order

CARDS = {
    Card.GOOD: "Accepted at once.",
    Card.FLAKY: "The gateway times out at first; the queue backs off and asks again.",
    Card.DECLINED: "The order is cancelled, what it took is given back.",
    Card.UNREACHABLE: "The gateway never answers: a dead letter in the end.",
}


class OrderForm(forms.ModelForm):
    """Some copies of a CD, for somebody with an e-mail address."""

    name = forms.CharField(max_length=100, validators=[printable])
    email = forms.EmailField(label="E-mail", max_length=254)

    class Meta:
        model = Order
        fields = ("product", "quantity", "card")
        error_messages: ClassVar[dict[str, dict[str, str]]] = {
            "product": {"required": "Choose a CD."},
            "card": {"required": "Choose a test card."},
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        product = self.fields["product"]
        product.queryset = Product.objects.all()
        product.empty_label = None
        self.fields["quantity"].widget.attrs.update(min=1, max=Order.MAX_QUANTITY)
        self.fields["name"].widget.attrs["autocomplete"] = "name"
        self.fields["email"].widget.attrs["autocomplete"] = "email"

    @property
    def cards(self) -> list[dict[str, Any]]:
        """Return the test cards, each with what it does."""
        chosen = self["card"].value()
        return [
            {"card": card, "effect": effect, "chosen": card == chosen}
            for card, effect in CARDS.items()
        ]

    @property
    def records(self) -> list[dict[str, Any]]:
        """Return the products, each with whether it is chosen and the hue of its label."""
        chosen = str(self["product"].value() or "")
        return [
            {"product": product, "chosen": str(product.pk) == chosen, "hue": product.pk % 10}
            for product in self.fields["product"].queryset
        ]

    def place(self) -> Order:
        """Place the order for the customer with this address, who is new or known."""
        with transaction.atomic():
            # A known address keeps its name: whoever types it is not proven to own it.
            self.instance.customer, _ = Customer.objects.get_or_create(
                email=self.cleaned_data["email"].lower(),
                defaults={"name": self.cleaned_data["name"]},
            )
            return place_order(self.instance)
