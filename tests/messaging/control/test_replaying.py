"""Replay: messages of the log wait again, each exactly once, whatever commits meanwhile."""

import datetime
import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import transaction
from held import Elsewhere, Held

from messaging import consumer, control, publish, publish_many, send, send_many
from messaging.control import Filter, operating
from messaging.exceptions import InvalidOption, OperationRefused, QueueDisabled, UnknownQueue
from messaging.models import Delivery, Message, Operation, Queue, Subscription, Topic
from messaging.testing import drain

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
def letters(transactional_db: None, bare: None) -> Queue:
    """Return a queue that has a topic, in transactions that others see."""
    Topic.objects.create(name="letters.sent")
    queue = Queue.objects.create(name="letters")
    Subscription.objects.create(pattern="letters.#", queue=queue)
    return queue


@pytest.fixture
def others(letters: Queue) -> Queue:
    return Queue.objects.create(name="others")


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("messaging.control.operating.BATCH", 3)
    monkeypatch.setattr("messaging.store.replaying.LOOKED_AT", 4)


def bodies(queue: Queue) -> list[Any]:
    ids = [row.message_id for row in Delivery.objects.filter(queue=queue).order_by("id")]
    found = Message.objects.in_bulk(ids)
    return [found[each].body for each in ids]


def test_a_queue_is_replayed_from_a_time_with_its_own_messages(
    letters: Queue, small_steps: None
) -> None:
    send("letters", "old")
    Message.objects.update(published_at=LONG_AGO)
    first = send("letters", 0)
    for number in range(1, 10):
        (publish if number % 2 else send)("letters.sent" if number % 2 else "letters", number)
    Delivery.objects.all().delete()
    since = Message.objects.get(pk=first).published_at
    assert control.replay(letters, since=since) == 10
    assert bodies(letters) == list(range(10))
    assert set(Delivery.objects.values_list("attempt", flat=True)) == {1}
    subscription = Subscription.objects.get().pk
    by_topic = Delivery.objects.filter(subscription=subscription)
    assert by_topic.count() == 5


def test_a_replay_from_a_message_begins_with_it(letters: Queue, others: Queue) -> None:
    ids = [*send_many("letters", range(3)), *publish_many("letters.sent", range(3, 6))]
    assert control.replay("letters", since=ids[2], to="others") == 4
    assert bodies(others) == [2, 3, 4, 5]
    assert len(bodies(letters)) == 6


def test_messages_of_other_queues_and_topics_are_left_out(letters: Queue, others: Queue) -> None:
    Topic.objects.create(name="parcels.sent")
    publish("parcels.sent", "not mine")
    send("others", "not mine")
    publish("letters.sent", "mine")
    Delivery.objects.all().delete()
    assert control.replay(letters, since=LONG_AGO) == 1
    assert bodies(letters) == ["mine"]


@pytest.mark.parametrize("scope", ["headers", "body"])
def test_a_subscription_is_replayed_with_its_filter(
    letters: Queue, others: Queue, small_steps: None, scope: str
) -> None:
    Topic.objects.create(name="letters.read")
    filtered = Subscription.objects.create(
        pattern="letters.*", queue=others, is_active=False, filter={"country": ["GB"]},
        filter_scope=scope,
    )  # fmt: skip
    send("others", {"country": "GB"})
    Delivery.objects.all().delete()
    for number in range(12):
        country = {"country": "GB" if number % 3 else "FR"}
        topic = "letters.read" if number % 2 else "letters.sent"
        publish(topic, {"n": number, **country}, headers=country)
    assert control.replay(filtered, since=LONG_AGO) == 8
    assert [body["n"] for body in bodies(others)] == [n for n in range(12) if n % 3]


