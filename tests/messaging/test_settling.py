"""Settle: what is held is acknowledged, released, rejected or extended, once and in time."""

import datetime

import pytest
from django.db import transaction
from effects import effects, execute, failures, let_leases_end, make_due, take_effect, waiting

from messaging import (
    InvalidOption,
    LeaseLost,
    NotSupported,
    acknowledge_many,
    extend_many,
    receive,
    reject_many,
    release_many,
    send,
    send_many,
    signals,
)
from messaging.models import Attempt, DeadLetter, Lease, Message
from messaging.testing import drain


@pytest.fixture
def received(queue):
    """Return a function that sends as many messages as asked for and receives them."""
    queue(backoff_base=0)

    def receive_all(number=1, **options):
        send_many("invoices", range(number))
        return receive("invoices", limit=number, **options)

    return receive_all


@pytest.fixture
def reported():
    """Return what observers were told: the name of the signal and the message."""
    told = []
    names = ("message_handled", "message_failed", "message_dead_lettered")
    receivers = {
        name: lambda sender, name=name, **facts: told.append((name, facts["message"]))
        for name in names
    }
    for name, receiver in receivers.items():
        getattr(signals, name).connect(receiver)
    yield told
    for name, receiver in receivers.items():
        getattr(signals, name).disconnect(receiver)


@pytest.mark.django_db
class TestAcknowledging:
    def test_an_acknowledged_message_is_gone(self, received):
        (message,) = received()
        message.acknowledge()
        assert waiting() == {}
        assert receive("invoices") == []

    def test_the_effects_and_the_acknowledgement_commit_together(self, received):
        (message,) = received()
        with transaction.atomic():
            take_effect("paid")
            message.acknowledge()
        assert (effects(), waiting()) == (["paid"], {})

    def test_the_effects_and_the_acknowledgement_roll_back_together(self, received):
        (message,) = received()
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            take_effect("paid")
            message.acknowledge()
            raise ZeroDivisionError
        assert (effects(), waiting()) == ([], {"leased": 1})
        message.acknowledge()
        assert waiting() == {}

    def test_an_acknowledgement_that_is_late_rolls_the_effects_back(self, received):
        (message,) = received()
        let_leases_end()
        with pytest.raises(LeaseLost), transaction.atomic():
            take_effect("paid")
            message.acknowledge()
        assert effects() == []
        receive("invoices")[0].acknowledge()
        assert waiting() == {}

    def test_a_message_of_a_queue_without_retention_is_gone_from_the_log(self, queue):
        queue(retention=0)
        sent = send("invoices", 1)
        receive("invoices")[0].acknowledge()
        assert not Message.objects.filter(pk=sent).exists()

    def test_what_was_received_is_counted_as_handled(self, received):
        for message in received(3):
            message.acknowledge()
        assert execute("SELECT sum(acknowledged) FROM messaging_stat") == [(3,)]


@pytest.mark.django_db
class TestReleasing:
    def test_a_released_message_comes_again_at_once_and_it_does_not_count(self, received):
        (message,) = received()
        message.release()
        (again,) = receive("invoices")
        assert (again.id, again.attempt) == (message.id, 1)
        assert again.delivery.token > message.delivery.token
        assert failures() == []

    def test_a_released_message_keeps_its_place(self, received):
        messages = received(3)
        messages[1].release()
        messages[0].release()
        assert [m.body for m in receive("invoices", limit=3)] == [0, 1]

    @pytest.mark.parametrize("after", [60, datetime.timedelta(minutes=1)])
    def test_a_message_released_for_later_comes_later_and_it_does_not_count(self, received, after):
        (message,) = received()
        message.release(after=after)
        assert waiting() == {"scheduled": 1}
        assert receive("invoices") == []
        make_due()
        assert receive("invoices")[0].attempt == 1
        assert execute("SELECT count(*) FROM messaging_stat WHERE failed > 0") == [(0,)]

    @pytest.mark.parametrize("after", [-1, float("nan"), "60", 10**10], ids=repr)
    def test_a_wait_out_of_range_is_refused_with_the_range(self, received, after):
        (message,) = received()
        with pytest.raises(InvalidOption, match=r"after=.*: use 0 to 3,162,240,000 seconds"):
            message.release(after=after)
        assert waiting() == {"leased": 1}


