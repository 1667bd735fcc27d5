"""Receive: messages are pulled under a lease, by whom, when, and for how long."""

import asyncio
import datetime
import threading
import time

import pytest
from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connection, transaction
from effects import execute, failures, let_leases_end, make_due, waiting

from messaging import (
    InvalidOption,
    LeaseLost,
    NotSupported,
    UnknownQueue,
    acknowledge_many,
    areceive,
    asend,
    receive,
    send,
    send_many,
)
from messaging.exceptions import InvalidName
from messaging.models import DeadLetter, Queue
from messaging.receiving import Reception
from messaging.store import lanes


def leased_for():
    """Return for how many seconds from now each message is held."""
    return [
        float(seconds)
        for (seconds,) in execute(
            "SELECT extract(epoch FROM leased_until - statement_timestamp())"
            " FROM messaging_lease ORDER BY id"
        )
    ]


def join():
    """Give what was sent with a key its place, as the commit would."""
    lanes.join_now(connection)


def listeners():
    """Return how many sessions wait for notifications."""
    return execute(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND query = 'LISTEN messaging'"
    )[0][0]


async def until_listening(number):
    """Wait until so many sessions wait for notifications."""
    async with asyncio.timeout(15):
        while await sync_to_async(listeners)() < number:
            await asyncio.sleep(0.01)


@pytest.mark.django_db
class TestReceiving:
    def test_a_received_message_is_held_and_comes_to_nobody_else(self, queue):
        queue()
        sent = send("invoices", {"total": 5})
        (message,) = receive("invoices")
        assert (message.id, message.body, message.attempt) == (sent, {"total": 5}, 1)
        assert receive("invoices") == []
        assert waiting() == {"leased": 1}

    def test_as_many_come_as_were_asked_for_in_order(self, queue):
        queue()
        send_many("invoices", range(5))
        assert [m.body for m in receive("invoices", limit=3)] == [0, 1, 2]
        assert [m.body for m in receive("invoices", limit=1000)] == [3, 4]

    def test_an_empty_queue_gives_nothing(self, queue):
        queue()
        assert receive("invoices") == []

    def test_the_lease_is_the_queues_unless_given(self, queue):
        queue(visibility_timeout=100)
        send_many("invoices", range(3))
        receive("invoices")
        receive("invoices", lease=50)
        receive("invoices", lease=datetime.timedelta(hours=12))
        assert leased_for() == pytest.approx([100, 50, 43_200], abs=5)

    def test_a_lease_of_no_time_is_over_at_once(self, queue):
        queue(backoff_base=0)
        send("invoices", 1)
        (message,) = receive("invoices", lease=0)
        with pytest.raises(LeaseLost):
            message.acknowledge()
        assert receive("invoices")[0].attempt == 2

    def test_the_token_rises_with_each_lease_of_a_message(self, queue):
        queue()
        send("invoices", 1)
        tokens = []
        for _ in range(3):
            (message,) = receive("invoices")
            tokens.append(message.delivery.token)
            message.release()
        assert tokens == sorted(set(tokens))

    def test_a_paused_queue_gives_nothing(self, queue):
        paused = queue()
        send("invoices", 1)
        Queue.objects.update(paused_at=datetime.datetime.now(datetime.UTC))
        assert receive("invoices") == []
        Queue.objects.filter(pk=paused.pk).update(paused_at=None)
        assert len(receive("invoices")) == 1

    def test_what_has_become_due_comes_without_any_worker(self, queue):
        queue()
        send("invoices", 1, delay=60)
        assert receive("invoices") == []
        make_due()
        assert len(receive("invoices")) == 1

    def test_an_expired_message_is_never_received(self, queue):
        queue(dead_letter_expired=True)
        send_many("invoices", [1, 2])
        execute(
            "UPDATE messaging_delivery SET expires_at = statement_timestamp()"
            " WHERE id = (SELECT min(id) FROM messaging_delivery)"
        )
        assert [m.body for m in receive("invoices")] == [2]
        assert DeadLetter.objects.get().reason == "expired"

    def test_an_undecodable_message_dies_alone_and_the_next_one_comes(self, queue):
        queue()
        send_many("invoices", [1, 2, 3])
        execute(
            "UPDATE messaging_message SET body = to_jsonb(('1' || repeat('0', 5000))::numeric)"
            " WHERE body = '1'"
        )
        assert [m.body for m in receive("invoices")] == [2]
        assert [m.body for m in receive("invoices", limit=10)] == [3]
        assert DeadLetter.objects.values_list("reason", flat=True).get() == "undecodable"

    def test_of_an_ordering_key_one_message_is_out_at_a_time(self, queue):
        queue()
        send_many("invoices", [1, 2, 3], ordering_key="customer-1")
        send_many("invoices", [4, 5], ordering_key="customer-2")
        join()
        first = receive("invoices", limit=10)
        assert [m.body for m in first] == [1, 4]
        assert receive("invoices", limit=10) == []
        first[0].acknowledge()
        assert [m.body for m in receive("invoices", limit=10)] == [2]
        first[1].acknowledge()
        assert [m.body for m in receive("invoices", limit=10)] == [5]

    def test_a_released_message_of_an_ordering_key_comes_before_its_successors(self, queue):
        queue()
        send_many("invoices", [1, 2], ordering_key="customer-1")
        join()
        (message,) = receive("invoices")
        message.release()
        (again,) = receive("invoices", limit=10)
        assert (again.body, again.attempt) == (1, 1)

    def test_messages_of_one_fairness_key_settled_together_keep_it_going(self, queue):
        queue()
        for body in range(12):
            send("invoices", body, fairness_key="customer-1")
        join()
        seen = []
        while messages := [m for _ in range(4) for m in receive("invoices")]:
            seen.append([m.body for m in messages])
            assert all(result.error is None for result in acknowledge_many(messages))
            # What was out of the lane together comes back as often.
            assert execute(
                "SELECT coalesce(sum(tokens), 0) = (SELECT count(*) FROM messaging_delivery)"
                " + (SELECT count(*) FROM messaging_scheduled) FROM messaging_lane"
            ) == [(True,)]
        seen = [body for bodies in seen for body in bodies]
        assert sorted(seen) == list(range(12))
        assert waiting() == {}
        assert execute("SELECT count(*) FROM messaging_lane") == [(0,)]


