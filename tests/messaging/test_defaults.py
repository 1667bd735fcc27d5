"""What is declared without policies gets the defaults that the page of semantics promises."""

import pytest

from messaging import consumer, declare_queue, declare_topic
from messaging.models import Queue, Topic
from messaging.options import POLICIES
from messaging.sync import synchronise

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare", "declared")]

DAY = 86_400
QUEUE = {
    "max_deliveries": 5,
    "backoff": "exponential",
    "backoff_base": 10,
    "backoff_cap": 600,
    "backoff_delays": [],
    "jitter": "full",
    "deduplication_window": 300,
    "content_based_deduplication": False,
    "retention": 7 * DAY,
    "message_ttl": None,
    "dead_letter_expired": False,
    "visibility_timeout": 30,
    "max_length": None,
    "overflow": "reject",
    "rate_limit": None,
    "key_rate_limit": None,
    "concurrency_limit": None,
    "single_active_consumer": False,
    "weight": 1,
    "on_failure": "block",
}
TOPIC = {
    "deduplication_window": 300,
    "content_based_deduplication": False,
    "retention": 7 * DAY,
}


def test_a_queue_has_the_defaults_of_the_page():
    declare_queue("invoices")
    consumer("payments")(lambda message: None)
    synchronise()
    for name in ("invoices", "payments"):
        queue = Queue.objects.get(name=name)
        assert {policy: getattr(queue, policy) for policy in QUEUE} == QUEUE
        assert queue.dead_letter_queue.name == f"{name}.dlq"
        assert not (queue.is_paused or queue.is_disabled)
    assert QUEUE.keys() == POLICIES


def test_a_topic_has_the_defaults_of_the_page():
    declare_topic("orders.placed")
    synchronise()
    topic = Topic.objects.get()
    assert {policy: getattr(topic, policy) for policy in TOPIC} == TOPIC