@pytest.mark.django_db
class TestRejecting:
    def test_a_rejected_message_is_dead_at_once_with_the_reason_given(self, received):
        (message,) = received()
        message.reject("No such order.")
        dead = DeadLetter.objects.get()
        assert (dead.message_id, dead.reason, dead.attempts) == (message.id, "rejected", 1)
        assert dead.description == "No such order."
        assert Attempt.objects.get().outcome == "rejected"
        assert waiting() == {"dead": 1}


@pytest.mark.django_db
class TestExtending:
    def test_an_extended_lease_lasts_so_many_seconds_from_now(self, received):
        (message,) = received(lease=10)
        message.extend(600)
        assert 590 < remaining() <= 600
        message.extend(datetime.timedelta(seconds=20))
        assert 10 < remaining() <= 20

    @pytest.mark.parametrize("seconds", [0, -1, 43_200.5, float("nan"), None, "60", True], ids=repr)
    def test_an_extension_out_of_range_is_refused_with_the_range(self, received, seconds):
        (message,) = received(lease=10)
        with pytest.raises(InvalidOption, match=r"seconds=.*: use more than 0 to 43,200 seconds"):
            message.extend(seconds)
        with pytest.raises(InvalidOption):
            extend_many([message], seconds)
        assert remaining() <= 10


def remaining():
    """Return for how many seconds the only lease lasts."""
    sql = "SELECT extract(epoch FROM leased_until - statement_timestamp()) FROM messaging_lease"
    return float(execute(sql)[0][0])


SETTLEMENTS = {
    "acknowledged": lambda message: message.acknowledge(),
    "released": lambda message: message.release(),
    "rejected": lambda message: message.reject(),
    "extended": lambda message: message.extend(60),
}


@pytest.mark.django_db
class TestSettlingTwice:
    @pytest.mark.parametrize("first", ["acknowledged", "released", "rejected"])
    @pytest.mark.parametrize("second", SETTLEMENTS)
    def test_the_first_wins_and_the_second_changes_nothing(self, received, first, second):
        (message,) = received()
        SETTLEMENTS[first](message)
        before = (waiting(), failures())
        with pytest.raises(LeaseLost, match=f"Message {message.id} cannot be {second}"):
            SETTLEMENTS[second](message)
        assert (waiting(), failures()) == before

    @pytest.mark.parametrize("settlement", SETTLEMENTS)
    def test_a_foreign_or_forged_token_changes_nothing(self, received, settlement):
        (message,) = received()
        message.delivery = message.delivery._replace(token=message.delivery.token + 1)
        with pytest.raises(LeaseLost):
            SETTLEMENTS[settlement](message)
        assert waiting() == {"leased": 1}
        assert remaining() <= 30

    @pytest.mark.parametrize("settlement", SETTLEMENTS)
    def test_a_message_that_is_gone_cannot_be_settled(self, received, settlement):
        (message,) = received()
        Lease.objects.all().delete()
        with pytest.raises(LeaseLost):
            SETTLEMENTS[settlement](message)
        assert waiting() == {}

    @pytest.mark.parametrize("settlement", SETTLEMENTS)
    def test_a_message_that_is_not_leased_says_what_to_do(self, declare, settlement):
        errors = []

        def settle(message):
            try:
                SETTLEMENTS[settlement](message)
            except NotSupported as error:
                errors.append(str(error))

        declare(settle)
        send("invoices", 1)
        assert drain() == 1
        assert settlement in errors[0]
        assert "return from the handler to acknowledge it, raise Retry or Reject" in errors[0]


