"""Without a channel layer there is no socket, and the page goes on by asking again."""

from collections.abc import Callable

import pytest
from asgiref.sync import sync_to_async
from browser_end import Browser
from channels.layers import channel_layers
from django.db import connections
from django.test import Client
from pytest_django import Settings

from messaging import apublish
from messaging.dashboard.sockets import UNAVAILABLE

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def no_layer(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    """Have the project name no layer."""
    settings.CHANNEL_LAYERS = {}
    monkeypatch.setattr(channel_layers, "backends", {})


async def test_a_socket_is_told_that_it_is_not_served(
    operator: Client, cursor: str, browse: Callable[..., Browser]
) -> None:
    browser = browse(operator)
    assert await browser.connect()
    assert await browser.hear() == {"type": "closed", "code": UNAVAILABLE}


async def test_a_poll_is_answered_with_what_a_socket_would_tell(
    operator: Client, cursor: str
) -> None:
    await apublish("parcels.sent", "polled")
    answer = await sync_to_async(operator.get)("/messaging/live/", {"cursor": cursor})
    await sync_to_async(connections.close_all)()
    assert [event["body"] for event in answer.json()["news"]["events"]] == ['"polled"']