@pytest.mark.django_db(transaction=True)
class TestWaiting:
    @pytest.mark.usefixtures("way_past_a_pooler")
    def test_receive_waits_for_a_message_and_is_woken_by_it(
        self, queue, elsewhere, until, settings
    ):
        settings.MESSAGING = {"POLL_INTERVAL": 30}
        queue()
        receiving = elsewhere(receive, "invoices", wait=20)
        until(lambda: listeners() == 1)
        started = time.monotonic()
        send("invoices", 1)
        (message,) = receiving.result(10)
        assert message.body == 1
        assert time.monotonic() - started < 5

    def test_receive_polls_while_it_cannot_listen(self, queue, elsewhere, until, settings):
        settings.MESSAGING = {"POLL_INTERVAL": 0.1, "LISTEN_URL": "postgresql://127.0.0.1:1/none"}
        queue()
        receiving = elsewhere(receive, "invoices", wait=20)
        send("invoices", 1)
        assert len(receiving.result(10)) == 1

    def test_receive_returns_nothing_when_the_wait_is_over(self, queue):
        queue()
        started = time.monotonic()
        assert receive("invoices", wait=0.3) == []
        assert 0.3 <= time.monotonic() - started < 5

    @pytest.mark.usefixtures("way_past_a_pooler")
    def test_a_paused_queue_is_waited_for(self, queue, elsewhere, until):
        queue(paused_at=datetime.datetime.now(datetime.UTC))
        send("invoices", 1)
        receiving = elsewhere(receive, "invoices", wait=20)
        until(lambda: listeners() == 1)
        Queue.objects.update(paused_at=None)
        assert len(receiving.result(10)) == 1

    def test_a_message_that_becomes_due_is_waited_for(self, queue):
        queue()
        send("invoices", 1, delay=0.3)
        assert len(receive("invoices", wait=20)) == 1

    def test_a_lease_that_ends_is_waited_for(self, queue):
        queue(backoff_base=0)
        send("invoices", 1)
        receive("invoices", lease=0.3)
        (message,) = receive("invoices", wait=20)
        assert message.attempt == 2

    @pytest.mark.usefixtures("way_past_a_pooler")
    def test_no_message_goes_to_two_who_wait(self, queue, elsewhere, until):
        queue()
        receivers = [elsewhere(receive, "invoices", limit=5, wait=1) for _ in range(4)]
        until(lambda: listeners() == 4)
        send_many("invoices", range(10))
        got = [m.body for receiver in receivers for m in receiver.result(20)]
        assert len(got) == len(set(got))

    @pytest.mark.usefixtures("way_past_a_pooler")
    def test_no_transaction_stays_open_while_it_waits(self, queue, elsewhere, until):
        queue()
        receiving = elsewhere(receive, "invoices", wait=1)
        until(lambda: listeners() == 1)
        in_transactions = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state LIKE 'idle in transaction%%'"
        )
        until(lambda: execute(in_transactions) == [(0,)], seconds=0.5)
        assert receiving.result(10) == []


