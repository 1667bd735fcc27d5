"""Request and reply: somebody asks a queue and waits for what its handler says."""

import asyncio
import threading
import time

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group
from django.db import connection, transaction
from django.utils import timezone
from effects import effects, execute, take_effect, waiting
from rows import sign_of_life

from messaging import (
    InvalidMessage,
    InvalidOption,
    Message,
    NoConsumer,
    NotSupported,
    Reject,
    RequestFailed,
    UnknownQueue,
    arequest,
    consumer,
    maintenance,
    receive,
    request,
    send,
    send_many,
)
from messaging.consuming import declarations
from messaging.engines.mailbox import mailbox
from messaging.exceptions import InvalidName
from messaging.models import DeadLetter, Queue, Reply
from messaging.models import Message as StoredMessage
from messaging.sync import synchronise
from messaging.testing import drain
from messaging.worker.asynchronous import AsyncRunner
from messaging.worker.configuration import Configuration
from messaging.worker.heart import Heart
from messaging.worker.runner import Runner
from messaging.worker.slots import Slots

TOKEN = "messaging.reply." + 32 * "a"


def a_queue(**policies):
    """Have `invoices` with these policies, which the shop may have declared."""
    Queue.objects.update_or_create(name="invoices", defaults=policies)


@pytest.fixture(autouse=True)
def mailbox_of_its_own(monkeypatch):
    """Forget that another test could not listen, which a process believes for a minute."""
    monkeypatch.setattr("messaging.engines.mailbox._mailboxes", {})


@pytest.fixture
def serve(declared, transactional_db):
    """Return a function that has a worker's thread run a function for `invoices`."""
    stops = []

    def serve(function, max_deliveries=5, **options):
        consumer("invoices", **options)(function)
        synchronise()
        a_queue(max_deliveries=max_deliveries)
        sign_of_life("invoices")
        consumers = list(declarations.consumers.values())
        configuration = Configuration(consumers, None)
        configuration.refresh()
        heart = Heart(None, "runner")
        if consumers[0].is_async:
            runner = AsyncRunner(
                consumers, configuration, name="runner", heart=heart, slots=Slots(1), slot=0
            )
        else:
            runner = Runner(consumers, configuration, name="runner", heart=heart)
        heart.start()
        thread = threading.Thread(target=runner.run)
        thread.start()
        stops.extend([runner.stop, lambda: thread.join(20), heart.stop, lambda: heart.join(20)])

    yield serve
    for stop in stops:
        stop()


class TestAsking:
    def test_the_reply_is_what_the_handler_returns(self, serve):
        serve(lambda message: {"double": 2 * message.body})
        assert request("invoices", 21) == {"double": 42}
        assert waiting() == {}

    @pytest.mark.parametrize("value", [None, 0, "", False, {}, [1], 2**60 + 1, 1.5])
    def test_any_json_value_is_a_reply(self, serve, value):
        serve(lambda message: message.body)
        assert request("invoices", value) == value

    def test_async_code_asks_too(self, serve):
        serve(lambda message: message.body + 1)

        async def ask():
            return await asyncio.gather(*(arequest("invoices", n) for n in range(5)))

        assert async_to_sync(ask)() == [1, 2, 3, 4, 5]

    def test_an_async_consumer_replies(self, serve):
        async def handle(message):
            return message.body + 1

        serve(handle)
        assert request("invoices", 1) == 2

    def test_a_leased_consumer_replies_in_the_transaction_of_its_effects(self, serve):
        def handle(message):
            take_effect(message.body)
            return Group.objects.count()

        serve(handle, lease=30)
        assert request("invoices", "a") == 1

    def test_many_ask_at_once_and_each_gets_its_own(self, serve, elsewhere):
        serve(lambda message: message.body)
        asking = [elsewhere(request, "invoices", number, timeout=20) for number in range(20)]
        assert [each.result(20) for each in asking] == list(range(20))

    def test_a_reply_is_forgotten_once_it_is_read(self, serve):
        serve(lambda message: 1)
        request("invoices", 1)
        assert not Reply.objects.exists()

    def test_headers_priority_key_and_correlation_reach_the_handler(self, serve):
        seen = []

        def handle(message):
            seen.append(message)
            return True

        serve(handle)
        assert request(
            "invoices", 1, headers={"a": 1}, priority=5, ordering_key="k", correlation_id="c"
        )
        (message,) = seen
        assert (message.headers, message.priority) == ({"a": 1}, 5)
        assert (message.ordering_key, message.correlation_id) == ("k", "c")

    @pytest.mark.usefixtures("way_past_a_pooler")
    def test_the_reply_is_heard_without_looking_for_it(self, serve, settings, until, elsewhere):
        settings.MESSAGING = {"POLL_INTERVAL": 60.0}
        go_on = threading.Event()
        serve(lambda message: go_on.wait(20))
        asking = elsewhere(request, "invoices", 1, timeout=30)
        until(lambda: mailbox(connection).hears)
        go_on.set()
        assert asking.result(20) is True

    def test_where_nothing_can_be_heard_it_looks(self, serve, monkeypatch):
        def refuse(*args):
            raise OSError

        monkeypatch.setattr("messaging.engines.mailbox.notifications.start_listening", refuse)
        serve(lambda message: message.body)
        assert request("invoices", 7) == 7


