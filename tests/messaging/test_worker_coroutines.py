"""Coroutines: an async handler is called for what has not expired, however late its turn comes."""

import time
from types import SimpleNamespace

import pytest
from effects import execute, waiting

from messaging import send
from messaging.models import DeadLetter, Queue
from messaging.testing import drain
from messaging.worker import coroutines

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(("kept", "left"), [(False, {}), (True, {"dead": 1})])
def test_a_message_that_expires_while_the_event_loop_is_held_up_is_not_handled(
    declare, monkeypatch, kept, left
):
    held_up_for = [0.0]
    handled = []

    async def handle(message):
        handled.append(message.body)
        held_up_for[0] = 60.0

    declare(handle)
    Queue.objects.update(dead_letter_expired=kept)
    send("invoices", "slow")
    send("invoices", "late", expires_in=30)
    clock = SimpleNamespace(
        monotonic=lambda: time.monotonic() + held_up_for[0], perf_counter=time.perf_counter
    )
    monkeypatch.setattr(coroutines, "time", clock)
    drain("invoices")
    assert handled == ["slow"]
    assert waiting() == left
    if kept:
        assert DeadLetter.objects.get().reason == "expired"
    assert execute("SELECT count(*) FROM messaging_attempt") == [(int(kept),)]
