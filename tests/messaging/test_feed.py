"""The feed gives each topic message once, whatever order transactions commit in."""

import random
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from held import Elsewhere, Held
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messaging import control, feed, publish, publish_many, send
from messaging.feed import BadCursor, Cursor, News, Snapshot
from messaging.models import DeadLetter, Message, Queue, Topic
from messaging.store import feed as store


@pytest.fixture
def committing(transactional_db: None, topic: Callable[..., Topic]) -> None:
    """Let a test publish for others to see: what is not committed is no event."""
    topic("parcels.sent")


for_real = pytest.mark.usefixtures("committing")


def bodies(news: News) -> list[str | None]:
    return [event.body for event in news.events]


@for_real
def test_an_event_is_new_once() -> None:
    before = feed.latest()
    message_id = publish("parcels.sent", {"parcel": 1})
    news = feed.since(before.cursor)
    assert [(event.id, event.topic, event.body) for event in news.events] == [
        (message_id, "parcels.sent", '{"parcel": 1}')
    ]
    assert feed.since(news.cursor).events == ()


@for_real
def test_a_message_that_is_redriven_after_its_retention_is_no_news(
    queue: Callable[..., Queue],
) -> None:
    parcels = queue("parcels")
    message_id = publish("parcels.sent", {"parcel": 1})
    message = Message.objects.get(pk=message_id)
    dead = DeadLetter.objects.create(
        message_id=message_id,
        queue=parcels,
        origin=parcels,
        topic=message.topic,
        priority=0,
        headers={},
        body=message.body,
        published_at=message.published_at,
        attempts=1,
    )
    message.delete()
    before = feed.latest()
    assert control.redrive([dead.pk]) == 1
    assert Message.objects.filter(pk=message_id).exists()
    assert feed.since(before.cursor).events == ()


@for_real
def test_a_message_sent_to_a_queue_is_no_event(queue: Callable[..., Queue]) -> None:
    queue("invoices")
    before = feed.latest()
    send("invoices", 1)
    assert feed.since(before.cursor).events == ()


@for_real
def test_a_transaction_that_took_a_lower_id_and_commits_late_is_not_missed(
    elsewhere: Elsewhere,
) -> None:
    start = feed.latest().cursor
    late = Held(elsewhere, "late", topic="parcels.sent")
    publish("parcels.sent", "early")
    first = feed.since(start)
    late.commit()
    second = feed.since(first.cursor)
    assert (bodies(first), bodies(second)) == (['"early"'], ['"late"'])
    assert second.events[0].id < first.events[0].id


@for_real
def test_what_rolls_back_is_never_an_event() -> None:
    start = feed.latest().cursor
    with pytest.raises(RuntimeError), transaction.atomic():
        publish("parcels.sent", "never")
        raise RuntimeError
    publish("parcels.sent", "kept")
    assert bodies(feed.since(start)) == ['"kept"']


@for_real
def test_every_event_is_read_once_while_many_writers_hold_their_transactions(
    elsewhere: Elsewhere,
) -> None:
    """Each writer commits, rolls back and holds its transactions for random times."""
    writers, rounds = 8, 25

    def write(writer: int) -> list[str]:
        chance = random.Random(writer)
        committed = []
        for number in range(rounds):
            names = [f"{writer}-{number}-{part}" for part in range(chance.randint(1, 4))]
            try:
                with transaction.atomic():
                    for name in names:
                        publish("parcels.sent", name)
                        hold(chance.random() * 0.01)
                    if chance.random() < 0.2:
                        raise KeyError
            except KeyError:
                continue
            committed += names
        return committed

    def hold(seconds: float) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", [seconds])

    cursor = feed.latest().cursor
    running = [elsewhere(write, writer) for writer in range(writers)]
    seen: list[str] = []
    is_over = False
    while not is_over:
        is_over = all(future.done() for future in running)
        news = feed.since(cursor)
        seen += [str(event.body).strip('"') for event in news.events]
        assert not news.skipped
        cursor = news.cursor
    expected = [name for future in running for name in future.result()]
    assert len(expected) > 200
    assert sorted(seen) == sorted(expected)


@for_real
def test_the_newest_events_are_given_and_the_others_counted() -> None:
    start = feed.latest().cursor
    publish_many("parcels.sent", range(25))
    news = feed.since(start, limit=10)
    assert bodies(news) == [str(number) for number in range(15, 25)]
    assert (news.skipped, news.skipped_is_exact) == (15, True)


@for_real
def test_the_others_are_counted_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "COUNTED", 20)
    start = feed.latest().cursor
    publish_many("parcels.sent", range(50))
    news = feed.since(start, limit=5)
    assert (news.skipped, len(news.events)) == (16, 5)


@for_real
def test_a_reader_of_one_topic_gets_that_topic_alone(topic: Callable[..., Topic]) -> None:
    topic("parcels.lost")
    start = feed.latest(topics=["parcels.lost"]).cursor
    publish("parcels.sent", 1)
    publish("parcels.lost", 2)
    assert bodies(feed.since(start, topics=["parcels.lost"])) == ["2"]
    assert bodies(feed.latest(topics=["parcels.lost"])) == ["2"]