@pytest.mark.django_db
class TestSettlingMany:
    def test_many_are_acknowledged_with_a_result_for_each(self, received):
        messages = received(5)
        results = acknowledge_many(messages)
        assert [result.message for result in results] == messages
        assert [result.error for result in results] == [None] * 5
        assert waiting() == {}

    def test_one_that_was_lost_does_not_hurt_the_others(self, received):
        messages = received(5)
        messages[2].acknowledge()
        results = acknowledge_many(messages)
        assert [type(result.error) for result in results] == [
            type(None), type(None), LeaseLost, type(None), type(None),
        ]  # fmt: skip
        assert waiting() == {}

    def test_one_that_was_never_leased_does_not_hurt_the_others(self, received):
        messages = received(2)
        messages[0].lease = None
        first, second = reject_many(messages, "Both.")
        assert isinstance(first.error, NotSupported)
        assert second.error is None

    def test_the_same_message_twice_is_settled_once(self, received):
        (message,) = received()
        first, second = acknowledge_many([message, message])
        assert first.error is None
        assert isinstance(second.error, LeaseLost)

    def test_messages_of_several_queues_are_settled_together(self, queue):
        queue("emails")
        queue("invoices")
        for name in ("emails", "invoices", "emails"):
            send(name, name)
        messages = receive("emails", limit=2) + receive("invoices")
        assert all(result.error is None for result in acknowledge_many(messages))
        assert waiting() == {}

    def test_nothing_to_settle_gives_no_results(self, db):
        assert acknowledge_many([]) == release_many([]) == reject_many([]) == []
        assert extend_many([], 60) == []

    def test_many_are_released_rejected_and_extended(self, received):
        messages = received(4, lease=10)
        assert all(result.error is None for result in extend_many(messages[:2], 600))
        assert all(result.error is None for result in release_many(messages[2:3], after=60))
        assert all(result.error is None for result in reject_many(messages[3:], "No."))
        assert waiting() == {"leased": 2, "scheduled": 1, "dead": 1}
        sql = "SELECT min(leased_until) > statement_timestamp() + interval '590 seconds'"
        assert execute(f"{sql} FROM messaging_lease") == [(True,)]
        results = extend_many(messages, 600)
        assert [result.error is None for result in results] == [True, True, False, False]


@pytest.mark.django_db(transaction=True)
class TestSettlingAtOnce:
    def test_of_two_who_acknowledge_at_once_one_is_too_late(
        self, received, elsewhere, waiters, until
    ):
        (message,) = received()
        with transaction.atomic():
            message.acknowledge()
            other = elsewhere(message.acknowledge)
            until(lambda: waiters() == 1)
        with pytest.raises(LeaseLost):
            other.result(10)
        assert waiting() == {}

    def test_an_acknowledgement_whose_rival_rolls_back_is_in_time(
        self, received, elsewhere, waiters, until
    ):
        (message,) = received()
        with transaction.atomic():
            message.acknowledge()
            other = elsewhere(message.acknowledge)
            until(lambda: waiters() == 1)
            transaction.set_rollback(True)
        assert other.result(10) is None
        assert waiting() == {}

    def test_a_lease_that_is_being_acknowledged_does_not_end_by_itself(self, received, elsewhere):
        (message,) = received()
        with transaction.atomic():
            message.acknowledge()
            execute("SELECT 1")
            # For everybody else the row is still there, and its time may be over.
            assert elsewhere(drain).result(10) == 0
        assert waiting() == {}

    def test_observers_are_told_after_the_commit(self, received, reported):
        one, two, three = received(3)
        with transaction.atomic():
            one.acknowledge()
            two.reject("No.")
            three.release()
            assert reported == []
        assert reported == [("message_handled", one), ("message_dead_lettered", two)]

    @pytest.mark.usefixtures("way_past_a_pooler")
    def test_who_waits_is_woken_by_a_release(self, received, elsewhere, until, settings):
        settings.MESSAGING = {"POLL_INTERVAL": 30}
        (message,) = received()
        waits = elsewhere(receive, "invoices", wait=20)
        sql = "SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN messaging'"
        sql += " AND datname = current_database()"
        until(lambda: execute(sql) == [(1,)])
        message.release()
        assert len(waits.result(10)) == 1
