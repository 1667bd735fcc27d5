"""What the tests of webhooks start from: a receiver on this machine, a queue that leads there."""

from collections.abc import Callable
from typing import Any

import pytest
from receiver import SECRET, Receiver

from messaging.models import Queue, Webhook
from messaging.webhooks.serving import Endpoints
from messaging.worker.configuration import Configuration
from messaging.worker.runner import Runner


@pytest.fixture
def messaging(settings: Any) -> Callable[..., None]:
    """Return a function that sets the app's settings."""

    def use(**values: Any) -> None:
        settings.MESSAGING = {
            "WEBHOOK_SECRETS": {"partner": SECRET},
            "WEBHOOK_ALLOWED_HOSTS": ["127.0.0.0/8"],
            **values,
        }

    use()
    return use


@pytest.fixture
def webhook(db: None, declared: object, messaging: object, receiver: Receiver) -> Webhook:
    """Return the webhook of the queue ``hooks``, which retries at once."""
    queue = Queue.objects.create(
        name="hooks", max_deliveries=3, backoff="fixed", backoff_base=0, jitter="none"
    )
    return Webhook.objects.create(name="partner", queue=queue, url=receiver.url(), secret="partner")


@pytest.fixture
def runner(db: None) -> Callable[[], Runner]:
    """Return a function that makes a runner of the webhooks as their rows are now."""

    def make() -> Runner:
        configuration = Configuration([], None, Endpoints())
        configuration.refresh()
        return Runner([], configuration, name="runner", drain=True, finds=True)

    return make


@pytest.fixture
def deliver(runner: Callable[[], Runner]) -> Callable[[], int]:
    """Return a function that serves the webhooks once, as a worker does that drains."""
    return lambda: runner().run_round().settled
