"""Addresses of the operators' pages."""

from django.urls import URLPattern

app_name = "messaging"
urlpatterns: list[URLPattern] = []
