"""A socket tells one browser what is new, once, as long as its user may see it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from asgiref.sync import sync_to_async
from channels.layers import channel_layers, get_channel_layer
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db import connection, connections
from django.test import Client

from messaging import apublish, control, feed, publish_many
from messaging.dashboard import reader, sockets
from messaging.dashboard.routing import websocket_application
from messaging.models import Queue, Topic

ORIGIN = "http://localhost:8000"
PATIENCE = 10.0

pytestmark = pytest.mark.django_db(transaction=True)


class Browser:
    """The browser's end of a socket."""

    def __init__(
        self, client: Client, *, origin: str | None = ORIGIN, path: str = "/messaging/live/"
    ) -> None:
        cookies = "; ".join(f"{name}={cookie.value}" for name, cookie in client.cookies.items())
        headers = [(b"cookie", cookies.encode()), (b"host", b"localhost:8000")]
        if origin is not None:
            headers.append((b"origin", origin.encode()))
        self.socket = WebsocketCommunicator(websocket_application, path, headers)
        self.cursor: str | None = None
        self.bodies: list[str] = []
        self.shows = True

    async def connect(self) -> bool:
        is_connected, _ = await self.socket.connect(timeout=PATIENCE)
        return bool(is_connected)

    async def say(self, frame: Any) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame)
        await self.socket.send_to(text_data=text)

    async def resume(self, cursor: str | None, topic: str | None = None) -> None:
        self.cursor = cursor
        await self.say({"type": "resume", "cursor": cursor, "topic": topic})

    async def hear(self) -> dict[str, Any]:
        """Return the next frame, or the code that the socket is closed with."""
        message = await self.socket.receive_output(PATIENCE)
        if message["type"] == "websocket.close":
            return {"type": "closed", "code": message.get("code")}
        frame: dict[str, Any] = json.loads(message["text"])
        if frame["type"] == "frame" and self.shows:
            await self.say({"type": "shown", "number": frame["number"]})
        return frame

    async def hear_code(self, kind: str) -> Any:
        """Return the code of the next frame of a kind, whatever comes before."""
        while (frame := await self.hear())["type"] != kind:
            pass
        return frame["code"]

    async def hear_events(self, number: int) -> None:
        """Take events as a page does, joining on to what it has, until it has so many."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while len(self.bodies) < number:
            assert asyncio.get_running_loop().time() < deadline, self.bodies
            frame = await self.hear()
            assert frame["type"] == "frame", frame
            if news := frame.get("news"):
                assert news["from"] in (self.cursor, None)
                self.cursor = news["cursor"]
                self.bodies += [event["body"] for event in news["events"]]

    async def leave(self) -> None:
        await self.socket.disconnect(timeout=PATIENCE)


@pytest.fixture
def cursor(transactional_db: None, topic: Callable[..., Topic]) -> str:
    topic("parcels.sent")
    return str(feed.latest().cursor)


@pytest.fixture
def own_session(transactional_db: None) -> int:
    """Return the server process of the test itself."""
    with connection.cursor() as sql:
        sql.execute("SELECT pg_backend_pid()")
        return int(sql.fetchone()[0])


@pytest_asyncio.fixture
async def browse() -> AsyncIterator[Callable[..., Browser]]:
    opened: list[Browser] = []

    def open_for(client: Client, **options: Any) -> Browser:
        opened.append(Browser(client, **options))
        return opened[-1]

    yield open_for
    for browser in opened:
        await browser.leave()
    # What still reads would be in the way of the tables being emptied.
    await has_ended(reader.reader_for(get_channel_layer()))
    await sync_to_async(connections.close_all)()


async def has_ended(shared: reader.Reader) -> None:
    """Wait until a reader whose sockets have left neither reads nor keeps a connection."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while shared.is_running:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    await shared.call(connections.close_all)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "CHECK_EVERY", 0.05)


def alter(change: Callable[[], Any]) -> Awaitable[Any]:
    return sync_to_async(change)()


# Who gets in


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


