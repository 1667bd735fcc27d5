"""Dead letters keep their payload until they are redriven or discarded, each of them once."""

import pytest
from django.db import connection
from django.utils import timezone

from messaging import send
from messaging.models import Attempt, DeadLetter, Delivery, Message
from messaging.store import deadletters, redriving

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]


@pytest.fixture
def bury(queue):
    """Return a function that makes a dead letter of a message which failed twice."""
    invoices = queue()

    def buried(message_id=None, **fields):
        if message_id is None:
            message_id = send("invoices", {"n": 1}, priority=3)
            Delivery.objects.all().delete()
        for attempt in (1, 2):
            Attempt.objects.create(
                message_id=message_id, queue=invoices, attempt=attempt, duration=0, worker=""
            )
        values = {"body": {"n": 1}, "headers": {"a": "b"}, "priority": 3, **fields}
        return DeadLetter.objects.create(
            message_id=message_id,
            queue=invoices,
            origin=invoices,
            published_at=timezone.now(),
            attempts=2,
            **values,
        )

    return buried


class TestRedriving:
    def test_a_dead_letter_waits_again_as_the_same_message_counted_from_1(self, bury):
        dead = bury()
        ((queue_id, priority, first, number),) = redriving.redrive(connection, [dead.pk])
        delivery = Delivery.objects.get()
        assert (queue_id, priority, first, number) == (dead.origin_id, 3, delivery.pk, 1)
        assert (delivery.message_id, delivery.attempt) == (dead.message_id, 1)
        assert not DeadLetter.objects.exists()
        assert Attempt.objects.count() == 2

    def test_doing_it_twice_moves_it_once(self, bury):
        dead = bury()
        redriving.redrive(connection, [dead.pk, dead.pk])
        assert redriving.redrive(connection, [dead.pk]) == []
        assert Delivery.objects.count() == 1

    def test_a_message_that_the_log_no_longer_holds_is_put_back_under_its_id(self, bury):
        dead = bury()
        Message.objects.all().delete()
        redriving.redrive(connection, [dead.pk])
        message = Message.objects.get()
        assert (message.pk, message.body, message.headers) == (
            dead.message_id,
            {"n": 1},
            {"a": "b"},
        )
        assert (message.queue_id, message.published_at) == (dead.origin_id, dead.published_at)

    def test_two_dead_letters_of_one_message_put_it_back_once(self, bury):
        first = bury()
        second = bury(first.message_id)
        Message.objects.all().delete()
        redriving.redrive(connection, [first.pk, second.pk])
        assert (Message.objects.count(), Delivery.objects.count()) == (1, 2)


class TestDiscarding:
    def test_a_discarded_one_is_gone_and_told_once(self, bury):
        dead, other = bury(), bury()
        assert deadletters.discard(connection, [dead.pk]) == [dead.pk]
        assert deadletters.discard(connection, [dead.pk]) == []
        assert DeadLetter.objects.get() == other
        assert not Delivery.objects.exists()

    def test_its_failed_attempts_go_when_nothing_else_tells_of_the_message(self, bury):
        in_log, twice = bury(), bury()
        again = bury(twice.message_id)
        alone = bury()
        Message.objects.exclude(pk=in_log.message_id).delete()
        deadletters.discard(connection, [in_log.pk, twice.pk, alone.pk])
        told = set(Attempt.objects.values_list("message_id", flat=True))
        assert told == {in_log.message_id, twice.message_id}
        deadletters.discard(connection, [again.pk])
        assert set(Attempt.objects.values_list("message_id", flat=True)) == {in_log.message_id}
