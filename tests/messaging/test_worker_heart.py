"""The heart keeps leases while handlers are at work, and never revives one that has ended."""

import pytest
from django.db import connection, transaction
from effects import execute, let_leases_end

from messaging import receive, send_many
from messaging.store import leases
from messaging.worker.heart import Heart

pytestmark = pytest.mark.django_db(transaction=True)
LATER = "SELECT bool_and(leased_until > leased_at + interval '1.2 seconds') FROM messaging_lease"


@pytest.fixture
def heart():
    heart = Heart(None, "worker")
    heart.start()
    yield heart
    heart.stop()
    heart.join(10)


@pytest.fixture
def held(queue):
    """Return a function that receives so many messages under leases of a second."""
    queue()

    def receive_all(number):
        send_many("invoices", range(number))
        return [message.delivery for message in receive("invoices", limit=number, lease=1)]

    return receive_all


def test_leases_are_kept_until_they_are_let_go(heart, held, until):
    first, second = held(2)
    with heart.beating(first, 1):
        heart.hold(second, 1)
        until(lambda: execute(LATER) == [(True,)])
    heart.let_go(second)
    until(lambda: execute("SELECT bool_and(leased_until < statement_timestamp()) FROM"
                          " messaging_lease") == [(True,)])  # fmt: skip


def test_a_lease_that_has_ended_is_not_revived(held):
    (delivered,) = held(1)
    let_leases_end()
    assert leases.beat(connection, [(delivered, 60)]) == set()
    assert leases.extend(connection, [(delivered, 60)]) == set()
    assert not leases.is_held(connection, delivered)


def test_a_beat_does_not_shorten_what_the_handler_asked_for(held):
    (delivered,) = held(1)
    leases.extend(connection, [(delivered, 600)])
    leases.beat(connection, [(delivered, 1)])
    longer = "SELECT leased_until > statement_timestamp() + interval '500 seconds'"
    assert execute(f"{longer} FROM messaging_lease") == [(True,)]


def test_a_beat_waits_for_nobody(held, elsewhere):
    first, second = held(2)
    with transaction.atomic():
        leases.end(connection, [first])
        beaten = elsewhere(lambda: leases.beat(connection, [(first, 60), (second, 60)])).result(5)
    assert beaten == {second.token}


def test_a_lost_connection_costs_a_reconnect(heart, held, until):
    ((before,),) = execute("SELECT clock_timestamp()")
    (delivered,) = held(1)
    heart.hold(delivered, 1)
    until(lambda: execute(LATER) == [(True,)])
    execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_start > %s",
        before,
    )
    much_later = LATER.replace("1.2", "2.5")
    until(lambda: execute(much_later) == [(True,)])
