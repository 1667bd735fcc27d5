"""Looking: messages are found wherever they are, and nothing is changed by it."""

from collections.abc import Iterator
from typing import Any

import pytest
from control_rows import bury
from django.db import connection
from rows import hold, keyed

from messaging import Reject, consumer, consuming, control, publish, send, send_many
from messaging.control import Filter, State
from messaging.exceptions import InvalidMessage, InvalidOption
from messaging.models import Message, Queue, Subscription, Topic
from messaging.store import searching
from messaging.testing import drain

pytestmark = pytest.mark.django_db


@pytest.fixture
def handled(queue: Queue, declared: consuming.Declarations) -> Iterator[list[Any]]:
    """Consume the letters; those with "fail" or "reject" in their body fail."""
    bodies: list[Any] = []

    @consumer("letters")
    def handle(message: Any) -> None:
        if message.body == "reject":
            raise Reject("no such street")
        if message.body == "fail":
            raise ConnectionError("gateway DOWN again")
        bodies.append(message.body)

    yield bodies


def bodies(found: Any) -> list[Any]:
    messages = found if isinstance(found, list) else found.messages
    return [seen.body for seen in messages]


# peek


def test_a_peek_shows_what_is_delivered_next_in_its_order(queue: Queue, handled: list[Any]) -> None:
    send_many("letters", ["low"], priority=-1)
    send_many("letters", ["first", "second"])
    send_many("letters", ["high"], priority=5)
    send_many("letters", ["later"], delay=60)
    expected = ["high", "first", "second", "low"]
    assert bodies(control.peek("letters")) == expected
    assert bodies(control.peek("letters", limit=2)) == expected[:2]
    drain("letters")
    assert handled == expected


def test_a_peek_shows_the_next_message_of_each_key_and_no_token(queue: Queue) -> None:
    keyed("letters", "a1", "a2")
    send("letters", "plain")
    keyed("letters", "b1", key="b")
    assert [(seen.body, seen.key) for seen in control.peek(queue)] == [
        ("a1", "a"),
        ("plain", ""),
        ("b1", "b"),
    ]


def test_a_peek_shows_as_many_messages_of_a_fairness_key_as_can_be_in_flight(
    queue: Queue,
) -> None:
    keyed("letters", *range(20), kind=1)
    assert bodies(control.peek(queue)) == list(range(8))


@pytest.mark.parametrize("limit", [0, -1, 1_001, True, 1.5])
def test_a_peek_is_bounded(queue: Queue, limit: Any) -> None:
    with pytest.raises(InvalidOption, match="use 1 to 1,000"):
        control.peek(queue, limit=limit)


# search


def test_a_message_is_found_in_every_state(queue: Queue, handled: list[Any]) -> None:
    send_many("letters", ["done", "reject"])
    drain("letters")
    hold(queue, 1, worker="web-1")
    send("letters", "ready")
    keyed("letters", "keyed")
    send("letters", "later", delay=60)
    found = control.search("letters")
    assert [(seen.state, seen.body) for seen in found.messages] == [
        (State.READY, "ready"),
        (State.READY, "keyed"),
        (State.SCHEDULED, "later"),
        (State.IN_FLIGHT, 0),
        (State.DEAD, "reject"),
        (State.COMPLETED, "done"),
    ]
    assert found.next is None
    assert found.is_certain
    by_state = {seen.state: seen for seen in found.messages}
    assert by_state[State.IN_FLIGHT].by == "web-1"
    assert by_state[State.SCHEDULED].at > by_state[State.SCHEDULED].published_at
    assert by_state[State.DEAD].by == "rejected"
    assert "no such street" in by_state[State.DEAD].error


@pytest.mark.parametrize("state", list(State))
def test_a_search_by_state_finds_that_state_alone(
    queue: Queue, handled: list[Any], state: State
) -> None:
    send_many("letters", ["done", "reject"])
    drain("letters")
    hold(queue, 1)
    send("letters", "ready")
    send("letters", "later", delay=60)
    for asked in (state, str(state), [state]):
        assert [seen.state for seen in control.search(queue, Filter(state=asked)).messages] == [
            state
        ]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"headers": {"tenant": "b"}}, ["b"]),
        ({"headers": {"tenant": "b", "urgent": None}}, []),
        ({"body": {"order.total": 7}}, [{"order": {"total": 7}}]),
        ({"body": {"order.total": "7"}}, []),
        ({"body": {("order.total",): 8}}, [{"order.total": 8}]),
        ({"body": {"order.lines.1.sku": "x"}}, [{"order": {"lines": [{}, {"sku": "x"}]}}]),
        ({"body": {"none": None}}, [{"none": None}]),
        ({"body": {(): "b"}}, ["b"]),
        ({"body": {"a": [1, {"b": 2}]}}, [{"a": [1, {"b": 2}]}]),
        ({"key": "customer-1"}, ["keyed"]),
        ({"older_than": 60}, ["old"]),
    ],
)
def test_a_search_finds_by_header_body_key_and_age(
    queue: Queue, wanted: dict[str, Any], expected: list[Any]
) -> None:
    send("letters", "a", headers={"tenant": "a"})
    send("letters", "b", headers={"tenant": "b"})
    send("letters", {"order": {"total": 7}})
    send("letters", {"order.total": 8})
    send("letters", {"order": {"lines": [{}, {"sku": "x"}]}})
    send("letters", {"none": None})
    send("letters", {"a": [1, {"b": 2}]})
    keyed("letters", "keyed", key="customer-1")
    old = send("letters", "old")
    ago("1 hour", old)
    assert bodies(control.search(queue, Filter(**wanted))) == expected
    younger = control.search(queue, Filter(newer_than=60)).messages
    assert len(younger) == 8


