"""The statements of leases, where sessions meet: whoever deletes the row decides."""

import pytest
from django.db import connection, transaction
from effects import execute, let_leases_end, waiting

from messaging import leasing, receive, send, send_many
from messaging.engines import engine
from messaging.store import leases

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def held(queue):
    """Return a function that receives so many messages and returns their deliveries."""
    queue(backoff_base=0)

    def receive_all(number):
        send_many("invoices", range(number))
        return [message.delivery for message in receive("invoices", limit=number)]

    return receive_all


def test_a_sweep_leaves_a_lease_that_is_being_settled(held, elsewhere):
    first, second = held(2)
    with transaction.atomic():
        assert leases.end(connection, [first])
        elsewhere(lambda: execute("UPDATE messaging_lease SET leased_until = leased_at"
                                  " WHERE id = %s", second.id)).result(10)  # fmt: skip
        assert elsewhere(leasing.sweep_expired).result(10) == 1
    assert waiting() == {"scheduled": 1}


def test_two_sweeps_count_a_lease_once(held, elsewhere):
    held(10)
    let_leases_end()
    counted = [elsewhere(leasing.sweep_expired) for _ in range(4)]
    assert sum(each.result(10) for each in counted) == 10
    assert execute("SELECT count(*) FROM messaging_attempt") == [(10,)]
    assert waiting() == {"scheduled": 10}


def test_a_sweep_takes_nothing_that_lasts(held):
    held(2)
    assert leasing.sweep_expired() == 0
    assert waiting() == {"leased": 2}


def test_a_lease_that_is_extended_while_a_sweep_wants_it_lasts(held, elsewhere):
    (delivered,) = held(1)
    with transaction.atomic():
        assert leases.extend(connection, [(delivered, 60)])
        assert elsewhere(leasing.sweep_expired).result(10) == 0
    assert leases.is_held(connection, delivered)


def test_sessions_that_end_the_same_leases_in_any_order_do_not_block_each_other(held, elsewhere):
    delivered = held(50)
    ends = [
        elsewhere(lambda order=order: len(leases.end(connection, order)))
        for order in (delivered, delivered[::-1], delivered[25:] + delivered[:25])
    ]
    assert sum(end.result(10) for end in ends) == 50


def test_a_death_is_counted_once_by_the_slot_and_by_the_name(held):
    (delivered,) = held(1)
    taken, is_locked = engine().take_lost(delivered, None)
    assert (taken.message_id, is_locked) == (delivered.message_id, False)
    assert engine().take_lost(delivered, None) == (None, False)
    assert leasing.count_deaths([leasing.holder()], "exit code 3") == 0


def test_what_a_dead_worker_was_running_counts_and_what_it_was_not_does_not(held):
    first, second = held(2)
    leases.pass_to(connection, second, leasing.waiting(leasing.holder()))
    assert leasing.count_deaths([leasing.holder()], "exit code 3") == 1
    assert execute("SELECT message_id, error FROM messaging_attempt") == [
        (first.message_id, "WorkerDied")
    ]
    assert waiting() == {"scheduled": 1, "ready": 1}


def test_a_lost_lease_that_is_locked_is_said_to_be(held, elsewhere):
    (delivered,) = held(1)
    with transaction.atomic():
        leases.end(connection, [delivered])
        assert elsewhere(lambda: engine().take_lost(delivered, None)).result(10) == (None, True)


def test_only_the_leases_of_the_worker_named_are_released(held):
    held(2)
    execute("UPDATE messaging_lease SET worker = 'other/1' WHERE id = (SELECT min(id) FROM"
            " messaging_lease)")  # fmt: skip
    assert leasing.release_all([leasing.holder()]) == 1
    assert waiting() == {"ready": 1, "leased": 1}
    assert send("invoices", 1)
