"""The wait before the next delivery follows the queue's back-off, cap and jitter."""

import statistics

import pytest

from messaging.policies import QueuePolicy


def waits(count=7, **policies):
    policy = QueuePolicy(id=1, name="invoices", **{"jitter": "none", **policies})
    return [policy.wait_after(attempt) for attempt in range(1, count + 1)]


@pytest.mark.parametrize(
    ("policies", "seconds"),
    [
        ({}, [10, 20, 40, 80, 160, 320, 600]),
        ({"backoff_base": 1, "backoff_cap": 5}, [1, 2, 4, 5, 5, 5, 5]),
        ({"backoff": "fixed"}, [10] * 7),
        ({"backoff": "fixed", "backoff_base": 0}, [0] * 7),
        ({"backoff": "fixed", "backoff_cap": 3}, [3] * 7),
        ({"backoff": "linear"}, [10, 20, 30, 40, 50, 60, 70]),
        ({"backoff": "linear", "backoff_cap": 25}, [10, 20, 25, 25, 25, 25, 25]),
        ({"backoff": "list", "backoff_delays": (1, 10, 60)}, [1, 10, 60, 60, 60, 60, 60]),
        ({"backoff": "list", "backoff_delays": (1, 900)}, [1, 600, 600, 600, 600, 600, 600]),
        ({"backoff": "list", "backoff_delays": (), "backoff_base": 4}, [4] * 7),
    ],
)
def test_the_wait_grows_as_the_policy_says(policies, seconds):
    assert waits(**policies) == seconds


def test_thousands_of_deliveries_do_not_overflow():
    assert waits(5000)[-1] == 600


def test_full_jitter_spreads_the_waits_between_nothing_and_the_delay():
    policy = QueuePolicy(id=1, name="invoices", backoff="fixed", backoff_base=100)
    drawn = [policy.wait_after(1) for _ in range(2000)]
    assert all(0 <= wait <= 100 for wait in drawn)
    assert 40 < statistics.mean(drawn) < 60
    assert min(drawn) < 5
    assert max(drawn) > 95
