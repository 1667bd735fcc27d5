"""The queue's row says for how long its messages are held by those who do not say it themselves."""

import pytest
from asgiref.sync import sync_to_async
from effects import execute

from messaging import receive, send
from messaging.models import Queue
from messaging.testing import drain

pytestmark = pytest.mark.django_db

HELD = (
    "SELECT extract(epoch FROM leased_until - statement_timestamp())::float8 FROM messaging_lease"
)


def held_for():
    """Return for how many seconds the one message that somebody has is held."""
    ((seconds,),) = execute(HELD)
    return seconds


@pytest.mark.parametrize("lease", [0, 0.5])
def test_a_consumer_holds_messages_for_a_second_at_least(declare, lease):
    seconds = []

    async def handle(message):
        seconds.append(await sync_to_async(held_for)())

    declare(handle, lease=lease)
    send("invoices", 1)
    drain("invoices")
    assert seconds == pytest.approx([1], abs=1)
    assert execute(HELD) == []


@pytest.mark.parametrize(("options", "expected"), [({}, 300), ({"lease": 500}, 500)])
def test_async_consumers_and_receivers_hold_messages_as_the_queue_or_they_say(
    declare, options, expected
):
    seconds = []

    async def handle(message):
        seconds.append(await sync_to_async(held_for)())

    declare(handle, **options)
    Queue.objects.filter(name="invoices").update(visibility_timeout=300)
    send("invoices", 1)
    drain("invoices")
    send("invoices", 2)
    receive("invoices", **options)
    assert [*seconds, held_for()] == pytest.approx([expected, expected], abs=20)
