"""Expired messages of queues that nobody serves are found all the same."""

import pytest
from django.db import connection, transaction
from effects import execute, waiting
from rows import sign_of_life

from messaging import receive, send, send_many
from messaging.expiring import Expiry
from messaging.models import DeadLetter, Delivery, Message, Stat
from messaging.store import lanes
from messaging.testing import drain

pytestmark = pytest.mark.django_db


@pytest.fixture
def invoices(bare, queue):
    return queue(dead_letter_expired=True)


def let_expire():
    execute("UPDATE messaging_delivery SET expires_at = statement_timestamp()")
    execute("UPDATE messaging_laneentry SET expires_at = statement_timestamp()")


def settle():
    return Expiry(None).settle()


def test_it_becomes_a_dead_letter_that_says_since_when_nobody_was_there(invoices):
    sent = send("invoices", {"n": 1}, expires_in=60)
    let_expire()
    assert settle() == 1
    dead = DeadLetter.objects.get()
    assert (dead.message_id, dead.reason, dead.attempts) == (sent, "no_consumer", 0)
    assert "No worker serves queue 'invoices' (none was seen since 20" in dead.description
    assert waiting() == {"dead": 1}


def test_the_last_sign_of_life_is_told(invoices):
    worker = sign_of_life("invoices", seconds_ago=100)
    send("invoices", 1)
    let_expire()
    settle()
    assert f"last sign of life was at {worker.seen_at:%Y-%m-%d %H:%M}" in (
        DeadLetter.objects.get().description
    )


def test_where_expired_messages_are_not_kept_it_is_counted_and_gone(bare, queue):
    queue()
    send("invoices", 1)
    let_expire()
    assert settle() == 1
    assert waiting() == {}
    assert sum(Stat.objects.values_list("expired", flat=True)) == 1


def test_without_retention_it_leaves_the_log_too(bare, queue):
    queue(retention=0)
    send("invoices", 1)
    let_expire()
    settle()
    assert not Message.objects.exists()


def test_what_has_not_expired_stays(invoices):
    send_many("invoices", [1, 2], expires_in=60)
    send("invoices", 3)
    assert settle() == 0
    assert waiting() == {"ready": 3}


def test_where_a_worker_lives_the_worker_finds_it(invoices):
    sign_of_life("invoices")
    send("invoices", 1)
    let_expire()
    assert settle() == 0


def test_where_somebody_holds_messages_it_is_left_to_him(invoices):
    send("invoices", 1)
    receive("invoices")
    send("invoices", 2)
    let_expire()
    assert settle() == 0


def test_all_priorities_are_looked_at(invoices):
    for priority in (-5, 0, 5):
        send("invoices", 1, priority=priority)
    let_expire()
    assert settle() == 3


def test_it_looks_at_a_bounded_part_and_goes_on_from_there(invoices, monkeypatch):
    monkeypatch.setattr("messaging.expiring.LOOK", 2)
    send_many("invoices", range(5))
    send_many("invoices", ["late"])
    execute(
        "UPDATE messaging_delivery SET expires_at = statement_timestamp()"
        " WHERE id = (SELECT max(id) FROM messaging_delivery)"
    )
    expiry = Expiry(None)
    assert [expiry.settle() for _ in range(3)] == [0, 0, 1]
    let_expire()
    # The first look ends behind the last message, and the next one begins anew.
    assert [expiry.settle() for _ in range(4)] == [0, 2, 2, 1]


def test_a_message_with_a_key_expires_and_its_key_goes_on(declare):
    seen = []
    declare(lambda message: seen.append(message.body), dead_letter_expired=True)
    for body in (1, 2):
        send("invoices", body, ordering_key="k")
    lanes.join_now(connection)
    execute(
        "UPDATE messaging_laneentry SET expires_at = statement_timestamp()"
        " WHERE id = (SELECT min(id) FROM messaging_laneentry)"
    )
    assert settle() == 1
    drain("invoices")
    assert seen == [2]
    assert DeadLetter.objects.get().reason == "no_consumer"


@pytest.mark.django_db(transaction=True)
def test_what_a_worker_has_taken_at_this_moment_is_left_to_it(elsewhere, until):
    from messaging.models import Queue

    row, _ = Queue.objects.update_or_create(name="invoices", defaults={"dead_letter_expired": True})
    send_many("invoices", [1, 2])
    let_expire()
    with transaction.atomic():
        first = Delivery.objects.select_for_update().filter(queue=row).order_by("id")[:1].get()
        assert elsewhere(settle).result(20) == 1
        assert Delivery.objects.get().pk == first.pk
    assert settle() == 1
    assert DeadLetter.objects.filter(reason="no_consumer").count() == 2
