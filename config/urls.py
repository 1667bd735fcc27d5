"""Addresses of the site: the shop, the messaging pages, the admin."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("messaging/", include("messaging.dashboard.urls")),
    path("", include("orders.urls")),
]
