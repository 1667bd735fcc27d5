"""The live page's ticker shows the events of the topics that its user may see, and no others."""

from collections.abc import Callable
from typing import Any

import pytest
from browser_end import Browser, alter
from django.contrib.auth.models import Permission, User
from django.test import Client

from messaging import apublish, feed, publish, publish_many
from messaging.dashboard import sockets
from messaging.models import Topic

pytestmark = pytest.mark.django_db(transaction=True)

PAGE = "/messaging/"
LIVE = "/messaging/live/"

Browse = Callable[..., Browser]


@pytest.fixture
def onlooker(guest: Client) -> Client:
    """Return the browser of a guest who may also see the live page."""
    User.objects.get().user_permissions.add(Permission.objects.get(codename="view_queue"))
    return guest


def show_bodies() -> None:
    User.objects.update(first_name="bodies")


async def begin(browser: Browser, topic: str | None = None) -> Browser:
    await browser.connect()
    await browser.resume(str((await alter(feed.latest)).cursor), topic)
    return browser


# Which events


@pytest.mark.parametrize("path", [PAGE, LIVE])
def test_a_page_shows_the_topics_that_are_granted(onlooker: Client, path: str) -> None:
    show_bodies()
    publish("parcels.lost", "forbidden")
    publish("parcels.sent", "granted")
    page = onlooker.get(path).content.decode()
    assert "granted" in page
    assert "forbidden" not in page
    assert "parcels.lost" not in page


def test_what_a_poll_counts_as_skipped_is_of_topics_that_are_granted(onlooker: Client) -> None:
    cursor = str(feed.latest().cursor)
    publish_many("parcels.lost", range(300))
    publish_many("parcels.sent", range(150))
    news = onlooker.get(LIVE, {"cursor": cursor}).json()["news"]
    assert (len(news["events"]), news["skipped"]) == (100, "50")


async def test_a_socket_is_sent_the_topics_that_are_granted(
    onlooker: Client, browse: Browse
) -> None:
    await alter(show_bodies)
    browser = await begin(browse(onlooker))
    for number in range(3):
        await apublish("parcels.lost", "forbidden")
        await apublish("parcels.sent", number)
        await browser.hear_events(number + 1)
    assert browser.bodies == ["0", "1", "2"]


async def test_a_flood_of_a_forbidden_topic_hides_nothing_and_counts_nothing(
    onlooker: Client, browse: Browse, monkeypatch: pytest.MonkeyPatch
) -> None:
    await alter(show_bodies)
    browser = await begin(browse(onlooker))
    await apublish("parcels.sent", "before")
    await browser.hear_events(1)

    def flood() -> None:
        publish("parcels.sent", "first")
        publish_many("parcels.lost", range(2 * feed.LIMIT))

    await alter(flood)
    while not (news := (await browser.hear()).get("news")) or not news["events"]:
        assert news is None or news["skipped"] == ""
    assert [event["body"] for event in news["events"]] == ['"first"']
    assert news["skipped"] == ""


@pytest.mark.parametrize("path", [PAGE, LIVE])
def test_a_page_of_a_forbidden_topic_looks_like_one_that_there_is_not(
    onlooker: Client, path: str
) -> None:
    forbidden, unknown = (
        onlooker.get(path, {"topic": name}) for name in ("parcels.lost", "no.such")
    )
    assert forbidden.status_code == unknown.status_code == 404
    assert onlooker.get(path, {"topic": "parcels.sent"}).status_code == 200


async def test_a_socket_for_a_forbidden_topic_is_told_that_there_is_none(
    onlooker: Client, browse: Browse
) -> None:
    browser = browse(onlooker)
    await browser.connect()
    for name in ("parcels.lost", "no.such"):
        await browser.resume(None, name)
        while (frame := await browser.hear())["type"] == "frame":
            pass
        assert frame == {"type": "error", "code": "not_found"}


def test_who_may_see_no_topic_is_told_which_permission_is_missing(
    staff: Callable[..., Client], parcels: Topic
) -> None:
    publish("parcels.sent", "secret")
    client = staff("view_queue", "view_payload", is_staff=True)
    page = client.get(PAGE).content.decode()
    assert "messaging.view_topic" in page
    assert "secret" not in page
    assert "parcels.sent" not in page


# Which bodies


def test_bodies_are_hidden_without_the_permission_for_their_topic(onlooker: Client) -> None:
    publish("parcels.sent", "secret")
    hidden = onlooker.get(PAGE).content.decode()
    assert "parcels.sent" in hidden
    assert "messaging.view_payload" in hidden
    assert "secret" not in hidden
    show_bodies()
    assert "secret" in onlooker.get(PAGE).content.decode()


# While it is open


@pytest.mark.parametrize("followed", [None, "parcels.sent"])
async def test_a_topic_that_is_taken_away_is_missed_in_the_ticker(
    onlooker: Client, browse: Browse, impatient: None, followed: str | None
) -> None:
    browser = await begin(browse(onlooker), followed)
    await apublish("parcels.sent", 0)
    await browser.hear_events(1)
    await alter(lambda: Topic.objects.update(description=""))
    # Each round is a frame, an empty one at the latest after the time for a sign of life.
    for number in range(1, 100):
        await apublish("parcels.sent", number)
        while not (news := (await browser.hear()).get("news")):
            pass
        if not news["events"]:
            return
    pytest.fail("events were shown on and on")


async def test_a_topic_that_is_new_is_looked_at_before_its_first_event(
    onlooker: Client, topic: Callable[..., Topic], browse: Browse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sockets, "CHECK_EVERY", 3_600)
    await alter(show_bodies)
    browser = await begin(browse(onlooker))
    await apublish("parcels.sent", "known")
    await browser.hear_events(1)

    def create() -> None:
        topic("parcels.hidden")
        shown = topic("parcels.shown")
        shown.description = User.objects.get().username
        shown.save()
        publish("parcels.hidden", "hidden")
        publish("parcels.shown", "shown")

    await alter(create)
    await browser.hear_events(2)
    assert browser.bodies == ['"known"', '"shown"']


@pytest.mark.parametrize(
    "change",
    [
        lambda: User.objects.get().user_permissions.clear(),
        lambda: User.objects.update(is_active=False),
    ],
    ids=["permission revoked", "user disabled"],
)
async def test_a_user_without_the_page_is_sent_nothing_while_a_new_topic_is_looked_at(
    onlooker: Client,
    topic: Callable[..., Topic],
    browse: Browse,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[], Any],
) -> None:
    monkeypatch.setattr(sockets, "CHECK_EVERY", 3_600)
    browser = await begin(browse(onlooker))
    await apublish("parcels.sent", "known")
    await browser.hear_events(1)
    await alter(change)
    await alter(lambda: topic("parcels.shown"))
    await apublish("parcels.shown", "secret")
    while (frame := await browser.hear())["type"] == "frame":
        assert not frame.get("news", {}).get("events")
    assert frame["code"] in (4401, 4403)
