"""The command `schedules`: lists, runs, pauses and resumes, in words and in JSON."""

import io
import json

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from messaging import maintenance
from messaging.models import Message, Queue, Schedule


@pytest.fixture(autouse=True)
def nightly(bare):
    reports = Queue.objects.create(name="reports")
    return Schedule.objects.create(
        name="nightly", queue=reports, cron="0 6 * * *", time_zone="Europe/Berlin"
    )


def run(*arguments):
    output = io.StringIO()
    call_command("schedules", *arguments, stdout=output)
    return output.getvalue()


def test_the_list_says_where_to_and_when():
    maintenance.fire_schedules()
    text = run()
    assert "nightly" in text
    assert "queue reports" in text
    assert "At 06:00 every day (Europe/Berlin)" in text


def test_the_list_in_json_has_the_same():
    maintenance.fire_schedules()
    (facts,) = json.loads(run("list", "nightly", "--json"))
    assert (facts["name"], facts["queue"], facts["cron"]) == ("nightly", "reports", "0 6 * * *")
    assert facts["next_at"] is not None


def test_a_row_that_says_no_time_is_listed_as_such():
    Schedule.objects.update(cron="x", time_zone="Mars/Olympus")
    assert "never: " in run()


def test_run_sends_and_says_which_message():
    text = run("run", "nightly")
    assert text.strip() == f"Schedule nightly has sent message {Message.objects.get().pk}."


def test_pause_and_resume_say_whether_anything_changed():
    assert "is paused now" in run("pause", "nightly")
    assert json.loads(run("pause", "nightly", "--json")) == [
        {"schedule": "nightly", "changed": False}
    ]
    assert "is resumed now" in run("resume", "nightly")
    assert "was not paused" in run("resume", "nightly")


@pytest.mark.parametrize("arguments", [["run"], ["run", "nightly", "nightli"], ["pause", "x"]])
def test_what_is_refused_ends_with_2_and_changes_nothing(arguments):
    with pytest.raises(CommandError) as refused:
        run(*arguments)
    assert refused.value.returncode == 2
    assert not Message.objects.exists()
    assert Schedule.objects.get().paused_at is None