class TestNobodyThere:
    @pytest.fixture(autouse=True)
    def invoices(self, transactional_db):
        a_queue()

    def refused(self, match):
        with pytest.raises(NoConsumer, match=match):
            request("invoices", 1)
        assert not StoredMessage.objects.exists()

    def test_without_a_worker_it_is_told_at_once_and_nothing_is_stored(self):
        self.refused("No worker serves queue 'invoices'.*manage.py runworker invoices")

    def test_a_worker_of_other_queues_is_none(self):
        sign_of_life("mails", "invoices.old")
        self.refused("No worker")

    def test_a_worker_that_gave_no_sign_of_life_for_three_heartbeats_is_none(self):
        sign_of_life("invoices", seconds_ago=10)
        self.refused("9 seconds")

    @pytest.mark.parametrize("state", ["paused", "stopping", "starting"])
    def test_a_worker_that_claims_nothing_is_none(self, state):
        sign_of_life("invoices", state=state)
        self.refused("No worker")

    def test_a_paused_queue_is_not_served(self):
        sign_of_life("invoices")
        Queue.objects.update(paused_at=timezone.now())
        self.refused("paused")

    def test_an_unknown_queue_is_named(self):
        with pytest.raises(UnknownQueue, match="invoices"):
            request("invoice", 1)

    def test_an_async_caller_is_told_too(self):
        with pytest.raises(NoConsumer):
            async_to_sync(arequest)("invoices", 1)


