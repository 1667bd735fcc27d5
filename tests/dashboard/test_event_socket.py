"""An event socket sends what its client can take, each event once, and holds the rest."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from browser_end import PATIENCE, alter
from django.test import Client
from socket_end import Subscriber

from messaging import apublish, publish_many
from messaging.dashboard import event_socket, streams, subscribing
from messaging.dashboard.hub import running_hub
from messaging.following import mark_of
from messaging.models import Topic

pytestmark = pytest.mark.django_db(transaction=True)

Subscribers = Callable[..., Subscriber]


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have sockets ask for a sign of life all the time."""
    monkeypatch.setattr(event_socket, "PING_EVERY", 0.05)


async def ping_with(subscriber: Subscriber, waiting: int) -> dict[str, Any]:
    """Return the first ping that says that so many events wait."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while asyncio.get_running_loop().time() < deadline:
        frame = await subscriber.hear()
        assert frame["type"] == "ping", frame
        if frame["waiting"] >= waiting:
            return frame
    raise AssertionError("nothing waits")


async def test_an_event_that_is_committed_comes_once(
    operator: Client, parcels: Topic, subscriber: Subscribers
) -> None:
    client = subscriber(operator)
    await client.connect()
    await client.subscribe("parcels.*")
    message_id = await apublish("parcels.sent", {"weight": 2**63})
    frame = await client.hear_kind("events")
    (event,) = frame["events"]
    assert (event["id"], event["topic"]) == (message_id, "parcels.sent")
    assert event["body"] == '{"weight": 9223372036854775808}'
    await apublish("parcels.sent", 2)
    assert await client.hear_bodies(1) == [2]


async def test_a_client_that_was_away_gets_exactly_what_it_missed(
    operator: Client, parcels: Topic, subscriber: Subscribers
) -> None:
    first = subscriber(operator)
    await first.connect()
    await first.subscribe()
    await alter(lambda: publish_many("parcels.sent", range(4)))
    assert await first.hear_bodies(4) == [0, 1, 2, 3]
    await first.leave()
    await alter(lambda: publish_many("parcels.sent", range(4, 700)))
    second = subscriber(operator)
    await second.connect()
    await second.subscribe(resume=first.position)
    assert await second.hear_bodies(696) == list(range(4, 700))


async def test_no_more_events_are_on_their_way_than_the_client_allows(
    operator: Client, parcels: Topic, subscriber: Subscribers, brisk: None
) -> None:
    client = subscriber(operator)
    await client.connect()
    await client.subscribe(credit=3)
    await alter(lambda: publish_many("parcels.sent", range(10)))
    assert await client.hear_bodies(3, acknowledge=False) == [0, 1, 2]
    held = await ping_with(client, 7)
    assert held["position"] == client.position
    await client.acknowledge()
    assert await client.hear_bodies(3, acknowledge=False) == [3, 4, 5]
    await client.say({"type": "credit", "credit": 10})
    assert await client.hear_bodies(4, acknowledge=False) == [6, 7, 8, 9]


async def test_large_events_fill_the_window_as_many_do(
    operator: Client,
    parcels: Topic,
    subscriber: Subscribers,
    brisk: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(subscribing, "MOST_BYTES", 1_000)
    client = subscriber(operator)
    await client.connect()
    await client.subscribe(credit=256)
    await apublish("parcels.sent", "x" * 2_000)
    await client.hear_bodies(1, acknowledge=False)
    await apublish("parcels.sent", 2)
    await ping_with(client, 1)
    await client.acknowledge()
    assert await client.hear_bodies(1) == [2]


async def test_a_client_that_never_acknowledges_is_dropped_with_its_position_and_loses_nothing(
    operator: Client, parcels: Topic, subscriber: Subscribers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "PATIENCE", 0.2)
    monkeypatch.setattr(event_socket, "PING_EVERY", 0.05)
    idle, busy = subscriber(operator), subscriber(operator)
    for client in (idle, busy):
        await client.connect()
        await client.subscribe(credit=50)
    for start in range(0, 400, 40):
        await alter(lambda: publish_many("parcels.sent", range(start, start + 40)))  # noqa: B023
        assert await busy.hear_bodies(40) == list(range(start, start + 40))
    assert all(
        len(each._waiting) <= streams.MOST_WAITING  # type: ignore[attr-defined]
        for each in running_hub()._listeners
    )
    assert await idle.hear_bodies(50, acknowledge=False) == list(range(50))
    end, code = await idle.hear_ending()
    assert (end["code"], code, end["resume"]) == ("too_slow", 4008, idle.position)
    again = subscriber(operator)
    await again.connect()
    await again.subscribe(resume=end["resume"])
    assert await again.hear_bodies(350) == list(range(50, 400))


async def test_a_burst_that_a_client_takes_in_its_time_ends_nothing(
    operator: Client, parcels: Topic, subscriber: Subscribers
) -> None:
    client = subscriber(operator)
    await client.connect()
    await client.subscribe(credit=20)
    await alter(lambda: publish_many("parcels.sent", range(2_500)))
    assert await client.hear_bodies(2_500) == list(range(2_500))


async def test_a_client_that_says_nothing_is_dropped(
    operator: Client, parcels: Topic, subscriber: Subscribers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when its end vanished: what half a connection is sent arrives nowhere."""
    monkeypatch.setattr(event_socket, "SILENCE", 2.0)
    monkeypatch.setattr(event_socket, "PING_EVERY", 0.1)
    mute, polite, shy = (subscriber(operator) for _ in range(3))
    mute.shows = False
    for client in (mute, polite):
        await client.connect()
        await client.subscribe()
    await shy.connect()
    # Meanwhile it answers what it is asked.
    answering = asyncio.create_task(polite.hear_bodies(1))
    for client in (mute, shy):
        end, code = await client.hear_ending()
        assert (end["code"], code) == ("silent", 4408)
        assert ("resume" in end) == (client is mute)
    assert running_hub().listeners == 1
    await apublish("parcels.sent", "there?")
    assert await answering == ["there?"]


