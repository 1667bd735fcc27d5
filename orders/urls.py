"""Addresses of the shop."""

from django.urls import path

from . import views

app_name = "orders"
urlpatterns = [
    path("", views.shop, name="shop"),
    path("orders/", views.latest, name="latest"),
    path("orders/rows/", views.rows, name="rows"),
    path("orders/<uuid:reference>/", views.order, name="order"),
    path("orders/<uuid:reference>/steps/", views.steps, name="steps"),
]
