"""What the admin's tests start from: rows in every state, and users with the rights named."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone
from rows import hold, keyed

from messaging.models import DeadLetter, Message, Queue


@pytest.fixture
def root(db: None) -> Client:
    """Return the browser of somebody who may do everything."""
    client = Client()
    client.force_login(User.objects.create(username="root", is_staff=True, is_superuser=True))
    return client


@pytest.fixture
def staff(db: None) -> Callable[..., Client]:
    """Return a function that logs in a staff user with the permissions named, and no other."""

    def create(*codenames: str, strict: bool = False) -> Client:
        user = User.objects.create(username=f"staff{User.objects.count()}", is_staff=True)
        found = Permission.objects.filter(content_type__app_label="messaging")
        chosen = found.filter(codename__in=codenames)
        assert len(chosen) == len(set(codenames))
        user.user_permissions.set(chosen)
        client = Client(enforce_csrf_checks=strict)
        client.force_login(user)
        return client

    return create


@pytest.fixture
def letters(queue: Callable[..., Queue]) -> Queue:
    return queue("letters", dead_letter_queue=queue("letters.dlq"))


@pytest.fixture
def bury(letters: Queue) -> Callable[..., list[DeadLetter]]:
    """Return a function that makes dead letters of the queue."""

    def create(count: int = 1, **fields: Any) -> list[DeadLetter]:
        dead = []
        for number in range(count):
            message = Message.objects.create(queue=letters, headers={}, body={"n": number})
            values: dict[str, Any] = {
                "message_id": message.pk,
                "queue": letters.dead_letter_queue,
                "origin": letters,
                "priority": 0,
                "headers": {"trace": "abc"},
                "body": {"n": number},
                "published_at": timezone.now(),
                "attempts": 5,
                "reason": "max_deliveries",
                "error": "ValueError",
                "description": "no such letter",
                "traceback": "Traceback (most recent call last):",
                "fingerprint": "f" * 32,
            }
            dead.append(DeadLetter.objects.create(**values | fields))
        return dead

    return create


@pytest.fixture
def everything(letters: Queue, bury: Any, topic: Any, subscribe: Any) -> dict[str, int]:
    """Make a row of every model; return the primary keys by model."""
    from messaging import send
    from messaging.models import Attempt, Idempotency, Lane, Schedule, Scheduled, Webhook, Worker

    (dead,) = bury()
    send("letters", {"n": 1}, delay=3600)
    (lease,) = hold(letters, worker="w1")
    keyed("letters", {"n": 2}, key="customer 7")
    attempt = Attempt.objects.create(
        message_id=dead.message_id,
        queue=letters,
        attempt=1,
        outcome="retry",
        error="ValueError",
        worker="w1",
        duration=0.25,
    )
    worker = Worker.objects.create(
        name="w1",
        host="h",
        pid=1,
        version="1",
        queues=["letters"],
        threads=1,
        running={"letters": 2},
        handled=5,
        failed=1,
        state="running",
        started_at=timezone.now(),
        seen_at=timezone.now(),
    )
    return {
        "queue": letters.pk,
        "topic": topic("letters.sent").pk,
        "subscription": subscribe("orders.#", "letters").pk,
        "message": dead.message_id,
        "attempt": attempt.pk,
        "deadletter": dead.pk,
        "scheduled": Scheduled.objects.get().pk,
        "lease": lease,
        "lane": Lane.objects.get().pk,
        "worker": worker.pk,
        "schedule": Schedule.objects.create(name="nightly", queue=letters, every=3600.0).pk,
        "webhook": Webhook.objects.create(name="partner", queue=letters).pk,
        "idempotency": Idempotency.objects.create(scope="charge", key="1", result={"ok": 1}).pk,
    }
