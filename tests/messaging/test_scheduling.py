"""Schedules: one message a tick, whoever fires it, and none is lost or sent twice."""

import datetime
import threading

import pytest
from django.db import connections
from django.utils import timezone
from effects import execute

from messaging import (
    InvalidMessage,
    InvalidName,
    InvalidOption,
    UnknownQueue,
    UnknownSchedule,
    control,
    declare_queue,
    declare_schedule,
    maintenance,
    receive,
    scheduling,
)
from messaging.models import Message, Queue, Schedule
from messaging.sync import synchronise
from messaging.ticks import Ticks


def fire():
    return maintenance.fire_schedules()


def plan(seconds, name="nightly"):
    """Let the next tick be so many seconds from now on the database's clock."""
    execute(
        "UPDATE messaging_schedule SET next_at = statement_timestamp() + %s * interval '1 second'"
        " WHERE name = %s",
        seconds,
        name,
    )


def ticks_sent():
    """Return the ticks that messages were sent for, in order of the messages."""
    found = Message.objects.order_by("id").values_list("headers", flat=True)
    return [headers["x-messaging-schedule-tick"] for headers in found]


@pytest.fixture
def schedule(db, bare, queue):
    """Return a function that creates the schedule `nightly` for `reports`, due every hour."""
    reports = queue("reports")

    def create(name="nightly", **fields):
        values = {"queue": reports, "every": 3600.0, "body": {"n": 1}}
        return Schedule.objects.create(name=name, **values | fields)

    return create


class TestFiring:
    def test_it_is_planned_first_and_sent_when_it_is_due(self, schedule):
        row = schedule()
        assert fire() == pytest.approx(3600, abs=30)
        assert not Message.objects.exists()
        plan(0)
        fire()
        (message,) = receive("reports")
        row.refresh_from_db()
        assert message.body == {"n": 1}
        assert message.headers["x-messaging-schedule"] == "nightly"
        tick = datetime.datetime.fromisoformat(message.headers["x-messaging-schedule-tick"])
        assert (row.last_at, row.last_message_id) == (tick, message.id)
        assert row.next_at == tick + datetime.timedelta(hours=1)

    def test_it_is_not_sent_again_before_its_next_tick(self, schedule):
        schedule()
        fire()
        plan(0)
        for _ in range(3):
            fire()
        assert Message.objects.count() == 1

    def test_headers_priority_and_the_time_zone_of_the_tick_are_its_own(self, schedule):
        schedule(cron="* * * * *", every=None, headers={"a": 1}, priority=7, time_zone="Asia/Tokyo")
        fire()
        plan(0)
        fire()
        (message,) = receive("reports")
        assert (message.headers["a"], message.priority) == (1, 7)
        assert message.headers["x-messaging-schedule-tick"].endswith("+09:00")

    def test_a_topic_gets_it_too(self, schedule, topic, subscribe):
        subscribe("reports.due", "mails")
        schedule(queue=None, topic=topic("reports.due"), body=None)
        fire()
        plan(0)
        fire()
        (message,) = receive("mails")
        assert (message.topic, message.body) == ("reports.due", None)

    def test_a_paused_one_is_not_fired_and_its_ticks_are_not_caught_up(self, schedule):
        row = schedule(catch_up="all")
        fire()
        assert control.pause_schedule("nightly", by="ada")
        assert not control.pause_schedule("nightly")
        plan(-36_000)
        fire()
        row.refresh_from_db()
        assert row.paused_by == "ada"
        assert control.resume_schedule("nightly")
        assert not control.resume_schedule("nightly")
        fire()
        assert not Message.objects.exists()

    def test_a_tick_that_was_sent_is_not_sent_twice_even_if_it_is_due_again(self, schedule):
        """The deduplication id says so, beside the lock."""
        row = schedule()
        fire()
        plan(0)
        row.refresh_from_db()
        tick = row.next_at
        fire()
        Schedule.objects.update(next_at=tick)
        fire()
        assert Message.objects.count() == 1