# What is sent


async def test_an_event_that_is_committed_comes_once(
    operator: Client, cursor: str, browse: Callable[..., Browser]
) -> None:
    browser = browse(operator)
    await browser.connect()
    await browser.resume(cursor)
    for number in range(3):
        await apublish("parcels.sent", number)
        await browser.hear_events(number + 1)
    assert browser.bodies == ["0", "1", "2"]


async def test_a_browser_that_was_away_gets_exactly_what_it_missed(
    operator: Client, cursor: str, browse: Callable[..., Browser]
) -> None:
    first = browse(operator)
    await first.connect()
    await first.resume(cursor)
    await apublish("parcels.sent", "before")
    await first.hear_events(1)
    await first.leave()
    for number in range(5):
        await apublish("parcels.sent", number)
    second = browse(operator)
    await second.connect()
    await second.resume(first.cursor)
    await second.hear_events(5)
    await apublish("parcels.sent", "after")
    await second.hear_events(6)
    assert second.bodies == ["0", "1", "2", "3", "4", '"after"']


async def test_a_browser_that_missed_much_gets_the_newest_and_the_number_of_the_others(
    operator: Client, cursor: str, browse: Callable[..., Browser]
) -> None:
    await alter(lambda: publish_many("parcels.sent", range(1_300)))
    browser = browse(operator)
    await browser.connect()
    await browser.resume(cursor)
    while not (news := (await browser.hear()).get("news")):
        pass
    assert [event["body"] for event in news["events"]] == [str(n) for n in range(1_200, 1_300)]
    assert news["skipped"] == "1,200"


async def test_a_browser_without_a_cursor_gets_the_newest_and_starts_anew(
    operator: Client, cursor: str, browse: Callable[..., Browser]
) -> None:
    await apublish("parcels.sent", "known")
    browser = browse(operator)
    await browser.connect()
    await browser.resume(None)
    while not (news := (await browser.hear()).get("news")):
        pass
    assert (news["from"], news["reset"]) == (None, True)
    assert [event["body"] for event in news["events"]] == ['"known"']


async def test_one_topic_can_be_followed(
    operator: Client, cursor: str, topic: Callable[..., Topic], browse: Callable[..., Browser]
) -> None:
    await alter(lambda: topic("parcels.lost"))
    browser = browse(operator)
    await browser.connect()
    await browser.resume(cursor, "parcels.lost")
    await apublish("parcels.sent", 1)
    await apublish("parcels.lost", 2)
    await browser.hear_events(1)
    await browser.resume(browser.cursor, "parcels.sent")
    await apublish("parcels.lost", 3)
    await apublish("parcels.sent", 4)
    await browser.hear_events(2)
    assert browser.bodies == ["2", "4"]


async def test_bodies_are_hidden_from_those_who_may_not_see_payloads(
    staff: Callable[..., Client], cursor: str, browse: Callable[..., Browser]
) -> None:
    browser = browse(await alter(lambda: staff("view_queue")))
    await browser.connect()
    await browser.resume(cursor)
    await apublish("parcels.sent", "secret")
    await browser.hear_events(1)
    assert browser.bodies == [""]


async def test_figures_come_when_they_change(
    operator: Client, cursor: str, queue: Callable[..., Queue], browse: Callable[..., Browser]
) -> None:
    invoices = await alter(lambda: queue("invoices"))
    row = f"queue-{invoices.pk}"
    browser = browse(operator)
    await browser.connect()
    await browser.resume(cursor)
    shown: dict[str, str] = {}
    while row not in shown:
        shown |= (await browser.hear()).get("figures", {}).get("fragments", {})
    assert "Resume invoices" not in shown[row]
    await alter(lambda: control.pause("invoices"))
    while "Resume invoices" not in shown[row]:
        shown |= (await browser.hear()).get("figures", {}).get("fragments", {})


# What goes wrong


