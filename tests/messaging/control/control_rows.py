"""Rows that operators' verbs act on, and transactions that are in their way."""

import threading
from collections.abc import Callable
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from messaging.models import DeadLetter, Delivery, Message, Queue


def bury(origin: Queue, count: int = 1, **fields: Any) -> list[int]:
    """Make dead letters of messages sent to a queue; return their ids."""
    dead = []
    for number in range(count):
        message = Message.objects.create(queue=origin, headers={}, body={"n": number})
        values: dict[str, Any] = {
            "message_id": message.pk,
            "queue": origin.dead_letter_queue or origin,
            "origin": origin,
            "priority": 0,
            "headers": {},
            "body": {"n": number},
            "published_at": timezone.now(),
            "attempts": 5,
            "reason": "max_deliveries",
            "error": "ValueError",
            "fingerprint": "f",
        }
        dead.append(DeadLetter.objects.create(**values | fields).pk)
    return dead


def waiting(queue: Queue) -> int:
    return Delivery.objects.filter(queue=queue).count()


class holding:
    """Do something in a transaction of another connection, open until the block ends."""

    def __init__(self, act: Callable[[Any], Any], *, commit: bool = False) -> None:
        self.act = act
        self.commit = commit
        self.begun = threading.Event()
        self.end = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    self.act(cursor)
                self.begun.set()
                assert self.end.wait(30)
                transaction.set_rollback(not self.commit)
        finally:
            self.begun.set()
            connection.close()

    def __enter__(self) -> None:
        self.thread.start()
        assert self.begun.wait(30)

    def __exit__(self, *error: object) -> None:
        self.end.set()
        self.thread.join(30)
