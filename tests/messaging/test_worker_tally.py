"""The tally: counts for the statistics, totals for the heartbeat."""

from messaging.messages import Delivered, Failure, Outcome, Settlement
from messaging.worker.tally import Tally

FAILURE = Failure(error="ValueError", description="", traceback="", fingerprint="")


def outcome(settlement, duration=0.5):
    failed = settlement is not Settlement.ACKNOWLEDGED
    return Outcome(
        delivered=Delivered(
            id=1, queue_id=1, priority=0, message_id=1, attempt=1, subscription_id=None
        ),
        settlement=settlement,
        duration=duration,
        failure=FAILURE if failed else None,
    )


def test_outcomes_are_counted_per_queue_with_the_time_they_took():
    tally = Tally()
    tally.add(1, [outcome(Settlement.ACKNOWLEDGED), outcome(Settlement.RETRY, 1.0)])
    tally.add(1, [outcome(Settlement.ACKNOWLEDGED)])
    tally.add(2, [outcome(Settlement.DEAD, 0.25)])
    assert sorted(tally.flush()) == [(1, 2, 1, 0, 0, 2.0), (2, 0, 0, 1, 0, 0.25)]


def test_a_flush_starts_anew_and_keeps_the_totals():
    tally = Tally()
    tally.add(1, [outcome(Settlement.ACKNOWLEDGED), outcome(Settlement.DEAD)])
    tally.flush()
    assert tally.flush() == []
    assert (tally.handled, tally.failed) == (2, 1)


def test_what_is_in_flight_is_known_per_queue():
    tally = Tally()
    tally.started("emails", 3)
    tally.started("invoices", 1)
    tally.finished("emails", 3)
    assert tally.running() == {"invoices": 1}
