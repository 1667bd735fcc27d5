"""Subscribing in code: for good, or for as long as a block lasts."""

import asyncio
import datetime
import threading
from collections import Counter

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connections, transaction
from effects import execute

from messaging import (
    InvalidFilter,
    InvalidName,
    InvalidOption,
    NotSupported,
    SubscriptionEnded,
    UnknownQueue,
    apublish,
    asubscription,
    control,
    publish,
    publish_many,
    subscribe,
    subscription,
    unsubscribe,
)
from messaging.control.ephemeral import sweep_ephemeral
from messaging.ephemeral import Messages
from messaging.models import Delivery, Message, Queue, Subscription
from messaging.worker import housekeeping
from messaging.worker.allowance import Allowance
from messaging.worker.options import Options
from messaging.worker.process import Process
from messaging.worker.slots import Slots

pytestmark = pytest.mark.usefixtures("bare")


@pytest.fixture(autouse=True)
def orders(bare, topic):
    """Give a topic."""
    topic("orders.placed")


def bodies_on(name):
    """Return the bodies that wait on a queue, in order."""
    found = Delivery.objects.filter(queue__name=name).order_by("id")
    return list(found.values_list("message__body", flat=True))


def let_time_pass():
    """Let the last sign of life of all ephemeral subscriptions be a day and a minute ago."""
    execute("UPDATE messaging_subscription SET seen_at = seen_at - interval '1441 minutes'")


def everything(messages, **options):
    """Acknowledge all that comes, and return the bodies."""
    bodies = []
    for message in messages(**options):
        bodies.append(message.body)
        message.acknowledge()
    return bodies


def left_over():
    """Return the ephemeral queues and the subscriptions that there are."""
    return Queue.objects.filter(name__startswith="ephemeral.").count(), Subscription.objects.count()


@pytest.mark.django_db
class TestSubscribing:
    def test_a_queue_takes_what_is_published_from_now_on(self, queue):
        queue("audit")
        publish("orders.placed", "before")
        done = subscribe("orders.*", "audit")
        publish("orders.placed", "after")
        assert done == (Subscription.objects.get().pk, True, None)
        assert bodies_on("audit") == ["after"]

    def test_subscribing_again_changes_nothing(self, queue):
        queue("audit")
        wanted = {"filter": {"country": ["GB", {"prefix": "I"}]}, "filter_scope": "headers"}
        first = subscribe("orders.*", "audit", **wanted)
        assert subscribe("orders.*", "audit", **wanted) == (first.id, False, None)
        publish("orders.placed", 1, headers={"country": "IE"})
        assert bodies_on("audit") == [1]

    def test_another_filter_than_the_one_in_force_is_refused(self, queue):
        queue("audit")
        subscribe("orders.*", "audit", filter={"n": [1]})
        for other in ({}, {"filter": {"n": [2]}}, {"filter": {"n": [1]}, "filter_scope": "body"}):
            with pytest.raises(InvalidFilter, match=r"with another filter .* unsubscribe"):
                subscribe("orders.*", "audit", **other)
        assert Subscription.objects.get().filter == {"n": [1]}

    def test_what_an_operator_has_deactivated_stays_so(self, queue):
        queue("audit")
        subscribe("orders.*", "audit")
        Subscription.objects.update(is_active=False)
        assert not subscribe("orders.*", "audit").created
        publish("orders.placed", 1)
        assert bodies_on("audit") == []

    def test_a_filter_takes_what_it_matches(self, queue):
        queue("audit")
        subscribe("#", "audit", filter={"total": [{"numeric": [">", 9]}]}, filter_scope="body")
        publish_many("orders.placed", [{"total": total} for total in (5, 10, 15)])
        assert bodies_on("audit") == [{"total": 10}, {"total": 15}]

    def test_unsubscribing_ends_exactly_this_and_leaves_what_waits(self, queue):
        queue("audit")
        subscribe("orders.*", "audit")
        subscribe("orders.paid", "audit")
        publish("orders.placed", 1)
        assert unsubscribe("orders.*", "audit")
        assert not unsubscribe("orders.*", "audit")
        publish("orders.placed", 2)
        assert bodies_on("audit") == [1]
        assert Subscription.objects.get().pattern == "orders.paid"

    def test_both_are_undone_with_the_callers_transaction(self, queue):
        queue("audit")
        with pytest.raises(RuntimeError), transaction.atomic():
            subscribe("orders.*", "audit")
            raise RuntimeError
        assert not Subscription.objects.exists()
        subscribe("orders.*", "audit")
        with pytest.raises(RuntimeError), transaction.atomic():
            unsubscribe("orders.*", "audit")
            raise RuntimeError
        publish("orders.placed", 1)
        assert bodies_on("audit") == [1]

    def test_what_cannot_be_subscribed_is_refused(self, queue):
        queue("audit")
        for call in (subscribe, unsubscribe):
            with pytest.raises(UnknownQueue, match=r"'audits'.*'audit'"):
                call("orders.*", "audits")
            with pytest.raises(InvalidName):
                call("orders..x", "audit")
            with pytest.raises(InvalidName):
                call("orders.*", "au dit")
        with pytest.raises(InvalidFilter, match=r"\$\.country"):
            subscribe("orders.*", "audit", filter={"country": "GB"})
        with pytest.raises(InvalidFilter):
            subscribe("orders.*", "audit", filter={"country": ["GB"]}, filter_scope="footers")
        assert not Subscription.objects.exists()


