"""A scan starts where the last one ended, trailing a little, and sometimes from the head."""

from types import SimpleNamespace

import pytest

from messaging.engines import hints as module
from messaging.engines.hints import SWEEP_EVERY, SWEEP_SHARE, TRAIL, Hints


@pytest.fixture
def clock(monkeypatch):
    """Return a clock that a test sets."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def hints(clock):
    return Hints()


class TestPositions:
    def test_the_first_scan_starts_at_the_head_of_the_default_priority(self, hints):
        assert (hints.priorities, hints.position(0)) == ([0], 0)

    def test_the_position_follows_a_claim_when_earlier_ids_have_had_time_to_commit(
        self, hints, clock
    ):
        hints.advance(0, 100)
        assert hints.position(0) == 0
        clock.now += TRAIL / 2
        hints.advance(0, 200)
        clock.now += TRAIL / 2
        assert hints.position(0) == 100
        clock.now += TRAIL / 2
        assert hints.position(0) == 200

    def test_the_position_never_goes_back_by_itself(self, hints, clock):
        hints.advance(0, 100)
        hints.advance(0, 50)
        clock.now += TRAIL
        assert hints.position(0) == 100

    def test_each_priority_has_its_own(self, hints, clock):
        hints.lower(5, 1)
        hints.advance(5, 100)
        hints.advance(0, 7)
        clock.now += TRAIL
        assert (hints.position(5), hints.position(0)) == (100, 7)
        assert hints.priorities == [5, 0]


class TestLowering:
    def test_what_arrives_behind_the_position_is_seen_by_the_next_scan(self, hints, clock):
        hints.advance(0, 100)
        clock.now += TRAIL
        assert hints.position(0) == 100
        hints.lower(0, 40)
        assert hints.position(0) < 40

    def test_what_arrives_behind_a_claim_that_is_still_trailing_is_seen_too(self, hints, clock):
        hints.advance(0, 100)
        hints.lower(0, 40)
        clock.now += TRAIL
        assert hints.position(0) < 40

    def test_the_highest_claim_that_is_trailing_counts_not_the_last(self, hints, clock):
        hints.advance(0, 100)
        hints.advance(0, 50)
        hints.lower(0, 70)
        clock.now += TRAIL
        assert hints.position(0) < 70

    def test_what_arrives_ahead_changes_nothing(self, hints, clock):
        hints.advance(0, 100)
        clock.now += TRAIL
        hints.lower(0, 101)
        assert hints.position(0) == 100

    def test_a_priority_that_was_never_seen_is_scanned_from_then_on(self, hints):
        hints.lower(-3, 50)
        assert hints.priorities == [0, -3]
        assert hints.position(-3) < 50

    def test_forgetting_starts_every_priority_at_its_head(self, hints, clock):
        hints.lower(5, 1)
        hints.advance(5, 100)
        clock.now += TRAIL
        hints.position(5)
        hints.advance(0, 100)
        hints.forget()
        clock.now += TRAIL
        assert (hints.position(5), hints.position(0)) == (0, 0)
        assert hints.priorities == [5, 0]


class TestSweeping:
    def test_the_first_scan_is_a_sweep_and_then_one_a_second(self, hints, clock):
        assert hints.sweep_due()
        hints.swept(0.0, [])
        assert not hints.sweep_due()
        clock.now += SWEEP_EVERY
        assert hints.sweep_due()

    def test_slow_sweeps_take_two_percent_of_the_time(self, hints, clock):
        hints.swept(2.0, [])
        clock.now += 2.0 * SWEEP_SHARE - 1
        assert not hints.sweep_due()
        clock.now += 1
        assert hints.sweep_due()
        assert SWEEP_SHARE == 50

    def test_a_sweep_finds_priorities_that_nobody_announced(self, hints):
        hints.swept(0.0, [7, -7])
        assert hints.priorities == [7, 0, -7]