@for_real
def test_a_long_body_is_cut_and_a_large_one_is_left_out() -> None:
    publish("parcels.sent", "x" * 1_000)
    publish("parcels.sent", [number**9 for number in range(5_000)])
    cut, large = feed.latest().events
    assert cut.body == '"' + "x" * (store.PREVIEW - 1) + "…"
    assert large.body is None


@for_real
def test_a_reader_that_was_away_longer_than_the_retention_is_told() -> None:
    Topic.objects.update(retention=60)
    now = feed.latest().cursor
    away = Cursor(snapshot=now.snapshot, at=now.at - 61)
    assert feed.since(away).is_reset
    assert not feed.since(now).is_reset


@for_real
def test_a_cursor_from_ahead_of_the_database_is_refused() -> None:
    cursor = feed.latest().cursor
    xmax = cursor.snapshot.xmax + 1_000_000
    ahead = Snapshot(xmin=xmax, xmax=xmax, running=frozenset())
    with pytest.raises(BadCursor, match="ahead"):
        feed.since(Cursor(snapshot=ahead, at=cursor.at))


@for_real
def test_a_row_restored_from_another_server_is_not_read_again_and_again() -> None:
    start = feed.latest().cursor
    publish("parcels.sent", "restored")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE messaging_message SET transaction = '9999999999'::xid8")
    assert feed.since(start).events == ()
    assert feed.latest().events == ()


@for_real
def test_a_long_transaction_elsewhere_does_not_make_readers_read_everything_again(
    elsewhere: Elsewhere,
) -> None:
    held = Held(elsewhere, "held", topic="parcels.sent")
    publish_many("parcels.sent", range(2_000))
    cursor = feed.latest().cursor
    assert cursor.snapshot.xmin < cursor.snapshot.xmax - 1
    params = {
        "topics": None,
        "limit": 500,
        "preview": 200,
        "large": 8_192,
        "xmax": str(cursor.snapshot.xmax),
        "running": [str(number) for number in cursor.snapshot.running],
    }
    with connection.cursor() as sql:
        sql.execute("SET enable_seqscan = off")
        sql.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {store.SINCE}", params)
        [(plan,)] = sql.fetchall()
        sql.execute("RESET enable_seqscan")
    assert sum(map(rows_read, nodes(plan[0]["Plan"]))) < 10
    held.commit()
    assert bodies(feed.since(cursor)) == ['"held"']


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    below = [node for child in plan.get("Plans", []) for node in nodes(child)]
    return [plan, *below] if plan.get("Relation Name") == "messaging_message" else below


def rows_read(node: dict[str, Any]) -> int:
    return int(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)))


@for_real
def test_news_survive_their_way_through_a_channel_layer() -> None:
    start = feed.latest().cursor
    publish_many("parcels.sent", ["a", {"b": "…"}])
    news = feed.since(start)
    assert News.load(news.dump()) == news
    assert News.load(feed.latest().dump()).seen is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        -1,
        "",
        "abc",
        "-1",
        "1:2",
        "1:2:",
        "0:1:@1",
        "2:1:@1",
        "1:5:5@1",
        "3:5:2@1",
        "1:9:4,3@1",
        "1:9:3,3@1",
        "01:2:@1",
        "1:2:@1\n",
        "1:2:@-1",
        "1:2:@",
        "1:2:@1'; DROP TABLE messaging_message; --",
        "1:99999999999999999999:@1",
        "\u0661:\u0662:@\u0661",
    ],
)
def test_what_is_no_cursor_is_refused(text: object) -> None:
    with pytest.raises(BadCursor):
        Cursor.parse(text)


def test_a_cursor_is_written_as_it_was_read() -> None:
    assert str(Cursor.parse("10:20:12,15@1790000000")) == "10:20:12,15@1790000000"


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    xmax = draw(st.integers(2, 30))
    running = draw(st.frozensets(st.integers(1, xmax - 1), max_size=6))
    return Snapshot(xmin=min(running, default=xmax), xmax=xmax, running=running)


@pytest.mark.django_db
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(snapshot=snapshots())
def test_a_snapshot_sees_what_postgresql_says_that_it_sees(snapshot: Snapshot) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT x, pg_visible_in_snapshot(x::text::xid8, %s::pg_snapshot) "
            "FROM generate_series(1, 35) AS x",
            [str(snapshot)],
        )
        for transaction_id, is_seen in cursor.fetchall():
            assert snapshot.sees(transaction_id) == is_seen


@given(older=snapshots(), newer=snapshots())
def test_a_snapshot_includes_another_when_it_sees_all_that_the_other_sees(
    older: Snapshot, newer: Snapshot
) -> None:
    if older.xmax > newer.xmax:
        assert not newer.includes(older)
    else:
        sees_all = all(newer.sees(x) for x in range(1, 35) if older.sees(x))
        assert newer.includes(older) == sees_all