class TestNoReply:
    def test_after_its_time_the_request_is_withdrawn(self, transactional_db):
        a_queue(dead_letter_expired=True)
        sign_of_life("invoices")
        with pytest.raises(TimeoutError, match=r"'invoices'.*message \d+.*0\.1 seconds.*withdrawn"):
            request("invoices", 1, timeout=0.1)
        assert waiting() == {}

    def test_only_the_request_is_withdrawn_and_not_what_waits_beside_it(self, transactional_db):
        a_queue()
        sign_of_life("invoices")
        send_many("invoices", range(3))
        with pytest.raises(TimeoutError):
            request("invoices", 1, timeout=0.05)
        assert waiting() == {"ready": 3}

    def test_a_request_that_is_being_handled_is_left_alone(self, serve):
        go_on = threading.Event()

        def handle(message):
            go_on.wait(20)
            take_effect("done")
            return 1

        serve(handle)
        try:
            with pytest.raises(TimeoutError, match="may have been handled"):
                request("invoices", 1, timeout=0.5)
        finally:
            go_on.set()

    def test_a_request_expires_with_its_time(self, transactional_db):
        a_queue()
        sign_of_life("invoices")
        with pytest.raises(TimeoutError):
            request("invoices", 1, timeout=0.05, ordering_key="k")
        left = "SELECT expires_at <= statement_timestamp() + interval '1 second'"
        assert execute(f"{left} FROM messaging_laneentry") == [(True,)]

    def test_a_dead_request_is_told_with_its_reason(self, serve):
        def handle(message):
            raise Reject("no such invoice")

        serve(handle)
        with pytest.raises(RequestFailed, match=r"rejected.*no such invoice") as failed:
            request("invoices", 1, timeout=30)
        assert failed.value.reason == "rejected"

    def test_a_result_that_is_no_json_fails_the_message_and_undoes_its_effects(self, serve):
        def handle(message):
            take_effect("undone")
            return object()

        serve(handle, max_deliveries=1)
        with pytest.raises(RequestFailed, match="InvalidMessage"):
            request("invoices", 1, timeout=30)
        assert effects() == []
        assert DeadLetter.objects.get().error == "InvalidMessage"

    def test_an_async_result_that_is_no_json_fails_too(self, serve):
        async def handle(message):
            return object()

        serve(handle, max_deliveries=1)
        with pytest.raises(RequestFailed, match="InvalidMessage"):
            request("invoices", 1, timeout=30)

    @pytest.mark.parametrize("timeout", [0, -1, 3601, float("nan"), "5", True, None])
    def test_a_time_out_of_range_is_refused(self, transactional_db, timeout):
        with pytest.raises(InvalidOption, match=r"timeout.*3,600 seconds"):
            request("invoices", 1, timeout=timeout)

    def test_in_a_transaction_it_is_refused_with_the_remedy(self, transactional_db):
        with transaction.atomic(), pytest.raises(NotSupported, match="outside of transaction"):
            request("invoices", 1)

    def test_a_name_that_is_none_and_a_body_that_is_no_json_are_refused(self, transactional_db):
        with pytest.raises(InvalidName):
            request("a b", 1)
        a_queue()
        sign_of_life("invoices")
        with pytest.raises(InvalidMessage):
            request("invoices", object())
        assert not StoredMessage.objects.exists()


@pytest.mark.django_db
class TestReplying:
    @pytest.fixture
    def replies(self, queue):
        return queue("replies")

    def answered(self):
        """Return body, correlation id and cause of what came to `replies`."""
        found = receive("replies", limit=10)
        return [(m.body, m.correlation_id, m.causation_id) for m in found]

    def test_a_reply_goes_to_the_queue_that_was_named_and_keeps_the_correlation_id(
        self, declare, replies
    ):
        declare(lambda message: message.reply({"ok": message.body}))
        asked = send("invoices", 1, reply_to="replies", correlation_id="c7")
        drain("invoices")
        assert self.answered() == [({"ok": 1}, "c7", asked)]

    def test_without_a_correlation_id_the_id_of_the_request_is_the_replys(self, declare, replies):
        declare(lambda message: message.reply(1))
        asked = send("invoices", 1, reply_to="replies")
        drain("invoices")
        assert self.answered() == [(1, str(asked), asked)]

    def test_what_a_handler_returns_goes_to_the_queue_unless_it_is_none(self, declare, replies):
        declare(lambda message: message.body)
        for body in (None, 0, [1]):
            send("invoices", body, reply_to="replies")
        drain("invoices")
        assert [body for body, *_ in self.answered()] == [0, [1]]

    def test_a_handler_that_has_replied_itself_replies_once(self, declare, replies):
        def handle(message):
            message.reply("first")
            return "second"

        declare(handle)
        send("invoices", 1, reply_to="replies")
        drain("invoices")
        assert [body for body, *_ in self.answered()] == ["first"]

    def test_a_result_without_reply_to_is_ignored(self, declare):
        declare(lambda message: object())
        send("invoices", 1)
        assert drain() == 1
        assert waiting() == {}

    def test_a_reply_vanishes_with_the_handlers_transaction(self, declare, replies):
        def handle(message):
            message.reply("undone")
            raise Reject("no")

        declare(handle)
        send("invoices", 1, reply_to="replies")
        send("invoices", 1, reply_to=TOKEN)
        drain("invoices")
        assert self.answered() == []
        assert not Reply.objects.exists()

    def test_a_reply_without_reply_to_is_refused(self, declare):
        declare(lambda message: message.reply(1), max_deliveries=1)
        send("invoices", 1)
        drain()
        assert "has no reply_to" in DeadLetter.objects.get().description

    def test_a_reply_to_a_queue_that_is_gone_fails_the_message(self, declare, replies):
        declare(lambda message: 1, max_deliveries=1)
        send("invoices", 1, reply_to="nobody")
        drain("invoices")
        assert DeadLetter.objects.get().error == "UnknownQueue"

    def test_who_receives_a_message_replies_in_his_transaction(self, queue, replies):
        queue()
        asked = send("invoices", 1, reply_to="replies", correlation_id="c1")
        (message,) = receive("invoices")
        with transaction.atomic():
            message.reply("undone")
            transaction.set_rollback(True)
        with transaction.atomic():
            message.reply("done")
            message.acknowledge()
        assert self.answered() == [("done", "c1", asked)]

    def test_a_batch_replies_by_word_and_never_by_what_it_returns(self, declare, replies):
        def handle(messages):
            messages[0].reply("first")
            return [None, None]

        declare(handle, batch=10)
        for _ in range(2):
            send("invoices", 1, reply_to="replies")
        drain("invoices")
        assert [body for body, *_ in self.answered()] == ["first"]

    def test_an_async_handler_replies_by_word(self, declare, replies):
        async def handle(message):
            await message.areply("word")
            return "result"

        declare(handle)
        send("invoices", 1, reply_to="replies")
        drain("invoices")
        assert [body for body, *_ in self.answered()] == ["word"]

    def test_a_message_in_nobodys_hands_cannot_be_replied_to(self):
        message = Message(
            id=1, queue="q", topic=None, body=1, headers={}, priority=0, attempt=1,
            ordering_key=None, published_at=timezone.now(), delivery=None, reply_to="replies",
        )  # fmt: skip
        with pytest.raises(NotSupported, match="in nobody's hands"):
            message.reply(1)


