"""Errors name the value and the remedy, and control flow stays outside of their base."""

from datetime import timedelta

import pytest

from messaging import exceptions
from messaging.exceptions import (
    DeduplicationConflict,
    Expired,
    HandlerTimeout,
    InvalidMessage,
    MessagingError,
    PayloadTooLarge,
    Reject,
    Retry,
    UnknownQueue,
    UnknownTopic,
)

ERRORS = [
    error
    for error in vars(exceptions).values()
    if isinstance(error, type)
    and error.__module__ == exceptions.__name__
    # What is raised in a handler or by it, and caught by nobody but the worker.
    and error not in (Retry, Reject, HandlerTimeout, Expired)
]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_has_one_base(error):
    assert issubclass(error, MessagingError)


@pytest.mark.parametrize(
    "name", ["InvalidMessage", "InvalidName", "PayloadTooLarge", "UnknownQueue", "UnknownTopic"]
)
def test_errors_about_a_value_are_value_errors(name):
    assert issubclass(getattr(exceptions, name), ValueError)


@pytest.mark.parametrize("error", [Retry(), Reject("why")])
def test_a_broad_except_cannot_swallow_retry_and_reject(error):
    assert not isinstance(error, MessagingError | ValueError)


class TestUnknownNames:
    def test_a_close_name_is_suggested(self):
        error = UnknownQueue("emials", ["shipments", "emails"])
        assert str(error) == "Unknown queue 'emials'. Did you mean 'emails'?"
        assert error.name == "emials"

    def test_several_close_names_are_suggested(self):
        error = UnknownTopic("orders.place", ["orders.places.all", "orders.placed"])
        assert "Did you mean 'orders.placed' or 'orders.places.all'?" in str(error)

    def test_without_a_close_one_the_declared_names_are_listed(self):
        text = str(UnknownQueue("x", ["shipments", "emails"]))
        assert text == "Unknown queue 'x'. Declared queues: emails, shipments."

    def test_of_many_names_ten_are_listed(self):
        text = str(UnknownTopic("x", [f"topic-{n:03}" for n in range(500)]))
        assert text.endswith("topic-008, topic-009 and 490 more.")

    def test_without_any_name_the_remedy_is_to_declare_one(self):
        text = str(UnknownTopic("orders.placed"))
        assert "No topic is declared yet: declare it in consumers.py" in text
        assert "sync_messaging" in text


def test_an_invalid_message_says_where():
    assert str(InvalidMessage("why", path="$.a")) == "Invalid message at $.a: why"
    assert str(InvalidMessage("why", index=0)) == "Invalid message at item 0, $: why"


def test_a_payload_that_is_too_large_says_how_large():
    error = PayloadTooLarge(2_000_000, 1_048_576)
    assert (error.size, error.limit) == (2_000_000, 1_048_576)
    assert "2,000,000 bytes of JSON, the limit is 1,048,576" in str(error)
    assert "headers" in str(PayloadTooLarge(2, 1, what="headers"))


def test_a_deduplication_conflict_names_the_first_message():
    error = DeduplicationConflict("order-1", 77)
    assert (error.deduplication_id, error.original) == ("order-1", 77)
    assert "'order-1' was used for message 77 with another body" in str(error)


class TestRetry:
    def test_without_a_time_the_queue_decides(self):
        assert (Retry().after, Retry().counts) == (None, True)

    @pytest.mark.parametrize("after", [0, 1.5, 3_162_240_000])
    def test_a_time_is_seconds(self, after):
        assert Retry(after=after).after == after

    def test_a_timedelta_becomes_seconds(self):
        retry = Retry(timedelta(minutes=2), counts=False)
        assert (retry.after, retry.counts) == (120, False)

    @pytest.mark.parametrize(
        "after", [-1, float("nan"), float("inf"), 3_162_240_001, timedelta.max, timedelta(-1)]
    )
    def test_other_times_are_refused_where_they_are_raised(self, after):
        with pytest.raises(ValueError, match="give 0 to 3,162,240,000 seconds"):
            Retry(after=after)


@pytest.mark.parametrize(("reason", "text"), [("why", "why"), ("", ""), (KeyError("a"), "'a'")])
def test_reject_keeps_its_reason_as_text(reason, text):
    assert Reject(reason).reason == text
