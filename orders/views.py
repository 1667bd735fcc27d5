"""Views: the shop, one order on its way, the latest orders."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from .forms import OrderForm
from .models import Order
from .steps import progress_of

LATEST = 50


@require_http_methods(["GET", "HEAD", "POST"])
def shop(request: HttpRequest) -> HttpResponse:
    """Show what there is to buy, and take an order."""
    form = OrderForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        return redirect(form.place())
    # 422, so that a program that posts sees the refusal in the status too.
    status = 422 if form.errors else 200
    return render(request, "orders/shop.html", {"form": form}, status=status)


@never_cache
@require_safe
def order(request: HttpRequest, reference: UUID) -> HttpResponse:
    """Follow one order."""
    return render(request, "orders/order.html", _followed(reference))


@never_cache
@require_safe
def steps(request: HttpRequest, reference: UUID) -> HttpResponse:
    """Give the part of the order's page that changes."""
    return render(request, "orders/_steps.html", _followed(reference))


@never_cache
@require_safe
def latest(request: HttpRequest) -> HttpResponse:
    """List the latest orders."""
    return render(request, "orders/latest.html", {"orders": _latest(), "limit": LATEST})


@never_cache
@require_safe
def rows(request: HttpRequest) -> HttpResponse:
    """Give the part of the list that changes."""
    return render(request, "orders/_rows.html", {"orders": _latest()})


def _followed(reference: UUID) -> dict[str, object]:
    orders = Order.objects.select_related("product", "customer")
    followed = get_object_or_404(orders, reference=reference)
    return {"order": followed, "progress": progress_of(followed)}


def _latest() -> list[Order]:
    return list(Order.objects.select_related("product")[:LATEST])