def ago(interval: str, message_id: int) -> None:
    """Have a message been published so long ago."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE messaging_message SET published_at = now() - %s::interval WHERE id = %s",
            [interval, int(message_id)],
        )


def test_a_search_finds_by_the_last_error_of_a_retry_and_of_a_dead_letter(
    queue: Queue, handled: list[Any]
) -> None:
    send_many("letters", ["fail", "reject", "fine"])
    drain("letters")
    found = control.search(queue, Filter(error="gateway down"))
    assert [(seen.state, seen.body) for seen in found.messages] == [(State.SCHEDULED, "fail")]
    assert found.messages[0].error == "ConnectionError: gateway DOWN again"
    assert bodies(control.search(queue, Filter(error="STREET"))) == ["reject"]
    assert bodies(control.search(queue, Filter(error="%"))) == []


def test_a_search_finds_by_the_id_of_a_message_and_by_its_topic(
    queue: Queue, handled: list[Any]
) -> None:
    Topic.objects.create(name="mail.sent")
    Subscription.objects.create(pattern="mail.*", queue=queue)
    first = publish("mail.sent", "one")
    second = send("letters", "two")
    assert bodies(control.search(queue, Filter(topic="mail.sent"))) == ["one"]
    drain("letters")
    assert bodies(control.search(queue, Filter(ids=[second]))) == ["two"]
    assert bodies(control.search(queue, Filter(topic="mail.sent", state="completed"))) == ["one"]
    assert bodies(control.search(queue, Filter(ids=[first, second]))) == ["two", "one"]


def test_a_search_of_a_queue_finds_nothing_of_another_one(queue: Queue, handled: list[Any]) -> None:
    other = Queue.objects.create(name="other")
    send("letters", "mine")
    send("other", "theirs")
    bury(other)
    assert bodies(control.search(queue)) == ["mine"]
    drain("letters")
    assert bodies(control.search(queue)) == ["mine"]
    assert sorted(bodies(control.search(None)), key=str) == ["mine", "theirs", {"n": 0}]


def test_dead_letters_are_found_where_they_are_held_and_where_they_come_from(
    queue: Queue,
) -> None:
    bury(queue, 2)
    for name in ("letters", "letters.dlq"):
        found = control.search(name, Filter(state=State.DEAD))
        assert bodies(found) == [{"n": 1}, {"n": 0}]


def test_a_search_goes_on_behind_its_last_page_until_everything_was_seen_once(
    queue: Queue, handled: list[Any]
) -> None:
    send_many("letters", ["done"] * 5)
    drain("letters")
    bury(queue, 4)
    for priority in (3, -3):
        send_many("letters", range(4), priority=priority)
    keyed("letters", *range(4), key="a")
    keyed("letters", *range(4), key="b")
    send_many("letters", range(5), delay=60)
    whole = [(seen.state, seen.row) for seen in control.search(queue).messages]
    assert len(whole) == len(set(whole)) == 30
    for options in ({"limit": 3}, {"look_at": 3}, {"limit": 2, "look_at": 5}):
        pages: list[Any] = []
        after = None
        for _ in range(100):
            found = control.search(queue, after=after, **options)
            assert found.looked_at <= options.get("look_at", 10_000)
            pages += found.messages
            after = found.next
            if after is None:
                break
        assert [(seen.state, seen.row) for seen in pages] == whole


def test_a_search_says_how_many_it_has_looked_at(queue: Queue) -> None:
    send_many("letters", range(50))
    found = control.search(queue, Filter(body={(): 10}, state="ready"), look_at=20)
    assert (found.messages, found.looked_at) == ((), 20)
    assert found.next is not None
    found = control.search(
        queue, Filter(body={(): 10}, state="ready"), look_at=30, after=found.next
    )
    assert bodies(found) == [10]


def test_a_search_of_completed_messages_says_when_more_waits_than_it_compares(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "COMPARED", 3)
    send_many("letters", range(5))
    assert not control.search(queue, Filter(state="completed")).is_certain
    assert control.search(queue, Filter(state="ready")).is_certain


def test_an_undecodable_message_is_shown_as_such_between_the_others(queue: Queue) -> None:
    send_many("letters", range(3))
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE messaging_message SET body = repeat('9', 5000)::jsonb WHERE body = '1'"
        )
    found = control.search(queue).messages
    assert [seen.body for seen in found] == [2, None, 0]
    assert "ValueError" in found[1].undecodable
    assert [seen.body for seen in control.peek(queue)] == [0, None, 2]


def test_a_look_at_messages_neither_locks_nor_counts_them(queue: Queue, handled: list[Any]) -> None:
    send_many("letters", range(3))
    control.peek(queue)
    found = control.search(queue)
    assert [seen.attempt for seen in found.messages] == [1, 1, 1]
    drain("letters")
    assert handled == [0, 1, 2]


@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        ({"state": "redy"}, "use one or several of ready, scheduled, in_flight"),
        ({"state": []}, "use one or several of"),
        ({"headers": {"a": [1]}}, "a header is a string"),
        ({"body": {"a": float("nan")}}, "not JSON"),
        ({"body": {"a\0": 1}}, "path"),
        ({"body": {str(n): 1 for n in range(21)}}, "at most 20 conditions"),
        ({"key": "\0"}, "no key"),
        ({"older_than": "1 day"}, "no older_than"),
        ({"error": ""}, "no error"),
        ({"ids": range(10_001)}, "at most 10,000 ids"),
        ({"topic": "a b"}, "Invalid topic name"),
    ],
)
def test_a_filter_that_means_nothing_is_refused_with_the_remedy(
    wanted: dict[str, Any], error: str
) -> None:
    with pytest.raises(ValueError, match=error):
        Filter(**wanted)


def test_a_search_never_reads_the_whole_of_a_table(queue: Queue) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO messaging_message (queue_id, headers, body, published_at)
            SELECT %s, '{}', to_jsonb(n), now() FROM generate_series(1, 30000) AS n;
            INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt)
            SELECT %s, 0, id, 1 FROM messaging_message;
            INSERT INTO messaging_scheduled (queue_id, priority, message_id, attempt, due_at)
            SELECT %s, 0, id, 1, now() FROM messaging_message;
            INSERT INTO messaging_laneentry (queue_id, lane_id, priority, message_id, attempt)
            SELECT %s, 1 + id %% 100, 0, id, 1 FROM messaging_message;
            ANALYZE messaging_message, messaging_delivery, messaging_scheduled,
                messaging_laneentry""",
            [queue.pk] * 4,
        )
    assert Message.objects.count() == 30_000
    statements: list[tuple[str, Any]] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        for state in State:
            control.search(queue, Filter(state=state, body={(): -1}))
            control.search(None, Filter(state=state, error="x"))
    plans = [plan_of(sql, params) for sql, params in statements if "looked" in sql]
    assert len(plans) == 11
    for plan in plans:
        for table in ("message", "delivery", "scheduled", "laneentry"):
            assert f"Seq Scan on messaging_{table} " not in plan, plan


