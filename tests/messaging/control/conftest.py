"""What the tests of operators' verbs start from."""

import pytest
from django.contrib.auth.models import User

from messaging.engines import wakeup
from messaging.models import Queue


@pytest.fixture
def queue() -> Queue:
    holder = Queue.objects.create(name="letters.dlq")
    return Queue.objects.create(name="letters", dead_letter_queue=holder)


@pytest.fixture
def operator() -> User:
    return User.objects.create_user("olga")


@pytest.fixture
def arrivals(monkeypatch: pytest.MonkeyPatch) -> list[wakeup.Arrival]:
    """Return what the workers would be told about."""
    told: list[wakeup.Arrival] = []
    monkeypatch.setattr(wakeup, "announce", lambda _, arrivals: told.extend(arrivals))
    return told


@pytest.fixture
def changes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return one alias for each time that the workers would be told to look at everything."""
    told: list[str] = []
    monkeypatch.setattr(wakeup, "announce_change", lambda of: told.append(of.alias))
    return told


@pytest.fixture
def in_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("batches", "purging", "deadletters", "selecting"):
        monkeypatch.setattr(f"messaging.control.{module}.BATCH", 3)
