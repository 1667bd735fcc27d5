"""What the tests of the operators' pages start from: queues, topics, and who looks at them."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

from messaging.models import Queue, Topic


@pytest.fixture
def queue(db: None) -> Callable[..., Queue]:
    """Return a function that creates a queue with the policies given."""

    def create(name: str = "invoices", **policies: Any) -> Queue:
        return Queue.objects.create(name=name, **policies)

    return create


@pytest.fixture
def topic(db: None) -> Callable[..., Topic]:
    """Return a function that creates a topic."""

    def create(name: str = "parcels.sent") -> Topic:
        return Topic.objects.create(name=name)

    return create


@pytest.fixture
def staff(db: None) -> Callable[..., Client]:
    """Return a function that logs in a user with the permissions of messaging that are named."""

    def create(*codenames: str, strict: bool = False, **fields: Any) -> Client:
        user = User.objects.create_user(f"staff{User.objects.count()}", **fields)
        found = Permission.objects.filter(content_type__app_label="messaging")
        chosen = found.filter(codename__in=codenames)
        assert len(chosen) == len(set(codenames))
        user.user_permissions.set(chosen)
        client = Client(enforce_csrf_checks=strict)
        client.force_login(user)
        return client

    return create


@pytest.fixture
def operator(db: None) -> Client:
    """Return the browser of somebody who may see and do everything."""
    client = Client()
    client.force_login(User.objects.create_superuser("operator"))
    return client
