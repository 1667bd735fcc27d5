"""Schedules in the admin: edited, refused by the field, run and paused by those who may."""

from collections.abc import Callable
from typing import Any

import pytest
from admin_pages import address, texts, token_of, version_of, visible
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from messaging import maintenance
from messaging.models import Message, Queue, Schedule


@pytest.fixture
def reports(bare: None, queue: Callable[..., Queue]) -> Queue:
    return queue("reports")


@pytest.fixture
def nightly(reports: Queue) -> Schedule:
    return Schedule.objects.create(
        name="nightly", queue=reports, cron="0 6 * * MON-FRI", time_zone="Europe/Berlin"
    )


def form(reports: Queue, **fields: Any) -> dict[str, Any]:
    """Return what the form sends for a schedule of every minute."""
    return {
        "name": "minutely",
        "queue": reports.pk,
        "body": '{"a": 1}',
        "headers": "",
        "priority": 0,
        "cron": "* * * * *",
        "every": "",
        "time_zone": "UTC",
        "catch_up": "last",
    } | fields


def operate(client: Client, name: str, *rows: Schedule) -> Any:
    """Choose schedules in the list and confirm."""
    chosen = {"_selected_action": [row.pk for row in rows], "action": name, "index": "0"}
    page = client.post(address("schedule"), chosen)
    if page.status_code != 200:
        return page
    where = address("schedule", "operate", name.removesuffix("_now"))
    return client.post(where, {"token": token_of(page)}, follow=True)


def test_it_is_added_and_fired(reports: Queue, root: Client) -> None:
    page = root.post(address("schedule", "add"), form(reports))
    assert page.status_code == 302
    maintenance.fire_schedules()
    assert Schedule.objects.get().next_at > timezone.now()


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("cron", {"cron": "99 * * * *"}),
        ("cron", {"cron": "0 0 30 2 *"}),
        ("cron", {"every": "60"}),
        ("every", {"cron": "", "every": "0.5"}),
        ("time_zone", {"time_zone": "Mars/Olympus"}),
        ("headers", {"headers": '{"x-messaging-a": 1}'}),
        ("headers", {"headers": "[1]"}),
        ("body", {"body": '{"a": NaN}'}),
        ("priority", {"priority": 101}),
        ("queue", {"queue": ""}),
        ("name", {"name": "a b"}),
        ("catch_up", {"catch_up": "some"}),
    ],
)
def test_what_is_wrong_is_said_at_its_field(
    reports: Queue, root: Client, field: str, values: dict[str, Any]
) -> None:
    page = root.post(address("schedule", "add"), form(reports, **values))
    assert page.status_code == 200
    assert field in page.context["adminform"].form.errors
    assert not Schedule.objects.exists()


def test_the_page_says_when_it_is_due(nightly: Schedule, root: Client) -> None:
    text = visible(root.get(address("schedule", "change", nightly.pk)))
    assert "At 06:00 on Monday through Friday (Europe/Berlin)" in text
    assert len(list(control_runs(text))) == 5


def control_runs(text: str) -> list[str]:
    """Return the moments that a page names."""
    return [word for word in text.split() if word == "06:00:00"]


def test_a_change_of_its_time_has_it_planned_anew(nightly: Schedule, root: Client) -> None:
    maintenance.fire_schedules()
    where = address("schedule", "change", nightly.pk)
    version = version_of(root.get(where))
    values = form(nightly.queue, cron="0 7 * * *", version=version)  # type: ignore[arg-type]
    assert root.post(where, values).status_code == 302
    nightly.refresh_from_db()
    assert (nightly.name, nightly.cron, nightly.next_at) == ("nightly", "0 7 * * *", None)


def test_who_may_runs_it_now(nightly: Schedule, staff: Any) -> None:
    page = operate(staff("view_schedule", "run_schedule"), "run_now", nightly)
    assert texts(page) == "1 message was sent."
    assert Message.objects.count() == 1
    assert "Run now" in LogEntry.objects.get().get_change_message()


def test_who_may_pauses_and_resumes_it(nightly: Schedule, staff: Any) -> None:
    client = staff("view_schedule", "run_schedule")
    assert texts(operate(client, "pause", nightly)) == "1 schedule is paused."
    nightly.refresh_from_db()
    assert nightly.paused_by == "staff0"
    assert "paused by staff0" in visible(client.get(address("schedule")))
    assert texts(operate(client, "resume", nightly)) == "1 schedule is resumed."


@pytest.mark.parametrize("name", ["run_now", "pause", "resume"])
def test_who_may_only_look_is_refused(nightly: Schedule, staff: Any, name: str) -> None:
    client = staff("view_schedule", "change_schedule")
    assert operate(client, name, nightly).status_code == 403
    where = address("schedule", "operate", name.removesuffix("_now"))
    assert client.get(f"{where}?id={nightly.pk}").status_code == 403
    assert not Message.objects.exists()


def test_a_row_that_says_no_time_has_a_page(nightly: Schedule, root: Client) -> None:
    Schedule.objects.update(cron="x", time_zone="Mars/Olympus")
    assert "says no time" in visible(root.get(address("schedule")))
    assert root.get(address("schedule", "change", nightly.pk)).status_code == 200


def test_a_message_that_cannot_be_sent_is_said(nightly: Schedule, staff: Any) -> None:
    Queue.objects.update(disabled_at=timezone.now())
    page = operate(staff("view_schedule", "run_schedule"), "run_now", nightly)
    assert "disabled" in texts(page)
