"""Figures of queues and workers are right, and bounded whatever waits."""

import datetime
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone
from rows import hold, keyed

from messaging import control, metrics, send, send_many
from messaging.metrics import QueueFigures, Trouble
from messaging.models import DeadLetter, Message, Queue, Stat, Worker
from messaging.store import figures as store

pytestmark = pytest.mark.django_db


def figures_of(name: str) -> QueueFigures:
    [found] = [queue for queue in metrics.queue_figures() if queue.name == name]
    return found


def ago(seconds: float) -> datetime.datetime:
    return timezone.now() - datetime.timedelta(seconds=seconds)


def record(queue: Queue, seconds: float = 5, **what: Any) -> None:
    Stat.objects.create(queue=queue, process="web/1", at=ago(seconds), **what)


def bury(origin: Queue, held_in: Queue | None = None) -> DeadLetter:
    return DeadLetter.objects.create(
        message_id=1,
        queue=held_in or origin,
        origin=origin,
        priority=0,
        headers={},
        body=None,
        published_at=timezone.now(),
        attempts=3,
        reason="max_deliveries",
        description="x" * 1_000,
        error="GatewayTimeout",
        fingerprint="f",
    )


def heartbeat(*queues: str, silent: float = 1, threads: int = 4, **running: int) -> Worker:
    return Worker.objects.create(
        name=f"web/{Worker.objects.count()}",
        host="web",
        pid=1,
        version="0.1.0",
        queues=list(queues),
        threads=threads,
        running=running,
        handled=7,
        failed=1,
        state="running",
        started_at=ago(60),
        seen_at=ago(silent),
    )


def troubles() -> list[tuple[str, str | None]]:
    return [
        (each.trouble.value, each.queue.name if each.queue else None)
        for each in metrics.overview().attention
    ]


def test_a_queue_shows_what_is_ready_scheduled_and_dead(queue: Callable[..., Queue]) -> None:
    dead_letters = queue("invoices.dlq")
    invoices = queue("invoices", dead_letter_queue=dead_letters, description="Bills")
    send_many("invoices", [1, 2, 3])
    send("invoices", 4, delay=60)
    bury(invoices, dead_letters)
    found = figures_of("invoices")
    assert found.description == "Bills"
    assert (found.ready, found.scheduled, found.dead, found.held) == (
        metrics.Count(number=3),
        metrics.Count(number=1),
        metrics.Count(number=1),
        metrics.Count(number=0),
    )
    keeper = figures_of("invoices.dlq")
    assert keeper.holds_dead_letters
    assert keeper.is_idle_dead_letter_queue
    assert (keeper.dead, keeper.held) == (metrics.Count(number=0), metrics.Count(number=1))


def test_counting_ends_at_a_bound(
    queue: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "COUNTED", 10)
    queue("invoices")
    send_many("invoices", range(10))
    assert figures_of("invoices").ready == metrics.Count(number=10)
    send_many("invoices", range(10))
    assert figures_of("invoices").ready == metrics.Count(number=10, is_exact=False)
    total = metrics.overview().totals.ready
    assert total is not None
    assert not total.is_exact


def test_the_oldest_is_the_first_of_any_priority(queue: Callable[..., Queue]) -> None:
    queue("invoices")
    urgent = send("invoices", 1, priority=5)
    usual = send("invoices", 2)
    send("invoices", 3)
    Message.objects.filter(pk=urgent).update(published_at=ago(30))
    Message.objects.filter(pk=usual).update(published_at=ago(300))
    assert figures_of("invoices").oldest_age == pytest.approx(300, abs=5)
    overview = metrics.overview()
    assert overview.totals.oldest_queue == "invoices"
    assert overview.totals.oldest_age == pytest.approx(300, abs=5)


def test_a_queue_in_which_nothing_waits_has_no_oldest(queue: Callable[..., Queue]) -> None:
    queue("invoices")
    assert figures_of("invoices").oldest_age is None
    assert metrics.overview().totals.oldest_queue == ""


def test_what_waits_behind_keys_is_ready_and_the_tokens_of_keys_are_no_messages(
    queue: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "COUNTED", 20)
    queue("invoices")
    for number in range(30):
        keyed("invoices", 1, key=f"key {number:02}")
    assert figures_of("invoices").ready == metrics.Count(number=20, is_exact=False)
    control.purge("invoices")
    keyed("invoices", 1, 2, 3)
    send_many("invoices", [4, 5])
    found = figures_of("invoices")
    assert (found.ready, found.scheduled) == (metrics.Count(number=5), metrics.Count(number=0))


