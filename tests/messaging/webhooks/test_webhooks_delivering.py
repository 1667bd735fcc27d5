"""A message is sent signed, and the answer decides what becomes of it."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from django.db import connection
from effects import waiting
from receiver import OTHER_SECRET, SECRET
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from messaging import maintenance, publish, send
from messaging.models import Attempt, DeadLetter, Queue, Scheduled, Subscription, Topic, Webhook
from messaging.webhooks.delivering import LONGEST_WAIT, seconds_of
from messaging.webhooks.sending import MOST_SHOWN

pytestmark = pytest.mark.django_db


def wait_of_retry():
    """Return in how many seconds the only scheduled message is due."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT extract(epoch FROM due_at - statement_timestamp())::float8 "
            "FROM messaging_scheduled"
        )
        ((seconds,),) = cursor.fetchall()
    return seconds


class TestRequest:
    def test_it_says_what_happened_and_when_in_the_form_of_standard_webhooks(
        self, webhook, receiver, deliver
    ):
        Topic.objects.create(name="parcels.sent")
        Subscription.objects.create(pattern="parcels.*", queue=webhook.queue)
        publish("parcels.sent", {"order_id": 2**60, "who": "Zoë"})
        assert deliver() == 1
        (request,) = receiver.requests
        content = json.loads(request.body)
        assert datetime.fromisoformat(content.pop("timestamp")) <= datetime.now(UTC)
        assert content == {"type": "parcels.sent", "data": {"order_id": 2**60, "who": "Zoë"}}
        assert request.path == "/hook?a=1"
        assert request.headers["content-type"] == "application/json"
        assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
        assert waiting() == {}

    def test_a_message_without_a_topic_is_of_the_type_of_its_queue(
        self, webhook, receiver, deliver
    ):
        send("hooks", None)
        deliver()
        content = json.loads(receiver.requests[0].body)
        assert (content["type"], content["data"]) == ("hooks", None)

    def test_the_signature_is_verified_by_the_published_library(self, webhook, receiver, deliver):
        send("hooks", {"total": "29.33", "who": "Zoë"})
        deliver()
        (request,) = receiver.requests
        content = Verifier(SECRET).verify(request.body, request.headers)
        assert content["data"] == {"total": "29.33", "who": "Zoë"}
        with pytest.raises(WebhookVerificationError):
            Verifier(SECRET).verify(request.body.replace("29.33", "0.33"), request.headers)
        with pytest.raises(WebhookVerificationError):
            Verifier(OTHER_SECRET).verify(request.body, request.headers)

    def test_in_a_rotation_both_secrets_sign(self, webhook, receiver, deliver, messaging):
        messaging(WEBHOOK_SECRETS={"partner": [OTHER_SECRET, SECRET]})
        send("hooks", 1)
        deliver()
        (request,) = receiver.requests
        for secret in (SECRET, OTHER_SECRET):
            Verifier(secret).verify(request.body, request.headers)

    def test_its_id_stays_the_same_when_it_is_sent_again(self, webhook, receiver, deliver):
        receiver.answer(500)
        message_id = send("hooks", 1)
        deliver()
        maintenance.promote_due(None)
        deliver()
        ids = [request.headers["webhook-id"] for request in receiver.requests]
        assert ids == [f"msg_{message_id}"] * 2
        assert waiting() == {}


class TestAnswers:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
    def test_any_2xx_acknowledges(self, webhook, receiver, deliver, status):
        receiver.answer(status)
        send("hooks", 1)
        assert deliver() == 1
        assert waiting() == {}

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_a_redirection_is_a_failure_and_not_followed(self, webhook, receiver, deliver, status):
        receiver.answer(status, location=receiver.url(path="/elsewhere"))
        send("hooks", 1)
        deliver()
        assert [request.path for request in receiver.requests] == ["/hook?a=1"]
        assert waiting() == {"scheduled": 1}

    @pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
    def test_anything_else_is_a_failure_with_the_back_off_of_the_queue(
        self, webhook, receiver, deliver, status
    ):
        Queue.objects.filter(name="hooks").update(backoff_base=300)
        receiver.answer(status, "No order 7.")
        send("hooks", 1)
        deliver()
        assert 290 < wait_of_retry() <= 300
        attempt = Attempt.objects.get()
        assert attempt.error == "WebhookFailed"
        assert attempt.description == f"partner was answered {status}: No order 7."

    def test_at_the_limit_it_becomes_a_dead_letter(self, webhook, receiver, deliver):
        send("hooks", 1)
        for status in (500, 502, 504):
            receiver.answer(status)
            deliver()
            maintenance.promote_due(None)
        letter = DeadLetter.objects.get()
        assert (letter.reason, letter.attempts) == ("max_deliveries", 3)
        assert letter.description == "partner was answered 504: (no text)"
        assert waiting() == {"dead": 1}

    def test_little_of_a_long_answer_is_shown_and_nothing_that_cannot_be_printed(
        self, webhook, receiver, deliver
    ):
        receiver.answer(500, "\x1b[31mred\n\r" + "x" * 100_000)
        send("hooks", 1)
        deliver()
        description = Attempt.objects.get().description
        assert description.startswith("partner was answered 500: [31mred xxx")
        assert description.isprintable()
        assert len(description) <= len("partner was answered 500: ") + MOST_SHOWN

    def test_nobody_at_the_address_is_a_failure(self, webhook, receiver, deliver):
        webhook.url = "http://127.0.0.1:1/"
        webhook.save()
        send("hooks", 1)
        deliver()
        assert Attempt.objects.get().description.startswith("No answer from 127.0.0.1: ")

    def test_no_answer_in_time_is_a_failure(self, webhook, receiver, deliver):
        webhook.timeout = 0.1
        webhook.save()
        receiver.opened.clear()
        send("hooks", 1)
        deliver()
        assert Attempt.objects.get().description == "No answer from 127.0.0.1 within 0.1 seconds."

    def test_a_secret_that_is_gone_is_a_failure_that_names_it(
        self, webhook, receiver, deliver, messaging
    ):
        messaging(WEBHOOK_SECRETS={"other": OTHER_SECRET})
        send("hooks", 1)
        deliver()
        assert receiver.requests == []
        attempt = Attempt.objects.get()
        assert "['partner']: there is no such secret; known: other." in attempt.description
        assert OTHER_SECRET not in attempt.description + attempt.traceback