def test_a_replay_takes_what_a_filter_describes(
    letters: Queue, others: Queue, small_steps: None
) -> None:
    publish_many("letters.sent", [{"n": number % 5} for number in range(20)])
    operation = control.begin_replay(
        letters, since=LONG_AGO, to=others, wanted=Filter(body={"n": 3})
    )
    assert (operation.total, operation.is_exact) == (4, True)
    assert control.run_operation(operation).done == 4
    assert bodies(others) == [{"n": 3}] * 4
    with pytest.raises(InvalidOption, match="state"):
        control.begin_replay(letters, since=LONG_AGO, wanted=Filter(state="ready"))


def test_a_message_that_two_subscriptions_bring_waits_twice(letters: Queue) -> None:
    Subscription.objects.create(pattern="letters.sent", queue=letters)
    publish("letters.sent", 1)
    Delivery.objects.all().delete()
    assert control.replay(letters, since=LONG_AGO) == 2
    assert bodies(letters) == [1, 1]


def test_replayed_messages_of_a_key_are_handled_in_their_order(
    letters: Queue, small_steps: None, declared: Any
) -> None:
    seen: list[Any] = []
    consumer("letters")(lambda message: seen.append(message.body))
    for number in range(20):
        (publish if number % 2 else send)(
            "letters.sent" if number % 2 else "letters", number, ordering_key=f"k{number % 3}"
        )
    drain()
    seen.clear()
    assert control.replay(letters, since=LONG_AGO) == 20
    drain()
    assert sorted(seen) == list(range(20))
    for key in range(3):
        assert [n for n in seen if n % 3 == key] == [n for n in range(20) if n % 3 == key]


def test_what_is_published_after_the_beginning_is_for_the_next_replay(
    letters: Queue, others: Queue
) -> None:
    publish("letters.sent", 1)
    first = control.begin_replay(letters, since=LONG_AGO, to=others)
    publish("letters.sent", 2)
    send("letters", 3)
    assert control.run_operation(first).done == 1
    assert bodies(others) == [1]
    assert control.replay(letters, since=first.options["upto"], to=others) == 2
    assert bodies(others) == [1, 2, 3]
    assert control.replay(letters, since=control.snapshot(), to=others) == 0


@pytest.mark.parametrize("by_subscription", [False, True])
def test_a_transaction_that_commits_late_is_found_by_the_next_replay_alone(
    letters: Queue, others: Queue, elsewhere: Elsewhere, by_subscription: bool
) -> None:
    source = Subscription.objects.get() if by_subscription else letters
    late, later = Held(elsewhere, "late"), Held(elsewhere, "later")
    publish("letters.sent", "first")
    begun = control.begin_replay(source, since=LONG_AGO, to=others)
    late.commit()
    assert control.run_operation(begun).done == 1
    second = control.begin_replay(source, since=begun.options["upto"], to=others)
    publish("letters.sent", "last")
    later.commit()
    assert control.run_operation(second).done == 1
    assert bodies(others) == ["first", "late"]
    third = control.begin_replay(source, since=second.options["upto"], to=others)
    assert control.run_operation(third).done == 2
    assert sorted(bodies(others)) == ["first", "last", "late", "later"]


def test_what_the_callers_own_transaction_published_is_not_lost(
    letters: Queue, others: Queue, elsewhere: Elsewhere
) -> None:
    with transaction.atomic():
        publish("letters.sent", "before")
        # Another transaction makes this one look like one that has ended.
        elsewhere(publish, "letters.sent", "elsewhere").result(15)
        snapshot = control.snapshot()
        publish("letters.sent", "behind")
    assert control.replay(letters, since=snapshot, to=others) == 2
    assert bodies(others) == ["before", "behind"]


def test_a_replay_keeps_its_rate_is_cancelled_and_goes_on(
    letters: Queue, others: Queue, small_steps: None
) -> None:
    publish_many("letters.sent", range(10))
    begun = control.begin_replay(letters, since=LONG_AGO, to=others, rate=1_000)
    while not begun.done:
        operating.advance(begun)
        begun.refresh_from_db()
    assert control.cancel_operation(begun)
    assert len(bodies(others)) == begun.done < 10
    assert control.resume_operation(begun)
    assert control.run_operation(begun).done == 10
    assert bodies(others) == list(range(10))


