"""A socket is for those who may see the page, as long as they may."""

from collections.abc import Callable
from typing import Any

import pytest
from browser_end import Browser, alter
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client

from messaging import apublish

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("origin", [None, "null", "http://elsewhere.example", "http://localhost.x"])
async def test_a_page_of_another_site_is_refused(
    operator: Client, browse: Callable[..., Browser], origin: str | None
) -> None:
    assert not await browse(operator, origin=origin).connect()


async def test_an_address_that_nobody_has_is_refused(
    operator: Client, browse: Callable[..., Browser]
) -> None:
    assert not await browse(operator, path="/messaging/nothing/").connect()


async def test_who_is_not_logged_in_is_told_so_and_nothing_else(
    client: Client, browse: Callable[..., Browser]
) -> None:
    browser = browse(client)
    assert await browser.connect()
    assert await browser.hear() == {"type": "closed", "code": 4401}


async def test_who_may_not_see_the_page_is_told_so_and_nothing_else(
    staff: Callable[..., Client], browse: Callable[..., Browser]
) -> None:
    client = await alter(lambda: staff("view_message"))
    browser = browse(client)
    assert await browser.connect()
    assert await browser.hear() == {"type": "closed", "code": 4403}


async def test_without_a_channel_layer_the_page_is_left_to_poll(
    operator: Client, browse: Callable[..., Browser], settings: Any
) -> None:
    settings.CHANNEL_LAYERS = {}
    browser = browse(operator)
    assert await browser.connect()
    assert await browser.hear() == {"type": "closed", "code": 4503}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda: Session.objects.all().delete(), 4401),
        (lambda: User.objects.update(is_active=False), 4401),
        (lambda: User.objects.all().delete(), 4401),
        (lambda: User.objects.update(password="changed"), 4401),
        (lambda: User.objects.get().user_permissions.clear(), 4403),
    ],
    ids=["logged out", "user disabled", "user deleted", "password changed", "permission revoked"],
)
async def test_a_socket_ends_with_the_right_to_it(
    staff: Callable[..., Client],
    cursor: str,
    browse: Callable[..., Browser],
    impatient: None,
    change: Callable[[], Any],
    code: int,
) -> None:
    browser = browse(await alter(lambda: staff("view_queue", "view_topic")))
    await browser.connect()
    await browser.resume(cursor)
    await apublish("parcels.sent", 1)
    await browser.hear_events(1)
    await alter(change)
    assert await browser.hear_code("closed") == code


async def test_a_right_that_is_taken_away_is_missed_at_once_in_what_is_shown(
    staff: Callable[..., Client], cursor: str, browse: Callable[..., Browser], impatient: None
) -> None:
    browser = browse(await alter(lambda: staff("view_queue", "view_topic", "view_payload")))
    await browser.connect()
    await browser.resume(cursor)
    await apublish("parcels.sent", "shown")
    await browser.hear_events(1)
    await alter(
        lambda: User.objects.get().user_permissions.filter(codename="view_payload").delete()
    )
    for number in range(2, 100):
        await apublish("parcels.sent", "shown")
        await browser.hear_events(number)
        if browser.bodies[-1] == "":
            return
    pytest.fail("bodies were shown on and on")