async def test_a_hand_over_that_a_layer_lost_is_noticed_and_read_again(
    operator: Client, cursor: str, browse: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = get_channel_layer()
    send_on = layer.group_send
    begun, lost = asyncio.Event(), asyncio.Event()

    async def lose(group: str, message: dict[str, Any]) -> None:
        if message["type"] == "feed.news" and "gone" in message["news"]:
            lost.set()
            return
        await send_on(group, message)
        if message["type"] == "feed.news":
            begun.set()

    monkeypatch.setattr(layer, "group_send", lose)
    browser = browse(operator)
    await browser.connect()
    await browser.resume(cursor)
    await asyncio.wait_for(begun.wait(), PATIENCE)
    await apublish("parcels.sent", "gone")
    await asyncio.wait_for(lost.wait(), PATIENCE)
    await apublish("parcels.sent", "next")
    await browser.hear_events(2)
    assert browser.bodies == ['"gone"', '"next"']


async def test_a_layer_that_forgot_a_socket_is_joined_again(
    operator: Client,
    cursor: str,
    browse: Callable[..., Browser],
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sockets, "HAND_OVER_EVERY", 0.1)
    browser = browse(operator)
    await browser.connect()
    await browser.resume(cursor)
    await apublish("parcels.sent", 1)
    await browser.hear_events(1)
    await channel_layers["default"].flush()
    await apublish("parcels.sent", 2)
    await browser.hear_events(2)
    assert browser.bodies == ["1", "2"]


async def test_the_feed_goes_on_after_its_connection_was_cut(
    operator: Client, cursor: str, own_session: int, browse: Callable[..., Browser]
) -> None:
    def cut() -> None:
        with connection.cursor() as sql:
            sql.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid NOT IN (pg_backend_pid(), %s)",
                [own_session],
            )

    browser = browse(operator)
    await browser.connect()
    await browser.resume(cursor)
    await apublish("parcels.sent", 1)
    await browser.hear_events(1)
    await alter(cut)
    await apublish("parcels.sent", 2)
    await browser.hear_events(2)
    assert browser.bodies == ["1", "2"]


async def test_a_browser_that_shows_nothing_gets_few_frames_and_is_dropped(
    operator: Client, cursor: str, browse: Callable[..., Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "PATIENCE", 0.5)
    monkeypatch.setattr(sockets, "SIGN_EVERY", 0.05)
    browser = browse(operator)
    browser.shows = False
    await browser.connect()
    await browser.resume(cursor)
    heard = []
    while (frame := await browser.hear())["type"] != "closed":
        heard.append(frame["type"])
    assert frame["code"] == 4408
    assert heard == ["frame"] * sockets.MOST_UNSHOWN


async def test_reading_ends_with_the_last_socket(
    operator: Client, cursor: str, browse: Callable[..., Browser]
) -> None:
    one, other = browse(operator), browse(operator)
    for browser in (one, other):
        await browser.connect()
        await browser.resume(cursor)
        await apublish("parcels.sent", 1)
        await browser.hear_events(1)
    shared = reader.reader_for(get_channel_layer())
    assert shared.sockets == 2
    await one.leave()
    await other.leave()
    await has_ended(shared)
    assert shared.sockets == 0


def test_processes_that_share_a_layer_have_groups_of_their_own() -> None:
    one, other = reader.Reader(None), reader.Reader(None)
    groups = {each.group(topic) for each in (one, other) for topic in (None, "a.b", "x" * 80)}
    assert len(groups) == 6
    assert all(len(group) < 100 for group in groups)


# What a browser says


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


# Who may not see it any more


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
    browser = browse(await alter(lambda: staff("view_queue")))
    await browser.connect()
    await browser.resume(cursor)
    await apublish("parcels.sent", 1)
    await browser.hear_events(1)
    await alter(change)
    assert await browser.hear_code("closed") == code


async def test_a_right_that_is_taken_away_is_missed_at_once_in_what_is_shown(
    staff: Callable[..., Client], cursor: str, browse: Callable[..., Browser], impatient: None
) -> None:
    browser = browse(await alter(lambda: staff("view_queue", "view_payload")))
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
