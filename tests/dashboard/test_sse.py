"""A stream of Server-Sent Events tells its client each topic message once, and where it is."""

import json
import random
from collections.abc import Awaitable, Callable

import pytest
from browser_end import alter
from django.test import AsyncClient, Client
from sse_end import EVENTS, Listener

from messaging import apublish, publish_many
from messaging.dashboard import events, streams
from messaging.dashboard.hub import running_hub
from messaging.following import mark_of
from messaging.models import Topic

pytestmark = pytest.mark.django_db(transaction=True)

Listen = Callable[..., Awaitable[Listener]]


async def test_an_event_that_is_committed_comes_once_with_its_topic_and_time(
    operator: Client, parcels: Topic, listen: Listen
) -> None:
    listener = await listen(operator, topic="parcels.sent")
    assert listener.answer["Content-Type"] == "text/event-stream"
    message_id = await apublish("parcels.sent", {"weight": 2**63})
    name, event = await listener.hear() or ("", {})
    assert (name, event["id"], event["topic"]) == ("message", message_id, "parcels.sent")
    assert event["body"] == '{"weight": 9223372036854775808}'
    assert event["published_at"].endswith("+00:00")
    await apublish("parcels.sent", 2)
    assert await listener.hear_bodies(1) == [2]


async def test_a_client_that_was_away_gets_exactly_what_it_missed(
    operator: Client, parcels: Topic, listen: Listen
) -> None:
    first = await listen(operator)
    await apublish("parcels.sent", "before")
    assert await first.hear_bodies(1) == ["before"]
    await first.leave()
    await alter(lambda: [publish_many("parcels.sent", range(n, n + 50)) for n in range(0, 300, 50)])
    second = await listen(operator, first.position)
    assert await second.hear_bodies(300) == list(range(300))
    await apublish("parcels.sent", "after")
    assert await second.hear_bodies(1) == ["after"]


async def test_the_position_can_be_sent_in_the_address(
    operator: Client, parcels: Topic, listen: Listen
) -> None:
    first = await listen(operator)
    await apublish("parcels.sent", 1)
    await first.hear_bodies(1)
    await apublish("parcels.sent", 2)
    second = await listen(operator, last_event_id=first.position)
    assert await second.hear_bodies(1) == [2]


async def test_a_client_that_was_cut_off_within_a_transaction_goes_on_within_it(
    operator: Client, parcels: Topic, listen: Listen
) -> None:
    first = await listen(operator)
    await alter(lambda: publish_many("parcels.sent", range(10)))
    assert await first.hear_bodies(4) == [0, 1, 2, 3]
    second = await listen(operator, first.position)
    assert await second.hear_bodies(6) == [4, 5, 6, 7, 8, 9]


async def test_a_stream_that_has_had_nothing_knows_where_it_is(
    operator: Client, parcels: Topic, listen: Listen
) -> None:
    first = await listen(operator)
    second = await listen(operator)
    await apublish("parcels.sent", 1)
    await second.hear_bodies(1)
    # All that the first has read is the line that opens every stream.
    assert first._lines is not None
    while first.position is None:
        field, _, value = (await anext(first._lines)).partition(": ")
        first.position = value if field == "id" else None
    third = await listen(operator, first.position)
    assert await third.hear_bodies(1) == [1]


async def test_a_quiet_stream_gives_signs_of_life_and_moves_on(
    operator: Client, parcels: Topic, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 0.05)
    listener = await listen(operator)
    assert listener._lines is not None
    lines: list[str] = []
    while len({line for line in lines if line.startswith("id: ")}) < 3:
        lines.append(await anext(listener._lines))
        await apublish("parcels.sent", 1) if ": alive" in lines[-1:] else None
    assert "retry: 1000" in lines
    assert ": alive" in lines


async def test_a_pattern_chooses_among_topics(
    operator: Client, parcels: Topic, topic: Callable[..., Topic], listen: Listen
) -> None:
    await alter(lambda: topic("invoices.paid"))
    everything = await listen(operator)
    some = await listen(operator, topic="invoices.#")
    await apublish("parcels.sent", 1)
    await apublish("invoices.paid", 2)
    await alter(lambda: topic("invoices.paid.again"))
    await apublish("invoices.paid.again", 3)
    assert await some.hear_bodies(2) == [2, 3]
    assert await everything.hear_bodies(3) == [1, 2, 3]


async def test_a_body_that_is_large_is_left_out_and_said_to_be(
    operator: Client, parcels: Topic, listen: Listen
) -> None:
    listener = await listen(operator)
    await apublish("parcels.sent", "x" * 100_000)
    await apublish("parcels.sent", [random.Random(1).random() for _ in range(1_000)])
    for _ in range(2):
        name, event = await listener.hear() or ("", {})
        assert (name, event["body"]) == ("message", None)


# Where a client cannot go on


