"""The pace: careful at first, sharing once trusted, careful again as soon as SQL shows."""

import pytest

from messaging.handling import Handled
from messaging.worker.pace import MAX_SHARED, TRUST_AFTER, Pace


def handled(count=1, *, sql=False, duration=0.0, error=None):
    return [Handled(message=None, error=error, duration=duration, used_database=sql)] * count


def trusted(**kwargs):
    """Return a pace that has seen enough handlers without SQL to share as much as it may."""
    pace = Pace(None)
    for _ in range(100):
        pace.learn(handled(pace.size(), **kwargs))
    return pace


def rounds_until_sharing(pace):
    for number in range(100_000):
        if pace.size() > 1:
            return number
        pace.learn(handled())
    raise AssertionError("never shares")


def test_it_starts_with_one_message_a_transaction():
    assert Pace(None).size() == 1


def test_handlers_without_sql_share_more_and_more():
    pace = Pace(None)
    assert rounds_until_sharing(pace) == TRUST_AFTER
    sizes = []
    for _ in range(10):
        sizes.append(pace.size())
        pace.learn(handled(pace.size()))
    assert sizes == [2, 4, 8, 16, 32, 64, 128, 256, MAX_SHARED, MAX_SHARED]


@pytest.mark.parametrize(("duration", "size"), [(0.0001, 500), (0.001, 50), (0.01, 5), (0.2, 1)])
def test_they_share_what_fits_in_about_fifty_milliseconds(duration, size):
    assert trusted(duration=duration).size() == pytest.approx(size, rel=0.1)


def test_a_handler_that_becomes_slow_shares_less():
    pace = trusted(duration=0.001)
    for _ in range(30):
        pace.learn(handled(pace.size(), duration=0.025))
    assert pace.size() == 2


def test_one_that_uses_sql_has_a_transaction_of_its_own_again():
    pace = trusted()
    pace.learn([*handled(20), *handled(sql=True)])
    assert pace.size() == 1


def test_whoever_broke_the_trust_waits_twice_as_long_for_it():
    pace = Pace(None)
    waits = []
    for _ in range(4):
        waits.append(rounds_until_sharing(pace))
        pace.learn(handled(sql=True))
    assert waits == [10, 20, 40, 80]


def test_sql_before_any_trust_costs_none():
    pace = Pace(None)
    for _ in range(50):
        pace.learn(handled(sql=True))
    assert rounds_until_sharing(pace) == TRUST_AFTER


def test_a_declared_size_is_kept_whatever_the_handlers_do():
    pace = Pace(20)
    pace.learn(handled(20, sql=True, duration=5))
    assert pace.size() == 20


@pytest.mark.parametrize("declared", [None, 20])
def test_isolated_messages_run_one_by_one_and_then_it_goes_on(declared):
    pace = Pace(declared) if declared else trusted()
    before = pace.size()
    pace.isolate(3)
    sizes = []
    for _ in range(4):
        sizes.append(pace.size())
        pace.learn(handled(pace.size()))
    assert sizes == [1, 1, 1, before]


def test_nothing_handled_teaches_nothing():
    pace = Pace(None)
    for _ in range(100):
        pace.learn([])
    assert pace.size() == 1


class TestABatch:
    def test_is_as_large_as_declared_from_the_first_on(self):
        assert Pace(None, batch=500).size() == 500

    def test_grows_from_one_where_it_has_to_be_careful(self):
        pace = Pace(None, batch=20, careful=True)
        sizes = []
        for _ in range(7):
            sizes.append(pace.size())
            pace.learn(handled(pace.size(), sql=True, duration=5))
        assert sizes == [1, 2, 4, 8, 16, 20, 20]

    @pytest.mark.parametrize("odd", range(16))
    def test_that_fails_is_halved_until_the_one_at_fault_is_alone(self, odd):
        pace, waiting, calls = Pace(None, batch=16), list(range(16)), 0
        while waiting:
            batch = waiting[: pace.size()]
            calls += 1
            if odd in batch and len(batch) > 1:
                pace.narrow(len(batch))
                pace.learn([])
                continue
            pace.learn(handled(len(batch), error=ValueError() if odd in batch else None))
            del waiting[: len(batch)]
        assert calls <= 13

    def test_that_fails_again_and_again_stays_small(self):
        pace = Pace(None, batch=16)
        pace.narrow(2)
        for _ in range(5):
            pace.learn(handled(error=ValueError()))
            assert pace.size() == 1
