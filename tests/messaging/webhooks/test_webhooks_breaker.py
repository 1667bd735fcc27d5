"""A webhook that fails again and again is left alone, and found to answer by one request."""

from typing import Any

import pytest
from django.db import connection
from effects import waiting

from messaging import control, send, send_many
from messaging.models import Attempt, Queue
from messaging.store.webhooks import served
from messaging.webhooks.breaker import FAILURES, FIRST_REST, LONGEST_REST, may_try, rest_after

pytestmark = pytest.mark.django_db


def state(webhook: Any) -> tuple[int, float | None]:
    """Return its failures in a row, and for how many seconds it rests."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT failures, extract(epoch FROM rests_until - statement_timestamp())::float8 "
            "FROM messaging_webhook WHERE id = %s",
            [webhook.pk],
        )
        return cursor.fetchone()


def end_the_rest() -> None:
    """Have what rests be tried again."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE messaging_webhook SET rests_until = now() - interval '1 hour'")


@pytest.fixture
def failing(webhook, receiver, deliver):
    """Return a webhook that rests after its failures in a row, with that many due much later."""
    Queue.objects.update(backoff_base=600)
    for number in range(FAILURES):
        assert state(webhook) == (number, None)
        receiver.answer(500)
        send("hooks", number)
        deliver()
    receiver.requests.clear()
    return webhook


def test_after_five_failures_in_a_row_it_rests(failing):
    failures, rest = state(failing)
    assert failures == FAILURES
    assert 0 < rest <= FIRST_REST


def test_while_it_rests_messages_wait_and_no_attempt_is_counted(failing, receiver, deliver):
    before = Attempt.objects.count()
    send_many("hooks", range(1_000))
    assert deliver() == 0
    assert receiver.requests == []
    assert waiting()["ready"] == 1_000
    assert Attempt.objects.count() == before


def test_an_answer_in_between_begins_the_count_anew(webhook, receiver, deliver):
    for status in (500, 500, 500, 500, 200, 500):
        receiver.answer(status)
        send("hooks", status)
        deliver()
    assert state(webhook) == (1, None)


def test_after_the_rest_one_request_tries_and_an_answer_ends_the_trial(failing, receiver, deliver):
    end_the_rest()
    (row,) = served(connection, None)
    assert row.rests_until is not None
    send("hooks", "trial")
    assert deliver() == 1
    assert state(failing) == (0, None)
    assert waiting() == {"scheduled": FAILURES}


def test_a_trial_that_fails_doubles_the_rest(failing, receiver, deliver):
    end_the_rest()
    receiver.answer(500)
    send_many("hooks", ["trial", "not yet"])
    deliver()
    failures, rest = state(failing)
    assert failures == FAILURES + 1
    assert FIRST_REST < rest <= 2 * FIRST_REST
    assert len(receiver.requests) == 1
    assert Attempt.objects.count() == FAILURES + 1


def test_of_two_workers_that_see_the_rest_to_be_over_one_tries(failing):
    end_the_rest()
    (row,) = served(connection, None)
    assert may_try(row, None)
    assert not may_try(row, None)
    assert served(connection, None) == []


def test_what_another_worker_tries_is_given_back_uncounted(failing, receiver, deliver, monkeypatch):
    end_the_rest()
    send("hooks", "trial")
    (row,) = served(connection, None)
    assert may_try(row, None)
    monkeypatch.setattr("messaging.store.webhooks.served", lambda *_: [row])
    deliver()
    assert receiver.requests == []
    assert Attempt.objects.count() == FAILURES
    assert waiting() == {"scheduled": FAILURES + 1}


def test_a_process_that_has_not_read_the_row_again_sends_nothing_more(webhook, receiver, runner):
    before = runner()
    receiver.answer(429, retry_after="120")
    send("hooks", 1)
    before.run_round()
    send("hooks", 2)
    before.run_round()
    assert len(receiver.requests) == Attempt.objects.count() == 1
    assert waiting() == {"scheduled": 2}


def test_an_operator_ends_the_rest(failing, receiver, deliver):
    assert control.enable_webhook("partner")
    assert state(failing) == (0, None)
    send("hooks", "now")
    assert deliver() == 1
    assert len(receiver.requests) == 1


def test_the_rest_doubles_up_to_its_limit():
    assert [rest_after(n) for n in (1, FAILURES - 1)] == [0, 0]
    assert [rest_after(FAILURES + n) for n in (0, 1, 2)] == [
        FIRST_REST,
        2 * FIRST_REST,
        4 * FIRST_REST,
    ]
    assert rest_after(10**9) == LONGEST_REST
