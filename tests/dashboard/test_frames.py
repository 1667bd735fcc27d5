"""What a browser says is understood or answered, and never believed."""

from collections.abc import Callable

import pytest
from browser_end import Browser
from django.test import Client

from messaging import apublish
from messaging.dashboard import sockets

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("hello", "bad_frame"),
        ("[]", "bad_frame"),
        ("1", "bad_frame"),
        ("{}", "bad_frame"),
        ("[" * 20_000, "bad_frame"),
        (" " * 30_000 + "{}", "bad_frame"),
        ('{"type": 1}', "bad_frame"),
        ('{"type": "shown", "number": 1, "number": 2}', "bad_frame"),
        ('{"type": "shown", "number": "1"}', "bad_frame"),
        ('{"type": "shown", "number": true, "more": 1}', "bad_frame"),
        ('{"type": "resume"}', "bad_frame"),
        ('{"type": "subscribe"}', "unknown_type"),
        ('{"type": "resume", "cursor": -1, "topic": null}', "bad_cursor"),
        ('{"type": "resume", "cursor": "abc", "topic": null}', "bad_cursor"),
        ('{"type": "resume", "cursor": "9000000000:9000000000:@1", "topic": null}', "bad_cursor"),
        ('{"type": "resume", "cursor": null, "topic": "no.such"}', "not_found"),
        ('{"type": "resume", "cursor": null, "topic": "\\u0000"}', "not_found"),
        ('{"type": "resume", "cursor": null, "topic": 7}', "not_found"),
    ],
)
async def test_a_frame_that_means_nothing_is_answered_and_the_socket_stays(
    operator: Client, cursor: str, browse: Callable[..., Browser], frame: str, code: str
) -> None:
    browser = browse(operator)
    await browser.connect()
    await browser.say(frame)
    assert await browser.hear_code("error") == code
    await browser.resume(cursor)
    await apublish("parcels.sent", 1)
    await browser.hear_events(1)


async def test_bytes_are_no_frame(operator: Client, browse: Callable[..., Browser]) -> None:
    browser = browse(operator)
    await browser.connect()
    await browser.socket.send_to(bytes_data=b"\x00")
    assert await browser.hear_code("error") == "bad_frame"


async def test_a_browser_that_says_ten_things_that_mean_nothing_is_dropped(
    operator: Client, browse: Callable[..., Browser]
) -> None:
    browser = browse(operator)
    await browser.connect()
    for _ in range(sockets.MOST_BAD_FRAMES):
        await browser.say("{}")
        assert await browser.hear_code("error") == "bad_frame"
    assert await browser.hear_code("closed") == 4400