class TestGone:
    def test_410_disables_the_webhook_and_what_waits_goes_on_waiting(
        self, webhook, receiver, deliver
    ):
        receiver.answer(410)
        send("hooks", 1)
        deliver()
        webhook.refresh_from_db()
        assert webhook.is_disabled
        assert (webhook.disabled_by, webhook.disabled_reason) == ("receiver", "answered 410 Gone")
        send("hooks", 2)
        assert deliver() == 0
        assert waiting() == {"ready": 2}
        assert not Attempt.objects.exists()
        assert len(receiver.requests) == 1

    def test_what_was_claimed_meanwhile_is_given_back_uncounted(self, webhook, receiver, runner):
        before = runner()
        receiver.answer(410)
        send("hooks", 1)
        before.run_round()
        send("hooks", 2)
        before.run_round()
        assert len(receiver.requests) == 1
        assert sum(waiting().values()) == 2
        assert not Attempt.objects.exists()


class TestRetryAfter:
    @pytest.mark.parametrize("status", [429, 503])
    def test_it_decides_when_the_message_is_sent_again_and_when_the_webhook_is(
        self, webhook, receiver, deliver, status
    ):
        receiver.answer(status, retry_after="120")
        send("hooks", 1)
        deliver()
        assert 110 < wait_of_retry() <= 120
        assert Attempt.objects.get().description.startswith(f"partner was answered {status}")
        send("hooks", 2)
        assert deliver() == 0
        assert len(receiver.requests) == 1

    def test_other_answers_do_not_say_when(self, webhook, receiver, deliver):
        receiver.answer(500, retry_after="120")
        send("hooks", 1)
        deliver()
        assert wait_of_retry() <= 0

    def test_it_counts_as_a_delivery(self, webhook, receiver, deliver):
        Queue.objects.filter(name="hooks").update(max_deliveries=1)
        receiver.answer(429, retry_after="120")
        send("hooks", 1)
        deliver()
        assert not Scheduled.objects.exists()
        assert DeadLetter.objects.get().reason == "max_deliveries"

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("120", 120),
            ("0", 0),
            ("1000000000", LONGEST_WAIT),
            ("9" * 5_000, LONGEST_WAIT),
            ("1e9", None),
            ("-5", None),
            ("soon", None),
            ("", None),
            (None, None),
            ("١٢", None),
            ("Wed, 99 Foo 2026 99:99:99 GMT", None),
            ("Wed, 21 Oct 2015 07:28:00 GMT", None),
            ("Wed, 21 Oct 9999 07:28:00 GMT", LONGEST_WAIT),
        ],
    )
    def test_what_it_says_is_heard_within_a_day_and_nonsense_is_ignored(self, text, seconds):
        assert seconds_of(text) == seconds

    @pytest.mark.parametrize("usegmt", [True, False])
    def test_it_may_be_a_date(self, usegmt):
        at = datetime.now(UTC) + timedelta(seconds=120)
        assert 110 < seconds_of(format_datetime(at, usegmt=usegmt)) <= 120


def test_a_row_written_past_the_form_is_not_sent_inside(webhook, receiver, deliver, messaging):
    messaging(WEBHOOK_ALLOWED_HOSTS=[])
    urls = ["javascript:alert(1)", receiver.url(), f"https://localhost:{receiver.port}/"]
    for number, url in enumerate(urls):
        queue = Queue.objects.create(name=f"hooks-{number}")
        Webhook.objects.bulk_create(
            [Webhook(name=queue.name, queue=queue, url=url, secret="partner")]
        )
        send(queue.name, 1)
    assert deliver() == 3
    assert {attempt.error for attempt in Attempt.objects.all()} == {"InvalidURL"}
    assert receiver.requests == []