@pytest.mark.django_db(transaction=True)
class TestWhilePublishersRun:
    def test_two_that_subscribe_the_same_at_once_make_one(self, queue, elsewhere, until, waiters):
        queue("audit")
        with transaction.atomic():
            first = subscribe("orders.*", "audit")
            second = elsewhere(subscribe, "orders.*", "audit")
            until(waiters)
        assert first.created
        assert second.result(15) == (first.id, False, None)

    def test_each_message_of_the_time_subscribed_is_there_once(self, queue, elsewhere, until):
        queue("audit")
        queue("steady")
        subscribe("orders.#", "steady")
        # In whose time a message was published for certain: begun and committed within it.
        times = [(threading.Event(), threading.Event()) for _ in range(8)]
        ended = threading.Event()

        def work(worker):
            certain, number = [], 0
            while not ended.is_set():
                number += 1
                inside = [one for one in times if one[0].is_set() and not one[1].is_set()]
                with transaction.atomic():
                    ids = [publish("orders.placed", number)]
                    ids += publish_many("orders.placed", [number] * (number % 3))
                if any(not one[1].is_set() for one in inside):
                    certain += map(int, ids)
            return certain

        workers = [elsewhere(work, number) for number in range(3)]
        for begun, over in times:
            seen = Message.objects.count()
            subscribe("orders.*", "audit")
            begun.set()
            until(lambda seen=seen: Message.objects.count() > seen + 40)
            over.set()
            assert unsubscribe("orders.*", "audit")
            seen = Message.objects.count()
            until(lambda seen=seen: Message.objects.count() > seen + 10)
        ended.set()
        certain = {each for worker in workers for each in worker.result(30)}
        connections.close_all()
        per_message = Counter(
            Delivery.objects.filter(queue__name="audit").values_list("message_id", flat=True)
        )
        assert len(certain) > 100
        assert certain <= set(per_message)
        assert set(per_message.values()) == {1}
        # And what came between is not there: fewer than were published.
        assert len(per_message) < Delivery.objects.filter(queue__name="steady").count()


@pytest.mark.django_db
class TestEphemeral:
    def test_what_is_published_while_the_block_is_open_comes_once(self):
        publish("orders.placed", "before")
        with subscription("orders.#") as messages:
            publish_many("orders.placed", [1, 2])
            assert everything(messages) == [1, 2]
            publish("orders.placed", 3)
            assert everything(messages) == [3]
            assert everything(messages) == []

    def test_a_queue_of_its_own_is_there_while_the_block_is(self, caplog):
        caplog.set_level("INFO")
        with subscription("orders.#", idle_timeout=datetime.timedelta(minutes=1)) as messages:
            row = Subscription.objects.get()
            assert row.queue.name == messages.queue
            assert messages.queue.startswith("ephemeral.")
            assert row.queue.dead_letter_queue is None
            assert (row.idle_timeout, row.seen_at is None) == (60, False)
            publish_many("orders.placed", [1, 2, 3])
        assert left_over() == (0, 0)
        assert Delivery.objects.count() == 0
        assert f"Queue deleted queue={messages.queue} count=3" in caplog.text

    def test_an_exception_in_the_block_ends_it_too(self):
        with pytest.raises(ZeroDivisionError), subscription("orders.#"):
            raise ZeroDivisionError
        assert left_over() == (0, 0)

    def test_a_message_that_is_not_settled_comes_again(self):
        with subscription("orders.#") as messages:
            publish("orders.placed", 1)
            for message in messages():
                message.release()
                break
            assert everything(messages) == [1]

    def test_each_subscriber_gets_all(self):
        with subscription("orders.#") as one, subscription("orders.placed") as other:
            publish_many("orders.placed", [1, 2])
            assert everything(one) == everything(other) == [1, 2]

    def test_a_subscriber_gets_what_its_filter_matches(self):
        wanted = {"total": [{"numeric": [">", 9]}]}
        with subscription("orders.#", filter=wanted, filter_scope="body") as messages:
            publish_many("orders.placed", [{"total": 5}, {"total": 10}])
            assert everything(messages) == [{"total": 10}]

    @pytest.mark.parametrize("value", [4.9, 86_401, "5", float("nan"), True])
    def test_an_idle_timeout_out_of_range_is_refused(self, value):
        with (
            pytest.raises(InvalidOption, match="use 5 to 86,400 seconds"),
            subscription("orders.#", idle_timeout=value),
        ):
            pass

    def test_what_cannot_be_subscribed_to_is_refused(self):
        with pytest.raises(InvalidName), subscription("orders..x"):
            pass
        with pytest.raises(InvalidFilter), subscription("orders.#", filter={"a": 1}):
            pass
        with (
            transaction.atomic(),
            pytest.raises(NotSupported, match="undo the subscription"),
            subscription("orders.#"),
        ):
            pass
        assert left_over() == (0, 0)

    def test_after_the_block_there_is_nothing_to_receive(self):
        with subscription("orders.#") as messages:
            pass
        with pytest.raises(SubscriptionEnded, match="its block was left"):
            everything(messages)

    def test_it_is_no_part_of_the_definitions(self):
        before = control.export_definitions()
        with subscription("orders.#"):
            assert control.export_definitions() == before

    def test_the_doctor_misses_no_worker_of_its_queue(self):
        with subscription("orders.#") as messages:
            publish("orders.placed", 1)
            assert not [each for each in control.diagnose() if messages.queue in each.text]