@pytest.mark.django_db(transaction=True)
class TestReceivingAsynchronously:
    async def test_areceive_takes_what_is_ready(self, queue):
        await sync_to_async(queue)()
        await asend("invoices", 1)
        (message,) = await areceive("invoices")
        await message.aacknowledge()
        assert await areceive("invoices") == []

    @pytest.mark.usefixtures("way_past_a_pooler")
    async def test_many_wait_in_one_event_loop_and_are_woken(self, queue, settings):
        settings.MESSAGING = {"POLL_INTERVAL": 30}
        await sync_to_async(queue)()
        receivers = [asyncio.ensure_future(areceive("invoices", wait=20)) for _ in range(20)]
        await until_listening(20)
        for body in range(20):
            await asend("invoices", body)
        found = await asyncio.wait_for(asyncio.gather(*receivers), 15)
        assert sorted(message.body for messages in found for message in messages) == list(range(20))

    async def test_areceive_that_is_cancelled_gives_back_what_it_found(self, queue, monkeypatch):
        await sync_to_async(queue)()
        await asend("invoices", 1)
        looking = threading.Event()
        go_on = threading.Event()
        look = Reception.look

        def slow_look(self, **options):
            found = look(self, **options)
            looking.set()
            go_on.wait(10)
            return found

        monkeypatch.setattr(Reception, "look", slow_look)
        receiver = asyncio.ensure_future(areceive("invoices"))
        await asyncio.to_thread(looking.wait, 10)
        receiver.cancel()
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await receiver
        monkeypatch.undo()
        (message,) = await areceive("invoices")
        assert message.attempt == 1

    async def test_receive_in_an_event_loop_is_refused(self, queue):
        await sync_to_async(queue)()
        with pytest.raises(SynchronousOnlyOperation):
            receive("invoices")


