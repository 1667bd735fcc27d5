"""Held: a transaction that has published, and whose commit a test holds back."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from django.db import transaction

from messaging import publish

Elsewhere = Callable[..., Future[Any]]


class Held:
    """A transaction elsewhere that has published, and commits when told."""

    def __init__(self, elsewhere: Elsewhere, body: Any, *, topic: str = "letters.sent") -> None:
        self._published, self._may_commit = threading.Event(), threading.Event()
        self._future = elsewhere(self._run, topic, body)
        assert self._published.wait(15)

    def _run(self, topic: str, body: Any) -> None:
        with transaction.atomic():
            publish(topic, body)
            self._published.set()
            assert self._may_commit.wait(15)

    def commit(self) -> None:
        """Let it commit, and wait until it has."""
        self._may_commit.set()
        self._future.result(15)