class TestCatchingUp:
    def missed(self, schedule, catch_up, *, hours, seconds=0.0):
        row = schedule(catch_up=catch_up)
        fire()
        plan(-3600 * hours - seconds)
        row.refresh_from_db()
        fire()
        first = row.next_at
        row.refresh_from_db()
        assert first + datetime.timedelta(hours=hours + 1) == row.next_at
        return [
            (datetime.datetime.fromisoformat(tick) - first) // datetime.timedelta(hours=1)
            for tick in ticks_sent()
        ]

    def test_last_sends_one_for_the_last(self, schedule):
        assert self.missed(schedule, "last", hours=4, seconds=60) == [4]

    def test_all_sends_one_for_each_in_order(self, schedule):
        assert self.missed(schedule, "all", hours=4, seconds=60) == [0, 1, 2, 3, 4]

    def test_skip_sends_none_for_those_that_are_late(self, schedule):
        assert self.missed(schedule, "skip", hours=4, seconds=60) == []

    def test_skip_sends_one_that_is_due_just_now(self, schedule):
        assert self.missed(schedule, "skip", hours=4) == [4]

    def test_all_is_bounded_and_says_what_it_leaves_out(self, schedule, monkeypatch, caplog):
        monkeypatch.setattr(scheduling, "MOST", 3)
        assert self.missed(schedule, "all", hours=9, seconds=60) == [7, 8, 9]
        assert "leaves out ticks name=nightly" in caplog.text


class TestFailing:
    def fails(self, row, match):
        fire()
        plan(0)
        fire()
        row.refresh_from_db()
        assert row.failed == 1
        assert match in row.last_error
        assert row.next_at > timezone.now()
        assert not Message.objects.exists()

    def test_a_disabled_queue_fails_one_tick_and_the_next_one_comes(self, schedule, caplog):
        row = schedule()
        Queue.objects.update(disabled_at=timezone.now())
        self.fails(row, "QueueDisabled")
        assert "Schedule failed name=nightly" in caplog.text
        Queue.objects.update(disabled_at=None)
        plan(0)
        fire()
        assert Message.objects.count() == 1

    def test_a_full_queue_fails_one_tick(self, schedule):
        row = schedule()
        Queue.objects.update(max_length=1)
        fire()
        for _ in range(2):
            plan(0)
            fire()
        row.refresh_from_db()
        assert (row.failed, Message.objects.count()) == (1, 1)

    @pytest.mark.parametrize(
        ("fields", "match"),
        [
            ({"cron": "99 * * * *", "every": None}, "cron"),
            ({"time_zone": "Mars/Olympus"}, "time_zone"),
            ({"every": 0.0}, "every"),
            ({"queue": None}, "Unknown queue"),
            ({"headers": [1]}, "TypeError"),
        ],
    )
    def test_a_row_that_means_nothing_is_told_and_tried_again_later(self, schedule, fields, match):
        row = schedule(next_at=timezone.now() - datetime.timedelta(seconds=1), **fields)
        schedule("other", next_at=timezone.now() - datetime.timedelta(seconds=1))
        fire()
        row.refresh_from_db()
        assert row.failed == 1
        assert match in row.last_error
        assert row.next_at > timezone.now()
        assert Message.objects.count() == 1