async def heard_by(client: Subscriber) -> None:
    await apublish("parcels.sent", "there?")
    assert await client.hear_bodies(1) == ["there?"]


def test_half_a_connection_is_given_up_within_thirty_seconds() -> None:
    assert 2 * event_socket.PING_EVERY < event_socket.SILENCE <= 30


# What means nothing


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("hello", "bad_frame"),
        ("[]", "bad_frame"),
        ("1", "bad_frame"),
        ("{}", "bad_frame"),
        (" " * 30_000 + "{}", "bad_frame"),
        ('{"type": "pong", "type": "pong"}', "bad_frame"),
        ('{"type": "resume", "cursor": null, "topic": null}', "unknown_type"),
        ('{"type": "subscribe"}', "bad_frame"),
        ('{"type": "subscribe", "topic": "#", "resume": null, "credit": -1}', "bad_credit"),
        ('{"type": "subscribe", "topic": "#", "resume": null, "credit": 257}', "bad_credit"),
        ('{"type": "subscribe", "topic": "#", "resume": null, "credit": true}', "bad_credit"),
        ('{"type": "subscribe", "topic": "#", "resume": -1, "credit": 1}', "bad_cursor"),
        ('{"type": "subscribe", "topic": "#", "resume": "abc", "credit": 1}', "bad_cursor"),
        ('{"type": "subscribe", "topic": "#", "resume": "AHEAD", "credit": 1}', "bad_cursor"),
        ('{"type": "subscribe", "topic": "no.such", "resume": null, "credit": 1}', "not_found"),
        ('{"type": "subscribe", "topic": "a..b", "resume": null, "credit": 1}', "not_found"),
        ('{"type": "subscribe", "topic": null, "resume": null, "credit": 1}', "not_found"),
        ('{"type": "ack", "position": "x"}', "not_subscribed"),
        ('{"type": "credit", "credit": 1}', "not_subscribed"),
        ('{"type": "pong"}', "not_subscribed"),
    ],
)
async def test_a_frame_that_means_nothing_is_answered_and_the_socket_stays(
    operator: Client, parcels: Topic, subscriber: Subscribers, frame: str, code: str
) -> None:
    client = subscriber(operator)
    await client.connect()
    await client.say(frame.replace("AHEAD", f"9000000000:9000000000:@1~{mark_of('#')}"))
    assert (await client.hear_kind("error"))["code"] == code
    await client.subscribe()
    await heard_by(client)


