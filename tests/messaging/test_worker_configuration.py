"""Configuration: which queues a worker serves, and what their rows say now."""

import pytest
from effects import execute

from messaging import consumer
from messaging.exceptions import UnknownQueue
from messaging.models import Queue
from messaging.testing import drain
from messaging.worker.configuration import Configuration, consumers_for

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _three_consumers(declared):
    for name in ("a", "b", "c"):
        consumer(name)(lambda message: None)
    drain()


def queues(consumers):
    return [each.queue for each in consumers]


@pytest.fixture
def configuration():
    return Configuration(consumers_for(["a", "b"]), None)


def test_without_names_a_worker_serves_every_consumer():
    assert queues(consumers_for([])) == ["a", "b", "c"]


def test_with_names_it_serves_those_in_that_order_and_once_each():
    assert queues(consumers_for(["c", "a", "c"])) == ["c", "a"]


def test_a_queue_without_consumer_is_refused():
    Queue.objects.create(name="nobody")
    with pytest.raises(UnknownQueue, match=r"Unknown queue 'nobody'\. Declared queues: a, b, c\."):
        consumers_for(["a", "nobody"])


def test_policies_are_what_the_rows_say(configuration):
    Queue.objects.filter(name="a").update(
        max_deliveries=7, backoff="list", backoff_delays=[1, 2], jitter="none", backoff_cap=5
    )
    configuration.refresh()
    policy = configuration.policy("a")
    assert (policy.id, policy.name) == (Queue.objects.get(name="a").pk, "a")
    assert (policy.max_deliveries, policy.backoff, policy.backoff_delays) == (7, "list", (1, 2))
    assert (policy.jitter, policy.backoff_cap, policy.paused) == ("none", 5, False)


def test_a_pause_and_a_removed_queue_show_with_the_next_refresh(configuration):
    configuration.refresh()
    execute("UPDATE messaging_queue SET paused_at = statement_timestamp() WHERE name = 'a'")
    Queue.objects.filter(name="b").delete()
    assert not configuration.policy("a").paused
    configuration.refresh()
    assert configuration.policy("a").paused
    assert configuration.policy("b") is None


def test_only_the_queues_served_are_read(configuration):
    configuration.refresh()
    assert configuration.policy("c") is None


def test_it_is_expired_until_it_is_read_again(configuration):
    configuration.expire()
    assert configuration.is_expired
    configuration.refresh()
    assert not configuration.is_expired