def test_a_timeline_never_reads_the_whole_of_the_log(queue: Queue) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO messaging_message (queue_id, headers, body, published_at, causation_id)
            SELECT %s, '{}', to_jsonb(n), now(), CASE WHEN n %% 3 = 0 THEN n - 1 END
            FROM generate_series(1, 30000) AS n;
            ANALYZE messaging_message""",
            [queue.pk],
        )
    statements: list[tuple[str, Any]] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        statements.append((sql, params))
        return execute(sql, params, many, context)

    newest = Message.objects.order_by("-id").values_list("pk", flat=True)[0]
    with connection.execute_wrapper(note):
        control.timeline(newest)
    plans = [plan_of(sql, params) for sql, params in statements if "messaging_message" in sql]
    assert len(plans) >= 3
    for plan in plans:
        assert "Seq Scan on messaging_message" not in plan, plan


def plan_of(sql: str, params: Any) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}", params)
        return "\n".join(line for (line,) in cursor.fetchall())


def test_a_position_of_another_search_is_refused(queue: Queue) -> None:
    bury(queue, 2)
    found = control.search(queue, Filter(state="dead"), limit=1)
    with pytest.raises(InvalidOption, match="of the same search"):
        control.search(queue, Filter(state="ready"), after=found.next)
    with pytest.raises(InvalidMessage):
        Filter(key="")