@pytest.fixture
def abandoned():
    """Return a function that subscribes as a process that then died."""

    def abandon(pattern="orders.#", idle_timeout=30):
        messages = Messages(pattern, None, "headers", idle_timeout, None)
        messages.begin()
        return messages

    return abandon


@pytest.mark.django_db
class TestSweeping:
    def test_what_a_dead_process_has_left_is_swept_after_its_time(self, abandoned, caplog):
        caplog.set_level("INFO")
        messages = abandoned()
        publish_many("orders.placed", [1, 2])
        assert sweep_ephemeral() == 0
        assert left_over() == (1, 1)
        let_time_pass()
        assert sweep_ephemeral() == 1
        assert left_over() == (0, 0)
        assert f"Queue deleted queue={messages.queue} count=2" in caplog.text

    def test_what_is_subscribed_for_good_is_never_swept(self, queue, subscribe):
        subscribe("orders.#", "audit")
        Subscription.objects.update(seen_at=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
        assert sweep_ephemeral() == 0
        assert Queue.objects.get().name == "audit"

    def test_whoever_was_taken_for_dead_is_told_so(self, abandoned):
        messages = abandoned()
        let_time_pass()
        sweep_ephemeral()
        with pytest.raises(SubscriptionEnded, match=r"no sign of life .* for 30 seconds"):
            everything(messages)
        messages.end()


@pytest.mark.django_db(transaction=True)
class TestSignsOfLife:
    def test_an_open_block_gives_signs_of_life_and_is_not_swept(self, until):
        with subscription("orders.#", idle_timeout=5) as messages:
            row = Subscription.objects.get()
            until(lambda: Subscription.objects.get().seen_at > row.seen_at)
            assert sweep_ephemeral() == 0
            publish("orders.placed", 1)
            assert everything(messages) == [1]

    def test_a_sender_in_the_way_only_delays_the_deletion(self, abandoned, elsewhere, monkeypatch):
        monkeypatch.setattr("messaging.control.ephemeral.LOCK_WAIT", 0.05)
        messages = abandoned()
        with transaction.atomic():
            publish("orders.placed", 1)
            elsewhere(messages.end).result(15)
        assert left_over() == (1, 1)
        publish("orders.placed", 2)
        assert bodies_on(messages.queue) == [1]
        assert sweep_ephemeral() == 0  # not so soon
        let_time_pass()
        assert sweep_ephemeral() == 1
        assert left_over() == (0, 0)

    def test_two_workers_never_sweep_the_same(self, abandoned, elsewhere):
        for _ in range(6):
            abandoned()
        let_time_pass()
        sweeping = [elsewhere(sweep_ephemeral) for _ in range(2)]
        assert sum(each.result(30) for each in sweeping) <= 6
        let_time_pass()
        sweep_ephemeral()
        assert left_over() == (0, 0)

    def test_workers_sweep(self, abandoned, declared, elsewhere, until, monkeypatch):
        monkeypatch.setattr(housekeeping, "EPHEMERAL_EVERY", 0.1)
        abandoned()
        let_time_pass()
        process = Process(Options(consumers=[]), Slots(2), range(1), Allowance(None), parent=0)
        elsewhere(process._house.keep).result(15)
        until(lambda: left_over() == (0, 0))

    def test_async_code_listens_the_same_way(self):
        async def listen():
            bodies = []
            async with asubscription("orders.#") as messages:
                for body in (1, 2):
                    await apublish("orders.placed", body)
                async for message in messages():
                    bodies.append(message.body)
                    await message.aacknowledge()
                inside = await sync_to_async(left_over)()
            return bodies, inside

        assert async_to_sync(listen)() == ([1, 2], (1, 1))
        assert left_over() == (0, 0)

    def test_async_code_that_is_cancelled_leaves_nothing(self):
        async def listen(begun):
            async with asubscription("orders.#") as messages:
                begun.set()
                async for _ in messages(wait=60):
                    pass

        async def cancel():
            begun = asyncio.Event()
            listening = asyncio.create_task(listen(begun))
            await begun.wait()
            listening.cancel()
            await asyncio.wait([listening])
            return listening.cancelled()

        assert async_to_sync(cancel)()
        assert left_over() == (0, 0)