def test_a_queue_that_accepts_nothing_or_is_unknown_is_refused(
    letters: Queue, others: Queue
) -> None:
    publish("letters.sent", 1)
    with pytest.raises(UnknownQueue):
        control.replay("nowhere", since=LONG_AGO)
    with pytest.raises(UnknownQueue):
        control.replay(letters, since=LONG_AGO, to="nowhere")
    begun = control.begin_replay(letters, since=LONG_AGO, to=others)
    control.disable(others)
    with pytest.raises(QueueDisabled):
        control.begin_replay(letters, since=LONG_AGO, to="others")
    failed = control.run_operation(begun)
    assert (failed.state, failed.done) == ("failed", 0)
    assert "'others'" in failed.error
    control.enable(others)
    assert control.resume_operation(begun)
    assert control.run_operation(begun).done == 1


@pytest.mark.parametrize(
    "since",
    [
        datetime.datetime(2026, 1, 1),
        datetime.datetime(2999, 1, 1, tzinfo=datetime.UTC),
        0,
        -1,
        2**63,
        True,
        "yesterday",
        "9000000000000000000:9000000000000000000:@1",
        None,
        1.5,
    ],
)
def test_what_is_no_beginning_is_refused(letters: Queue, since: Any) -> None:
    with pytest.raises(InvalidOption, match="since"):
        control.begin_replay(letters, since=since)
    assert not Operation.objects.exists()


def test_a_replay_that_ends_early_says_so(letters: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("letters.sent", 1)
    monkeypatch.setattr("messaging.control.replaying.announced", lambda *_: 1 / 0)
    with pytest.raises(OperationRefused, match="ZeroDivisionError"):
        control.replay(letters, since=LONG_AGO)


def manage(*args: str) -> Any:
    out = io.StringIO()
    call_command("replay", *args, "--json", stdout=out)
    return json.loads(out.getvalue())


def test_the_command_counts_replays_and_says_where_to_go_on(letters: Queue, others: Queue) -> None:
    first, *_ = publish_many("letters.sent", [{"n": number} for number in range(6)])
    send("letters", {"n": 6})
    since = f"--since={LONG_AGO.isoformat()}"
    assert manage("letters", since, "--dry-run") == {
        "would_replay": {"number": 7, "is_exact": True}
    }
    assert not Operation.objects.exists()
    answer = manage("letters", f"--since={first + 1}", "--to=others", "--yes")
    assert (answer["state"], answer["done"], answer["to"]) == ("done", 6, "others")
    publish("letters.sent", {"n": 7})
    answer = manage("letters", f"--since={answer['snapshot']}", "--to=others", "--yes")
    assert answer["done"] == 1
    assert [body["n"] for body in bodies(others)] == [1, 2, 3, 4, 5, 6, 7]
    only = ("--subscription=letters.#", "--body=n=2")
    answer = manage("letters", since, *only, "--to=others", "--rate=100", "--yes")
    assert (answer["done"], answer["rate"]) == (1, 100)
    answer = manage("letters", since, "--to=others", "--background", "--yes")
    assert (answer["state"], answer["total"]["number"]) == ("running", 8)


@pytest.mark.parametrize(
    "wrong",
    [
        ("letters", "--since=2026-01-01T00:00:00", "--yes"),
        ("nowhere", "--since=1", "--yes"),
        ("letters", "--since=1", "--to=nowhere", "--yes"),
        ("letters", "--since=1", "--subscription=parcels.#", "--yes"),
        ("letters", "--since=1"),
    ],
)
def test_the_command_refuses_what_it_cannot_replay(letters: Queue, wrong: tuple[str, ...]) -> None:
    send("letters", 1)
    with pytest.raises(CommandError) as caught:
        call_command("replay", *wrong)
    assert caught.value.returncode == 2
    assert not Operation.objects.exists()
