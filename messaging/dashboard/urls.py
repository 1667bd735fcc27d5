"""Addresses of the operators' pages."""

from django.urls import path

from . import events, views

app_name = "messaging"
urlpatterns = [
    path("", views.overview, name="overview"),
    path("live/", views.live, name="live"),
    path("events/", events.events, name="events"),
    path("queues/<str:name>/pause/", views.pause, name="pause"),
    path("queues/<str:name>/resume/", views.resume, name="resume"),
]