def test_a_key_that_waits_for_a_retry_is_ready_and_not_scheduled(
    queue: Callable[..., Queue],
) -> None:
    queue("invoices")
    keyed("invoices", 1, 2)
    with connection.cursor() as cursor:
        cursor.execute(
            """WITH token AS (DELETE FROM messaging_delivery RETURNING queue_id, lane_id)
            INSERT INTO messaging_scheduled
                (queue_id, priority, message_id, attempt, lane_id, due_at)
            SELECT queue_id, 0, 0, 1, lane_id, now() + interval '1 minute' FROM token"""
        )
    found = figures_of("invoices")
    assert (found.ready, found.scheduled) == (metrics.Count(number=2), metrics.Count(number=0))


def test_the_oldest_may_wait_behind_a_key(queue: Callable[..., Queue]) -> None:
    queue("invoices")
    send("invoices", 1)
    for number in range(30):
        first, _ = keyed("invoices", 1, 2, key=f"key {number}")
        if number == 1:
            Message.objects.filter(pk=first).update(published_at=ago(300))
    assert figures_of("invoices").oldest_age == pytest.approx(300, abs=5)


def test_what_is_held_under_a_lease_is_in_flight(queue: Callable[..., Queue]) -> None:
    invoices = queue("invoices")
    queue("emails")
    hold(invoices, 3)
    found = figures_of("invoices")
    assert (found.in_flight, found.ready) == (3, metrics.Count(number=0))
    assert metrics.overview().totals.in_flight == 3


def test_what_expired_is_counted(queue: Callable[..., Queue]) -> None:
    record(queue("invoices"), 200, expired=4)
    assert figures_of("invoices").flow.newly_expired == 4
    assert metrics.overview().totals.flow.newly_expired == 4


def test_what_made_room_for_others_is_counted(queue: Callable[..., Queue]) -> None:
    queue("invoices", max_length=2, overflow="drop_oldest")
    queue("emails", max_length=1, overflow="dead_letter_oldest")
    send_many("invoices", range(5))
    send("invoices", 5)
    send_many("emails", range(3))
    assert figures_of("invoices").flow.newly_dropped == 4
    assert figures_of("invoices").flow.newly_dead == 0
    assert figures_of("emails").flow.newly_dropped == 0
    assert figures_of("emails").flow.newly_dead == 2
    assert metrics.overview().totals.flow.newly_dropped == 4


def test_what_a_sender_rolled_back_made_no_room(queue: Callable[..., Queue]) -> None:
    queue("invoices", max_length=1, overflow="drop_oldest")
    send("invoices", 1)
    with suppress(LookupError), transaction.atomic():
        send("invoices", 2)
        raise LookupError
    assert figures_of("invoices").flow.newly_dropped == 0


def test_rates_are_of_the_last_ten_seconds(queue: Callable[..., Queue]) -> None:
    invoices = queue("invoices")
    record(invoices, 5, published=200, acknowledged=100, failed=10, dead=20, busy=5)
    record(invoices, 30, published=9_000, acknowledged=9_000)
    flow = figures_of("invoices").flow
    assert (flow.in_rate, flow.out_rate, flow.failed_rate, flow.busy) == (20, 10, 3, 0.5)


def test_series_are_of_five_minutes_without_the_seconds_that_have_not_ended(
    queue: Callable[..., Queue],
) -> None:
    invoices = queue("invoices")
    record(invoices, 0, published=1)
    record(invoices, 20, published=10, failed=4, dead=2)
    record(invoices, 150, acknowledged=100)
    record(invoices, 400, published=1_000)
    flow = figures_of("invoices").flow
    assert len(flow.published) == metrics.BUCKETS
    assert sum(flow.published) == 10
    assert sum(flow.published[-5:]) == 10
    assert (sum(flow.failed), sum(flow.dead)) == (6, 2)
    assert sum(flow.acknowledged[25:35]) == 100
    assert metrics.overview().totals.flow.published == flow.published


def test_a_queue_that_is_deleted_still_counts_in_the_totals(queue: Callable[..., Queue]) -> None:
    gone = queue("gone")
    record(gone, 5, acknowledged=50)
    gone.delete()
    queue("invoices")
    assert metrics.overview().totals.flow.out_rate == 5


def test_live_workers_that_serve_a_queue_are_its_consumers(queue: Callable[..., Queue]) -> None:
    invoices = queue("invoices")
    queue("emails")
    heartbeat("invoices", "emails", invoices=2, emails=1)
    heartbeat("invoices", silent=metrics.LIVE + 5, invoices=4)
    record(invoices, 5, busy=20)
    found = figures_of("invoices")
    assert (found.consumers, found.threads, found.in_flight) == (1, 4, 2)
    assert found.utilisation == 0.5
    totals = metrics.overview().totals
    assert (totals.in_flight, totals.threads) == (3, 4)
    assert [worker.is_live for worker in metrics.workers()] == [True, False]


