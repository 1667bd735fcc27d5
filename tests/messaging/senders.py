"""Senders: the ways to send that tests compare, all to the queue of the fixture `invoices`."""

from typing import Any

import pytest

from messaging import publish, send, send_many


def to_queue(body: Any = "x", **options: Any) -> Any:
    """Send to the queue itself."""
    return send("invoices", body, **options)


def to_topic(body: Any = "x", **options: Any) -> Any:
    """Publish to the topic to which the queue is subscribed."""
    return publish("orders.placed", body, **options)


def hundreds_to_queue(body: Any, **options: Any) -> Any:
    """Send so many that they are copied into the tables; return the first id."""
    return send_many("invoices", [body] * 600, **options)[0]


ONE = pytest.mark.parametrize("sender", [to_queue, to_topic])
