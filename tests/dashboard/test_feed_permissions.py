"""A stream and an event socket are for those who may see a topic, as long as they may."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from browser_end import PATIENCE, alter
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.test import Client
from socket_end import Subscriber
from sse_end import Listener

from messaging import apublish, publish
from messaging.dashboard import access, streams
from messaging.models import Topic

pytestmark = pytest.mark.django_db(transaction=True)

Listen = Callable[..., Awaitable[Listener]]
Subscribers = Callable[..., Subscriber]


# Before the first event


async def test_who_is_not_logged_in_is_told_so_and_nothing_else(
    client: Client, parcels: Topic, listen: Listen, subscriber: Subscribers
) -> None:
    answer = (await listen(client)).answer
    assert (answer.status_code, answer.json()["code"]) == (401, "signed_out")
    socket = subscriber(client)
    await socket.connect()
    end, code = await socket.hear_ending()
    assert (end["code"], code) == ("signed_out", 4401)


@pytest.mark.parametrize(
    "change",
    [
        lambda: Session.objects.all().delete(),
        lambda: User.objects.update(is_active=False),
        lambda: User.objects.update(password="changed"),
    ],
    ids=["session gone", "user disabled", "password changed"],
)
async def test_a_session_that_is_over_is_told_so(
    operator: Client,
    parcels: Topic,
    listen: Listen,
    subscriber: Subscribers,
    change: Callable[[], Any],
) -> None:
    await alter(change)
    assert (await listen(operator)).answer.status_code == 401
    socket = subscriber(operator)
    await socket.connect()
    assert (await socket.hear_ending())[1] == 4401


async def test_a_topic_that_is_forbidden_looks_like_one_that_there_is_not(
    guest: Client, listen: Listen, subscriber: Subscribers
) -> None:
    unknown, forbidden = [
        (await listen(guest, topic=name)).answer for name in ("no.such", "parcels.lost")
    ]
    assert (unknown.status_code, unknown.content) == (404, forbidden.content)
    assert forbidden.status_code == 404
    socket = subscriber(guest)
    await socket.connect()
    for name in ("no.such", "parcels.lost", "no.*", "parcels.lost.#"):
        await socket.say({"type": "subscribe", "topic": name, "resume": None, "credit": 1})
        assert await socket.hear() == {"type": "error", "code": "not_found"}


async def test_to_be_staff_grants_nothing(
    staff: Callable[..., Client], parcels: Topic, listen: Listen
) -> None:
    client = await alter(lambda: staff("view_queue", "view_message", is_staff=True))
    assert (await listen(client, topic="parcels.sent")).answer.status_code == 404
    assert (await listen(client)).answer.status_code == 404


async def test_of_a_pattern_a_user_has_the_topics_that_are_granted(
    guest: Client, listen: Listen, subscriber: Subscribers
) -> None:
    listener, socket = await listen(guest, topic="parcels.*"), subscriber(guest)
    await socket.connect()
    await socket.subscribe()
    await apublish("parcels.lost", "forbidden")
    await apublish("parcels.sent", "granted")
    name, event = await listener.hear() or ("", {})
    assert (name, event["topic"]) == ("message", "parcels.sent")
    (event,) = (await socket.hear_kind("events"))["events"]
    assert event["topic"] == "parcels.sent"


async def test_a_topic_that_is_new_is_looked_at_before_its_first_event(
    guest: Client, listen: Listen, topic: Callable[..., Topic], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CHECK_EVERY", 3_600)
    listener = await listen(guest)

    def create() -> None:
        topic("parcels.hidden")
        shown = topic("parcels.shown")
        shown.description = User.objects.get().username
        shown.save()
        publish("parcels.hidden", 1)
        publish("parcels.shown", 2)

    await alter(create)
    name, event = await listener.hear() or ("", {})
    assert (name, event["topic"]) == ("message", "parcels.shown")


async def test_bodies_are_shown_topic_by_topic(guest: Client, listen: Listen) -> None:
    hidden = await listen(guest)
    await alter(lambda: User.objects.update(first_name="bodies"))
    shown = await listen(guest)
    await apublish("parcels.sent", "secret")
    _, event = await hidden.hear() or ("", {})
    assert "body" not in event
    assert await shown.hear_bodies(1) == ["secret"]


# While it is open


CHANGES = pytest.mark.parametrize(
    ("change", "name", "code"),
    [
        (lambda: Session.objects.all().delete(), "signed_out", 4401),
        (lambda: User.objects.update(is_active=False), "signed_out", 4401),
        (lambda: User.objects.all().delete(), "signed_out", 4401),
        (lambda: User.objects.update(password="changed"), "signed_out", 4401),
        (lambda: Topic.objects.update(description=""), "not_allowed", 4403),
        (lambda: Topic.objects.filter(name="parcels.sent").delete(), "not_found", 4404),
    ],
    ids=[
        "session gone",
        "user disabled",
        "user deleted",
        "password changed",
        "permission revoked",
        "topic deleted",
    ],
)


@CHANGES
async def test_a_stream_ends_with_the_right_to_it(
    guest: Client,
    listen: Listen,
    impatient: None,
    change: Callable[[], Any],
    name: str,
    code: int,
) -> None:
    listener = await listen(guest, topic="parcels.sent")
    await apublish("parcels.sent", 1)
    await listener.hear()
    await alter(change)
    assert (await listener.hear_end())["code"] == name


@CHANGES
async def test_a_socket_ends_with_the_right_to_it(
    guest: Client,
    subscriber: Subscribers,
    impatient: None,
    change: Callable[[], Any],
    name: str,
    code: int,
) -> None:
    socket = subscriber(guest)
    await socket.connect()
    await socket.subscribe("parcels.sent")
    await apublish("parcels.sent", 1)
    await socket.hear_kind("events")
    await alter(change)
    end, closed = await socket.hear_ending()
    assert (end["code"], closed) == (name, code)


async def test_who_logs_out_gets_nothing_more(
    operator: Client, parcels: Topic, listen: Listen, subscriber: Subscribers, impatient: None
) -> None:
    listener, socket = await listen(operator), subscriber(operator)
    await socket.connect()
    await socket.subscribe()
    await alter(operator.logout)
    assert (await listener.hear_end())["code"] == "signed_out"
    assert (await socket.hear_ending())[1] == 4401
    await apublish("parcels.sent", "secret")
    assert await socket.socket.receive_nothing()
    assert [name for name, _ in listener.heard] == ["end"]


async def test_a_topic_that_was_deleted_and_made_again_is_another(
    guest: Client, listen: Listen, topic: Callable[..., Topic], impatient: None
) -> None:
    listener = await listen(guest, topic="parcels.sent")

    def make_again() -> None:
        before = Topic.objects.get(name="parcels.sent")
        description = before.description
        before.delete()
        Topic.objects.create(name="parcels.sent", description=description)

    await alter(make_again)
    assert (await listener.hear_end())["code"] == "not_found"


def test_rights_are_looked_up_again_every_few_seconds() -> None:
    assert streams.CHECK_EVERY < 5


async def test_nothing_is_sent_while_it_is_not_known_whether_it_may_be(
    operator: Client,
    parcels: Topic,
    listen: Listen,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "LONGEST_UNCHECKED", 1.0)
    monkeypatch.setattr(streams, "RETRY_AFTER", 0.05)
    listener = await listen(operator)
    await apublish("parcels.sent", "before")
    assert await listener.hear_bodies(1) == ["before"]

    has_failed = threading.Event()

    def fail(session_key: str | None, pattern: str) -> access.Rights:
        has_failed.set()
        raise RuntimeError("the backend is broken")

    monkeypatch.setattr(streams, "rights_of_session", fail)
    ending = asyncio.create_task(listener.hear_end())
    assert await asyncio.to_thread(has_failed.wait, PATIENCE)
    await apublish("parcels.sent", "after")
    assert (await ending)["code"] == "unavailable"
    assert [name for name, _ in listener.heard] == ["message", "end"]