class TestDeclaring:
    def test_it_is_created_and_never_overwritten(self, declared, bare):
        declare_queue("reports")
        declare_schedule("nightly", cron="0 6 * * *", queue="reports", time_zone="Europe/Berlin")
        assert synchronise().schedules == ["nightly"]
        Schedule.objects.update(cron="0 7 * * *")
        assert synchronise().schedules == []
        assert Schedule.objects.get().cron == "0 7 * * *"

    def test_an_unknown_target_is_told(self, declared, bare):
        declare_schedule("nightly", every=60, queue="reports")
        with pytest.raises(UnknownQueue, match="reports"):
            synchronise()

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            ({}, InvalidOption),
            ({"every": 60}, InvalidOption),
            ({"every": 60, "queue": "q", "topic": "t"}, InvalidOption),
            ({"every": 60, "cron": "* * * * *", "queue": "q"}, InvalidOption),
            ({"queue": "q"}, InvalidOption),
            ({"cron": "0 0 30 2 *", "queue": "q"}, InvalidOption),
            ({"every": 60, "queue": "q", "catch_up": "some"}, InvalidOption),
            ({"every": 60, "queue": "q", "time_zone": "x"}, InvalidOption),
            ({"every": 60, "queue": "q", "body": object()}, InvalidMessage),
            ({"every": 60, "queue": "q", "headers": {"x-messaging-a": 1}}, InvalidMessage),
            ({"every": 60, "queue": "q", "priority": 101}, InvalidMessage),
            ({"every": 60, "queue": "a b"}, InvalidName),
        ],
    )
    def test_what_is_wrong_is_refused_where_it_is_declared(self, declared, options, error):
        with pytest.raises(error):
            declare_schedule("nightly", **options)
        assert not declared.schedules

    def test_a_second_one_of_the_same_name_is_refused(self, declared):
        declare_schedule("nightly", every=60, queue="q")
        declare_schedule("nightly", every=60, queue="q")
        with pytest.raises(ValueError, match="declared twice"):
            declare_schedule("nightly", every=61, queue="q")


class TestOperating:
    def test_run_now_sends_a_message_and_leaves_the_plan(self, schedule):
        row = schedule()
        fire()
        row.refresh_from_db()
        planned = row.next_at
        sent = [control.run_schedule("nightly", by="ada") for _ in range(2)]
        row.refresh_from_db()
        assert [message.id for message in receive("reports", limit=10)] == sent
        assert (row.next_at, row.last_message_id) == (planned, sent[-1])

    def test_a_paused_one_runs_when_it_is_told_to(self, schedule):
        schedule(paused_at=timezone.now())
        assert control.run_schedule("nightly")

    def test_an_unknown_one_is_named_with_what_was_meant(self, schedule):
        schedule()
        for act in (control.run_schedule, control.pause_schedule, control.next_runs):
            with pytest.raises(UnknownSchedule, match="nightly"):
                act("nightli")

    def test_a_change_of_its_ticks_plans_it_anew(self, schedule):
        row = schedule()
        fire()
        row.refresh_from_db()
        row.description = "x"
        row.save()
        assert row.next_at is not None
        row.every = 60.0
        row.save(update_fields=["every"])
        row.refresh_from_db()
        assert row.next_at is None

    def test_the_next_runs_begin_with_the_one_that_is_planned(self, schedule):
        row = schedule(cron="0 6 * * *", every=None, time_zone="Europe/Berlin")
        fire()
        row.refresh_from_db()
        runs = control.next_runs("nightly", 5)
        assert (len(runs), runs[0]) == (5, row.next_at)
        assert {run.hour for run in runs} == {6}
        assert control.schedule_in_words("nightly") == "At 06:00 every day (Europe/Berlin)"


@pytest.mark.django_db(transaction=True)
def test_of_many_workers_that_fire_at_once_each_tick_is_sent_exactly_once(until):
    reports = Queue.objects.create(name="tick.reports", deduplication_window=0)
    for number in range(3):
        Schedule.objects.create(name=f"tick{number}", queue=reports, every=3600.0)
    fire()
    rounds, workers = 40, 8
    barrier = threading.Barrier(workers + 1, timeout=60)
    errors = []

    def work():
        try:
            for _ in range(rounds):
                barrier.wait()
                while scheduling.fire_due():
                    pass
                barrier.wait()
        except BaseException as error:
            errors.append(error)
            barrier.abort()
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(rounds):
            execute(
                "UPDATE messaging_schedule SET next_at = statement_timestamp() WHERE name ~ '^tick'"
            )
            barrier.wait()
            barrier.wait()
    finally:
        for thread in threads:
            thread.join(60)
    assert not errors
    assert Message.objects.filter(queue=reports).count() == 3 * rounds


def test_a_tick_is_shown_in_its_time_zone():
    tick = datetime.datetime(2026, 7, 1, tzinfo=datetime.UTC)
    assert Ticks("* * * * *", None, "Europe/Berlin").shown(tick).hour == 2
