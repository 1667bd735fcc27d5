"""The command that runs workers: what it refuses, and what it asks of the supervisor."""

import os
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError

from messaging import consumer
from messaging.management.commands import messagingworker, runworker
from messaging.models import Queue

pytestmark = pytest.mark.django_db


@pytest.fixture
def asked(monkeypatch):
    """Return the options that supervisors were made with; none of them runs anything."""
    asked = []

    class Supervisor:
        def __init__(self, options):
            asked.append(options)

        def run(self):
            return 0

    monkeypatch.setattr(runworker, "Supervisor", Supervisor)
    return asked


@pytest.fixture
def two_consumers(declared):
    for name in ("emails", "invoices"):
        consumer(name)(lambda message: None)


def start(*arguments, name="runworker"):
    """Run the command, and return the code that it exits with."""
    with pytest.raises(SystemExit) as end:
        call_command(name, *arguments, stdout=StringIO())
    return end.value.code


@pytest.mark.parametrize("name", ["runworker", "messagingworker"])
def test_without_arguments_it_serves_everything_on_every_core(two_consumers, asked, name):
    assert start(name=name) == 0
    (options,) = asked
    assert [each.queue for each in options.consumers] == ["emails", "invoices"]
    assert (options.processes, options.threads) == (os.cpu_count(), 1)
    assert (options.drain, options.max_messages, options.grace) == (False, None, 30)


def test_the_alias_is_the_same_command():
    assert messagingworker.Command is runworker.Command


def test_what_is_asked_for_reaches_the_supervisor(two_consumers, asked):
    start("invoices", "--processes=3", "--threads=4", "--drain", "--max-messages=5", "--grace=0.5")
    (options,) = asked
    assert [each.queue for each in options.consumers] == ["invoices"]
    assert (options.processes, options.threads) == (3, 4)
    assert (options.drain, options.max_messages, options.grace) == (True, 5, 0.5)


def test_size_health_and_name_reach_it_too(two_consumers, asked):
    start("--max-memory=200", "--health-port=9000", "--health-host=::1", "--name=front")
    (options,) = asked
    assert options.max_memory == 200 * 1024 * 1024
    assert options.health == ("::1", 9000)
    assert options.process_name(7) == "front/7"


@pytest.mark.parametrize("name", ["", "a/b", "a b", "x" * 81])
def test_a_name_that_could_be_taken_for_another_is_refused(two_consumers, asked, name):
    with pytest.raises(CommandError, match="pattern") as refusal:
        call_command("runworker", f"--name={name}")
    assert refusal.value.returncode == 2
    assert not asked


def test_it_creates_the_queues_that_are_declared(two_consumers, asked):
    start()
    assert Queue.objects.filter(name__in=["emails", "invoices"]).count() == 2


@pytest.mark.parametrize(
    ("argument", "limit"),
    [
        ("--processes=0", "int of at least 1"),
        ("--processes=-1", "int of at least 1"),
        ("--processes=two", "int of at least 1"),
        ("--threads=0", "int of at least 1"),
        ("--threads=1.5", "int of at least 1"),
        ("--max-messages=0", "int of at least 1"),
        ("--max-memory=0", "int of at least 1"),
        ("--health-port=0", "int of at least 1 and at most 65535"),
        ("--health-port=65536", "int of at least 1 and at most 65535"),
        ("--grace=-1", "float of at least 0"),
        ("--grace=nan", "float of at least 0"),
        ("--grace=soon", "float of at least 0"),
    ],
)
def test_a_bad_number_is_refused_with_its_limit(two_consumers, asked, argument, limit):
    with pytest.raises(CommandError, match=limit):
        call_command("runworker", argument)
    assert not asked


@pytest.mark.parametrize(
    "argument", ["", "  ", "--queues=", "--queues=emails,,invoices", "--queues=emails,"]
)
def test_an_empty_name_is_refused(two_consumers, asked, argument):
    with pytest.raises(CommandError, match="Leave it out to serve all") as refusal:
        call_command("runworker", argument)
    assert refusal.value.returncode == 2
    assert not asked


def test_queues_may_be_listed_with_commas_and_count_once(two_consumers, asked):
    start("invoices", "--queues=emails, invoices", "--queues=emails")
    (options,) = asked
    assert [each.queue for each in options.consumers] == ["invoices", "emails"]


def test_an_unknown_queue_is_refused_with_what_was_meant(two_consumers, asked):
    with pytest.raises(CommandError, match=r"'invoice'\. Did you mean 'invoices'\?") as refusal:
        call_command("runworker", "invoice")
    assert refusal.value.returncode == 2
    assert "A worker serves queues that have a consumer: emails, invoices." in str(refusal.value)


def test_a_queue_without_a_consumer_can_be_waited_for(two_consumers, asked):
    start("invoices", "later", "--wait-for-queue")
    start("later", "--wait-for-queue")
    assert [[each.queue for each in options.consumers] for options in asked] == [["invoices"], []]


def test_without_any_consumer_it_says_where_to_put_one(declared, asked):
    with pytest.raises(CommandError, match=r"@consumer functions into consumers\.py") as refusal:
        call_command("runworker")
    assert refusal.value.returncode == 1


def test_a_database_that_does_not_answer_is_told_in_one_line(two_consumers, asked, monkeypatch):
    def refuse(using):
        raise OperationalError("connection refused")

    monkeypatch.setattr(runworker, "is_migrated", refuse)
    with pytest.raises(CommandError, match="does not answer: connection refused"):
        call_command("runworker")
    assert not asked
