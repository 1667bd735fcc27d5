"""Causation: what a handler sends names the message that it was handling, and nothing else does."""

import pytest

from messaging import Retry, consumer, send, send_many
from messaging.models import Message
from messaging.testing import drain

pytestmark = pytest.mark.django_db


@pytest.fixture
def handle(declared, queue):
    """Return a function that has messages handled as given; mails are sent to another queue."""
    queue("mails")

    def run(function, *bodies, **options):
        consumer("invoices", **options)(function)
        drain("invoices")
        sent = send_many("invoices", bodies)
        drain("invoices")
        return sent

    return run


def causes():
    """Return the body and the cause of each mail."""
    mails = Message.objects.filter(queue__name="mails").order_by("id")
    return list(mails.values_list("body", "causation_id"))


@pytest.mark.parametrize("options", [{}, {"transaction_size": 10}, {"lease": 30}], ids=str)
def test_each_message_is_the_cause_of_what_its_own_handler_sends(handle, options):
    first, second = handle(lambda message: send("mails", message.body), 1, 2, **options)
    assert causes() == [(1, first), (2, second)]


def test_the_first_message_of_a_batch_is_the_cause_of_what_is_sent_for_all(handle):
    first, _ = handle(lambda messages: send("mails", len(messages)), 1, 2, batch=10)
    assert causes() == [(2, first)]


@pytest.mark.parametrize("error", [None, ValueError, Retry], ids=str)
def test_what_is_sent_after_a_handler_has_no_cause(handle, error):
    def end(message):
        if error is not None:
            raise error

    handle(end, 1)
    send("mails", "by the caller of drain")
    assert causes() == [("by the caller of drain", None)]


@pytest.mark.django_db(transaction=True)
def test_what_another_thread_sends_meanwhile_has_no_cause(handle, elsewhere):
    def send_beside(message):
        elsewhere(send, "mails", "from another thread").result(10)

    handle(send_beside, 1)
    assert causes() == [("from another thread", None)]