async def test_a_client_that_was_away_longer_than_the_retention_is_told_so(
    operator: Client, parcels: Topic, listen: Listen
) -> None:
    first = await listen(operator)
    await apublish("parcels.sent", 1)
    await first.hear_bodies(1)
    await apublish("parcels.sent", 2)
    await alter(lambda: Topic.objects.update(retention=60))
    assert first.position is not None
    cursor, _, mark = first.position.partition("~")
    snapshot, _, at = cursor.partition("@")
    await first.leave()
    second = await listen(operator, f"{snapshot}@{int(at) - 61}~{mark}")
    name, told = await second.hear() or ("", {})
    assert (name, told["code"]) == ("reset", "retention")
    assert await second.hear_bodies(1) == [2]


@pytest.mark.parametrize("wrong", ["-1", "abc", "a~b~c", "9000000000:9000000000:@1~{mark}"])
async def test_a_position_that_nobody_was_given_is_answered_with_a_new_one(
    operator: Client, parcels: Topic, listen: Listen, wrong: str
) -> None:
    await apublish("parcels.sent", "before")
    listener = await listen(operator, wrong.replace("{mark}", mark_of("#")))
    name, told = await listener.hear() or ("", {})
    assert (name, told["code"]) == ("reset", "bad_cursor")
    await apublish("parcels.sent", "after")
    assert await listener.hear_bodies(1) == ["after"]


async def test_a_position_of_another_topic_is_none_of_this(
    operator: Client, parcels: Topic, listen: Listen
) -> None:
    first = await listen(operator)
    await apublish("parcels.sent", 1)
    await first.hear_bodies(1)
    second = await listen(operator, first.position, topic="parcels.sent")
    name, told = await second.hear() or ("", {})
    assert (name, told["code"]) == ("reset", "bad_cursor")
    assert "another topic" in told["message"]


async def test_a_stream_that_has_carried_enough_ends_and_says_where_to_go_on(
    operator: Client, parcels: Topic, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_BYTES", 20_000)
    listener = await listen(operator)
    await alter(lambda: publish_many("parcels.sent", [f"{n}{'x' * 500}" for n in range(200)]))
    end = await listener.hear_end()
    assert (end["code"], end["resume"]) == ("resume", listener.position)
    bodies = [json.loads(event["body"]) for name, event in listener.heard if name == "message"]
    while len(bodies) < 200:
        listener = await listen(operator, listener.position)
        await listener.hear_end()
        more = [json.loads(event["body"]) for name, event in listener.heard if name == "message"]
        assert more
        bodies += more
    assert [body.rstrip("x") for body in bodies] == [str(n) for n in range(200)]


async def test_a_client_that_reads_slowly_makes_nothing_wait_and_misses_nothing(
    operator: Client, parcels: Topic, listen: Listen, until: Callable[..., None]
) -> None:
    slow, quick = await listen(operator), await listen(operator)
    hub = running_hub()
    for start in range(0, 1_000, 200):
        await alter(lambda: publish_many("parcels.sent", range(start, start + 200)))  # noqa: B023
        assert await quick.hear_bodies(200) == list(range(start, start + 200))
        waiting = [len(each._waiting) for each in hub._listeners]  # type: ignore[attr-defined]
        assert max(waiting) <= streams.MOST_WAITING
    assert await slow.hear_bodies(1_000) == list(range(1_000))


# Who is not served


async def test_a_site_that_is_not_served_by_asgi_says_what_to_do(operator: Client) -> None:
    answer = await alter(lambda: operator.get(EVENTS))
    assert (answer.status_code, answer.json()["code"]) == (501, "needs_asgi")
    assert "daphne" in answer.json()["message"]


@pytest.mark.parametrize("name", ["a b", "..", "x" * 81, "\x00", "a..b"])
async def test_a_name_that_no_topic_can_have_is_refused(
    operator: Client, parcels: Topic, listen: Listen, name: str
) -> None:
    listener = await listen(operator, topic=name)
    assert (listener.answer.status_code, listener.answer.json()["code"]) == (400, "bad_topic")
    assert "pattern" in listener.answer.json()["message"]


async def test_only_so_many_streams_are_open_for_one_user(
    operator: Client,
    staff: Callable[..., Client],
    parcels: Topic,
    listen: Listen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(streams, "STREAMS_A_USER", 2)
    first, _ = await listen(operator), await listen(operator)
    refused = (await listen(operator)).answer
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many")
    other = await alter(lambda: staff("view_topic"))
    assert (await listen(other)).answer.streaming
    await first.leave()
    assert (await listen(operator)).answer.streaming


async def test_a_page_of_another_site_is_not_told(operator: Client, parcels: Topic) -> None:
    client = AsyncClient()
    client.cookies = operator.cookies
    answer = await client.get(EVENTS, headers={"Origin": "http://elsewhere.example"})
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")


async def test_events_are_asked_for_and_not_posted(operator: Client, parcels: Topic) -> None:
    client = AsyncClient()
    client.cookies = operator.cookies
    assert (await client.post(EVENTS)).status_code == 405
