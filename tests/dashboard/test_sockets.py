"""A socket tells one browser what is new, once, whatever is lost on the way."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from browser_end import PATIENCE, Browser, alter, has_ended
from channels.layers import channel_layers, get_channel_layer
from django.db import connection
from django.test import Client

from messaging import apublish, control, publish_many
from messaging.dashboard import reader, sockets
from messaging.models import Queue, Topic

pytestmark = pytest.mark.django_db(transaction=True)


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
    browser = browse(await alter(lambda: staff("view_queue", "view_topic")))
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
