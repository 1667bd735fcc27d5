"""Observers and the log are told what deliveries came to, and cannot change it."""

import datetime
import logging

import pytest

from messaging.messages import Delivered, Failure, Message, Outcome, Settlement
from messaging.signals import (
    message_dead_lettered,
    message_failed,
    message_handled,
    printable,
    report,
)

DELIVERED = Delivered(id=3, queue_id=1, priority=0, message_id=7, attempt=2, subscription_id=None)
MESSAGE = Message(
    id=7,
    queue="invoices",
    topic=None,
    body={"card": "4111"},
    headers={},
    priority=0,
    attempt=2,
    ordering_key=None,
    published_at=datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC),
    delivery=DELIVERED,
)
ERROR = KeyError("no\nsuch")
FAILURE = Failure(error="KeyError", description="'no\nsuch'", traceback="", fingerprint="f")


def outcome(settlement, **fields):
    if settlement is not Settlement.ACKNOWLEDGED:
        fields |= {"failure": FAILURE, "error": ERROR}
    return Outcome(delivered=DELIVERED, settlement=settlement, message=MESSAGE, **fields)


@pytest.fixture
def heard():
    """Return the list of what the signals told."""
    told = []

    def hear(signal, **facts):
        told.append(facts)

    signals = (message_handled, message_failed, message_dead_lettered)
    for signal in signals:
        signal.connect(hear)
    yield told
    for signal in signals:
        signal.disconnect(hear)


class TestObservers:
    def test_a_handled_message_is_told_with_its_duration(self, heard):
        report(outcome(Settlement.ACKNOWLEDGED, duration=0.5), "invoices", "worker-1")
        assert heard == [{"sender": "worker-1", "message": MESSAGE, "duration": 0.5}]

    def test_a_failed_one_with_its_error_and_wait(self, heard):
        report(outcome(Settlement.RETRY, after=2.5), "invoices", "worker-1")
        assert heard == [
            {"sender": "worker-1", "message": MESSAGE, "error": ERROR, "retry_after": 2.5}
        ]

    def test_a_dead_one_with_its_reason(self, heard):
        report(outcome(Settlement.DEAD, reason="rejected"), "invoices", "worker-1")
        assert heard == [
            {"sender": "worker-1", "message": MESSAGE, "reason": "rejected", "error": ERROR}
        ]

    def test_an_observer_that_fails_does_not_stop_the_others(self, heard, caplog):
        def fail(**facts):
            raise RuntimeError("observer")

        message_handled.connect(fail)
        try:
            report(outcome(Settlement.ACKNOWLEDGED), "invoices", "worker-1")
        finally:
            message_handled.disconnect(fail)
        assert len(heard) == 1


class TestTheLog:
    @pytest.mark.parametrize(
        ("settlement", "level", "line"),
        [
            (
                Settlement.ACKNOWLEDGED,
                "DEBUG",
                "Message handled id=7 queue=invoices attempt=2",
            ),
            (
                Settlement.RETRY,
                "WARNING",
                "Message failed id=7 queue=invoices attempt=2 retry_after=2.5 "
                r"error=KeyError: 'no\nsuch'",
            ),
            (
                Settlement.DEAD,
                "ERROR",
                "Message dead id=7 queue=invoices attempt=2 reason=rejected "
                r"error=KeyError: 'no\nsuch'",
            ),
        ],
    )
    def test_each_outcome_is_one_line_of_facts_without_the_payload(
        self, caplog, settlement, level, line
    ):
        caplog.set_level(logging.DEBUG, logger="messaging")
        report(outcome(settlement, after=2.5, reason="rejected"), "invoices", "worker-1")
        assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
            (level, line)
        ]

    def test_handled_messages_are_not_logged_in_production(self, caplog):
        caplog.set_level(logging.INFO, logger="messaging")
        report(outcome(Settlement.ACKNOWLEDGED), "invoices", "worker-1")
        assert caplog.records == []

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("plain ü 😀", "plain ü 😀"),
            ("two\r\nlines", r"two\r\nlines"),
            ("\x1b[31mred", r"\x1b[31mred"),
            ("nul\0", r"nul\x00"),
            ("right\u202eleft", r"right\u202eleft"),
            ("\ud800", r"\ud800"),
            ("x" * 501, "x" * 500),
            (KeyError("a"), "'a'"),
        ],
    )
    def test_control_characters_cannot_forge_a_line(self, text, shown):
        assert printable(text) == shown
