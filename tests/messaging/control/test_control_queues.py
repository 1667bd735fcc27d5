"""Pausing holds back what is sent, disabling refuses it, and both leave the rest as it is."""

from typing import Any

import pytest
from effects import make_due

from messaging import QueueDisabled, Retry, consumer, consuming, control, receive, send
from messaging.models import Queue
from messaging.testing import drain

pytestmark = pytest.mark.django_db


@pytest.fixture
def handled(queue: Queue, declared: consuming.Declarations) -> list[Any]:
    """Consume letters, of which "again" succeeds at the second attempt; return what was handled."""
    seen: list[Any] = []

    @consumer("letters")
    def handle(message: Any) -> None:
        seen.append((message.body, message.attempt))
        if message.body == "again" and message.attempt == 1:
            raise Retry(after=60)

    return seen


def test_a_resumed_queue_delivers_what_was_sent_before_and_during_its_pause(
    handled: list[Any],
) -> None:
    send("letters", "before")
    control.pause("letters")
    for options in ({}, {"priority": 5}, {"ordering_key": "a"}, {"delay": 60}):
        send("letters", str(options), **options)
    make_due()
    drain("letters")
    assert (handled, receive("letters")) == ([], [])
    control.resume("letters")
    drain("letters")
    first, *rest = [body for body, _ in handled]
    assert first == "{'priority': 5}"
    assert sorted(rest) == ["before", "{'delay': 60}", "{'ordering_key': 'a'}", "{}"]


def test_a_disabled_queue_still_delivers_what_waits_and_what_is_tried_again(
    handled: list[Any],
) -> None:
    send("letters", "waits")
    send("letters", "again")
    send("letters", "later", delay=60)
    control.disable("letters")
    with pytest.raises(QueueDisabled):
        send("letters", "refused")
    drain("letters")
    make_due()
    drain("letters")
    assert sorted(handled) == [("again", 1), ("again", 2), ("later", 1), ("waits", 1)]
    control.enable("letters")
    send("letters", "accepted")
    drain("letters")
    assert handled[-1] == ("accepted", 1)
