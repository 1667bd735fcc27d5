"""Addresses and contents of the admin's pages, for its tests."""

import re
from typing import Any

from django.urls import reverse

MODELS = (
    "queue",
    "topic",
    "subscription",
    "message",
    "attempt",
    "deadletter",
    "scheduled",
    "lease",
    "lane",
    "worker",
    "idempotency",
    "schedule",
    "webhook",
)


def address(model: str, view: str = "changelist", *args: Any) -> str:
    return reverse(f"admin:messaging_{model}_{view}", args=args)


def token_of(page: Any) -> str:
    """Return what the confirmation page would send back."""
    return page.context["token"]


def version_of(page: Any) -> str:
    return page.context["adminform"].form.initial["version"]


def texts(page: Any) -> str:
    """Return the messages that a page shows, as one text."""
    return " ".join(str(message) for message in page.context["messages"])


def visible(page: Any) -> str:
    """Return the text of a page without its tags."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.content.decode()))