async def test_bytes_are_no_frame(operator: Client, subscriber: Subscribers) -> None:
    client = subscriber(operator)
    await client.connect()
    await client.socket.send_to(bytes_data=b"\x00")
    assert (await client.hear_kind("error"))["code"] == "bad_frame"


async def test_a_client_that_says_ten_things_that_mean_nothing_is_dropped(
    operator: Client, subscriber: Subscribers
) -> None:
    client = subscriber(operator)
    await client.connect()
    for _ in range(event_socket.MOST_BAD_FRAMES):
        await client.say("{}")
        assert (await client.hear_kind("error"))["code"] == "bad_frame"
    end, code = await client.hear_ending()
    assert (end["code"], code) == ("bad_frames", 4400)


async def test_only_an_event_that_was_sent_can_be_acknowledged(
    operator: Client, parcels: Topic, subscriber: Subscribers
) -> None:
    client = subscriber(operator)
    await client.connect()
    await client.subscribe()
    beginning = client.position
    await heard_by(client)
    for position in (beginning, client.position, "x"):
        await client.say({"type": "ack", "position": position})
        assert (await client.hear_kind("error"))["code"] == "bad_ack"


async def test_a_position_of_another_topic_is_refused(
    operator: Client, parcels: Topic, subscriber: Subscribers
) -> None:
    client = subscriber(operator)
    await client.connect()
    await client.subscribe("parcels.sent")
    await client.say({"type": "subscribe", "topic": "#", "resume": client.position, "credit": 1})
    assert (await client.hear_kind("error"))["code"] == "bad_cursor"


async def test_a_client_that_was_away_longer_than_the_retention_is_told_so(
    operator: Client, parcels: Topic, subscriber: Subscribers
) -> None:
    client = subscriber(operator)
    await client.connect()
    await client.subscribe()
    await apublish("parcels.sent", "left")
    assert await client.hear_bodies(1) == ["left"]
    await alter(lambda: Topic.objects.update(retention=60))
    assert client.position is not None
    cursor, _, mark = client.position.partition("~")
    snapshot, _, at = cursor.partition("@")
    frame = {"type": "subscribe", "topic": "#", "resume": f"{snapshot}@{int(at) - 61}~{mark}"}
    await client.say({**frame, "credit": 10})
    await client.hear_kind("subscribed")
    assert (await client.hear_kind("reset"))["code"] == "retention"
    await heard_by(client)


@pytest.mark.parametrize("origin", [None, "null", "http://elsewhere.example", "http://localhost.x"])
async def test_a_page_of_another_site_is_refused(
    operator: Client, subscriber: Subscribers, origin: str | None
) -> None:
    assert not await subscriber(operator, origin=origin).connect()


async def test_what_was_subscribed_to_before_is_over(
    operator: Client, parcels: Topic, topic: Callable[..., Topic], subscriber: Subscribers
) -> None:
    await alter(lambda: topic("parcels.lost"))
    client = subscriber(operator)
    await client.connect()
    await client.subscribe("parcels.sent")
    await client.subscribe("parcels.lost")
    await apublish("parcels.sent", 1)
    await apublish("parcels.lost", 2)
    assert await client.hear_bodies(1) == [2]
    assert running_hub().listeners == 1


async def test_bodies_are_hidden_from_those_who_may_not_see_payloads(
    staff: Callable[..., Client], parcels: Topic, subscriber: Subscribers
) -> None:
    client = subscriber(await alter(lambda: staff("view_topic")))
    await client.connect()
    await client.subscribe()
    await apublish("parcels.sent", "secret")
    frame = await client.hear_kind("events")
    assert "body" not in frame["events"][0]
    assert "secret" not in json.dumps(frame)