class TestRefusals:
    @pytest.mark.django_db(transaction=True)
    def test_receive_is_refused_in_a_transaction_that_could_undo_the_lease(self, queue):
        queue()
        send("invoices", 1)
        with transaction.atomic(), pytest.raises(NotSupported, match=r"inside a transaction"):
            receive("invoices")
        transaction.set_autocommit(False)
        try:
            with pytest.raises(NotSupported, match=r"inside a transaction"):
                receive("invoices")
        finally:
            transaction.rollback()
            transaction.set_autocommit(True)
        assert len(receive("invoices")) == 1

    def test_receive_is_refused_in_a_block_of_a_tests_own(self, queue):
        queue()
        with transaction.atomic(), pytest.raises(NotSupported, match=r"non_atomic_requests"):
            receive("invoices")

    def test_an_unknown_queue_is_named_with_a_suggestion(self, queue):
        queue()
        with pytest.raises(UnknownQueue, match=r"'invoice'\. Did you mean 'invoices'"):
            receive("invoice")
        with pytest.raises(InvalidName):
            receive("in voices")

    @pytest.mark.parametrize("limit", [0, -1, 1001, 1.5, "3", True, None], ids=repr)
    def test_a_limit_out_of_range_is_refused_with_the_range(self, queue, limit):
        queue()
        with pytest.raises(InvalidOption, match=r"limit=.*: use 1 to 1,000 messages"):
            receive("invoices", limit=limit)

    @pytest.mark.parametrize(
        "lease", [-1, 43_200.1, float("nan"), float("inf"), "30", True, datetime.timedelta(days=1)],
        ids=repr,
    )  # fmt: skip
    def test_a_lease_out_of_range_is_refused_with_the_range(self, queue, lease):
        queue()
        with pytest.raises(ValueError, match=r"lease=.*: use 0 to 43,200 seconds"):
            receive("invoices", lease=lease)

    @pytest.mark.parametrize("wait", [-1, 3601, float("nan"), "20", None], ids=repr)
    def test_a_wait_out_of_range_is_refused_with_the_range(self, queue, wait):
        queue()
        with pytest.raises(InvalidOption, match=r"wait=.*: use 0 to 3,600 seconds"):
            receive("invoices", wait=wait)


class TestLeasesThatEnd:
    def test_a_message_comes_again_when_its_lease_has_ended_and_that_counts(self, queue):
        queue(backoff_base=0)
        sent = send("invoices", 1)
        (late,) = receive("invoices")
        let_leases_end()
        (message,) = receive("invoices")
        assert (message.id, message.attempt) == (sent, 2)
        assert failures() == [(sent, "LeaseExpired")]
        with pytest.raises(LeaseLost, match=f"Message {sent} cannot be acknowledged"):
            late.acknowledge()
        message.acknowledge()
        assert waiting() == {}

    def test_a_lease_that_has_ended_is_lost_before_anybody_noticed(self, queue):
        queue()
        send("invoices", 1)
        (message,) = receive("invoices")
        let_leases_end()
        for settle_it in (message.acknowledge, message.release, message.reject):
            with pytest.raises(LeaseLost):
                settle_it()
        with pytest.raises(LeaseLost, match="cannot be extended"):
            message.extend(60)
        assert waiting() == {"leased": 1}

    def test_the_back_off_of_the_queue_counts_for_it(self, queue):
        queue(backoff="fixed", backoff_base=60, jitter="none")
        send("invoices", 1)
        receive("invoices")
        let_leases_end()
        assert receive("invoices") == []
        assert waiting() == {"scheduled": 1}

    def test_at_the_limit_it_is_dead_with_the_reason_timeout(self, queue):
        queue(max_deliveries=2, backoff_base=0)
        sent = send("invoices", {"total": 5})
        for attempt in (1, 2):
            (message,) = receive("invoices")
            assert message.attempt == attempt
            let_leases_end()
        assert receive("invoices") == []
        dead = DeadLetter.objects.get()
        assert (dead.message_id, dead.reason, dead.attempts) == (sent, "timeout", 2)
        assert (dead.body, dead.error) == ({"total": 5}, "LeaseExpired")
        assert "did not settle or extend it in time" in dead.description
        assert waiting() == {"dead": 1}

    def test_the_lane_of_an_ordering_key_goes_on_behind_a_message_that_died(self, queue):
        queue(max_deliveries=1)
        send_many("invoices", [1, 2], ordering_key="customer-1")
        join()
        receive("invoices")
        let_leases_end()
        assert [m.body for m in receive("invoices")] == [2]