def test_the_last_dead_letters_are_the_newest(queue: Callable[..., Queue]) -> None:
    dead_letters = queue("invoices.dlq")
    invoices = queue("invoices", dead_letter_queue=dead_letters)
    letters = [bury(invoices, dead_letters) for _ in range(3)]
    found = metrics.recent_dead_letters(2)
    assert [letter.id for letter in found] == [letters[2].pk, letters[1].pk]
    assert (found[0].origin, found[0].held_in) == ("invoices", "invoices.dlq")
    assert (found[0].error, len(found[0].description)) == ("GatewayTimeout", 300)


def test_a_dead_letter_outlives_its_queue(queue: Callable[..., Queue]) -> None:
    gone = queue("gone")
    bury(gone)
    gone.delete()
    assert metrics.recent_dead_letters(1)[0].origin == ""


def test_messages_that_wait_without_any_worker_need_attention(
    queue: Callable[..., Queue],
) -> None:
    queue("invoices")
    assert troubles() == []
    send("invoices", 1)
    assert troubles() == [("no worker", None)]
    heartbeat("invoices")
    assert troubles() == []


def test_scheduled_messages_that_nobody_makes_ready_need_attention(
    queue: Callable[..., Queue],
) -> None:
    queue("invoices")
    send("invoices", 1, delay=60)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE messaging_scheduled SET due_at = due_at - interval '2 minutes'")
    assert troubles() == [("no worker", None)]


def test_a_queue_that_no_worker_serves_needs_attention(queue: Callable[..., Queue]) -> None:
    queue("invoices")
    heartbeat("emails")
    send("invoices", 1)
    assert troubles() == [("no consumer", "invoices")]


def test_a_queue_that_is_paused_with_messages_needs_attention(
    queue: Callable[..., Queue],
) -> None:
    queue("invoices")
    heartbeat("invoices")
    control.pause("invoices", by="mara", reason="audit")
    assert troubles() == []
    send("invoices", 1)
    assert troubles() == [("paused", "invoices")]
    found = figures_of("invoices")
    assert (found.is_paused, found.paused_by, found.pause_reason) == (True, "mara", "audit")


def test_new_dead_letters_need_attention(queue: Callable[..., Queue]) -> None:
    invoices = queue("invoices")
    record(invoices, 200, dead=2)
    record(invoices, 400, dead=5)
    assert troubles() == [("dead letters", "invoices")]
    assert figures_of("invoices").flow.newly_dead == 2


def test_a_queue_that_is_a_minute_behind_needs_attention(queue: Callable[..., Queue]) -> None:
    queue("invoices")
    heartbeat("invoices")
    message_id = send("invoices", 1)
    assert troubles() == []
    Message.objects.filter(pk=message_id).update(published_at=ago(90))
    assert troubles() == [("old", "invoices")]


def test_the_worst_comes_first(queue: Callable[..., Queue]) -> None:
    for name in ("a-paused", "b-unserved", "c-failing"):
        queue(name)
        send(name, 1)
    heartbeat("a-paused", "c-failing")
    control.pause("a-paused")
    record(Queue.objects.get(name="c-failing"), dead=1)
    assert [trouble for trouble, _ in troubles()] == [
        Trouble.NO_CONSUMER,
        Trouble.DEAD_LETTERS,
        Trouble.PAUSED,
    ]


def test_of_ten_thousand_queues_the_busiest_are_shown(
    django_assert_max_num_queries: Callable[..., Any],
) -> None:
    Queue.objects.bulk_create(Queue(name=f"queue-{number:05}") for number in range(10_000))
    record(Queue.objects.get(name="queue-09999"), published=1)
    send("queue-05000", 1)
    with django_assert_max_num_queries(12):
        overview = metrics.overview()
    names = [queue.name for queue in overview.queues]
    assert overview.number == 10_000 + Queue.objects.exclude(name__startswith="queue-").count()
    assert len(names) == metrics.SHOWN
    assert {"queue-09999", "queue-05000"} <= set(names)
    assert names == sorted(names)


def test_figures_that_take_too_long_to_count_are_left_out(
    queue: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "TIME_LIMIT", 50)
    monkeypatch.setattr(store, "DEPTHS", "SELECT pg_sleep(60), %(ids)s::bigint[], %(bound)s::int")
    record(queue("invoices"), acknowledged=10)
    found = figures_of("invoices")
    assert (found.ready, found.oldest_age, found.flow.out_rate) == (None, None, 1)
    overview = metrics.overview()
    assert overview.totals.ready is None


def test_other_errors_of_the_database_are_told(
    queue: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "DEPTHS", "SELECT no_such_column")
    queue("invoices")
    with pytest.raises(DatabaseError):
        metrics.overview()


def test_the_limit_of_time_ends_with_the_figures(queue: Callable[..., Queue]) -> None:
    """Also in a transaction that goes on, as in this test."""
    queue("invoices")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = '7s'")
        metrics.overview()
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("7s",)