@pytest.mark.django_db
class TestTokens:
    def test_what_is_sent_to_a_token_is_a_reply_and_no_message(self):
        assert send(TOKEN, {"a": 1}) == 0
        assert Reply.objects.get().body == {"a": 1}
        assert not StoredMessage.objects.exists()

    def test_it_commits_with_the_senders_transaction(self):
        with transaction.atomic():
            send(TOKEN, 1)
            transaction.set_rollback(True)
        assert not Reply.objects.exists()

    def test_the_first_reply_counts(self):
        send(TOKEN, 1)
        send(TOKEN, 2)
        assert Reply.objects.get().body == 1

    def test_several_or_later_replies_are_refused(self):
        with pytest.raises(NotSupported, match="one reply"):
            send_many(TOKEN, [1, 2])
        with pytest.raises(NotSupported, match="without delay"):
            send(TOKEN, 1, delay=5)
        assert not Reply.objects.exists()

    @pytest.mark.parametrize("name", ["messaging.reply.", "messaging.reply.xyz", TOKEN[:-1]])
    def test_what_only_looks_like_a_token_is_an_unknown_queue(self, name):
        with pytest.raises(UnknownQueue):
            send(name, 1)

    def test_a_reply_that_nobody_reads_is_pruned_after_an_hour(self):
        send(TOKEN, 1)
        maintenance.prune()
        assert Reply.objects.exists()
        execute("UPDATE messaging_reply SET created_at = now() - interval '61 minutes'")
        maintenance.prune()
        assert not Reply.objects.exists()


@pytest.mark.usefixtures("way_past_a_pooler")
def test_nothing_listens_when_nobody_waits(serve, until):
    serve(lambda message: 1)
    request("invoices", 1)
    until(
        lambda: (
            execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND query = 'LISTEN messaging_replies'"
            )
            == [(0,)]
        )
    )


def test_a_mailbox_wakes_all_when_its_connection_is_lost(transactional_db, monkeypatch, until):
    """What came meanwhile was not heard: everybody looks."""
    woken = []

    def refuse(*args):
        raise OSError

    monkeypatch.setattr("messaging.engines.mailbox.notifications.connect", refuse)
    with mailbox(connection).expecting(TOKEN, lambda: woken.append(time.monotonic())):
        until(lambda: woken)
    assert not mailbox(connection).hears
