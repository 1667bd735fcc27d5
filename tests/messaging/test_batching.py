"""Batch: one call for many messages, all or none, or an outcome for each."""

import pytest
from django.db import connection
from effects import effects, execute, failures, make_due, take_effect, transaction_id, waiting

from messaging import NotSupported, Reject, Retry, consumer, send, send_many
from messaging.models import Attempt, DeadLetter, Delivery
from messaging.testing import drain
from messaging.worker.slots import Slots

pytestmark = pytest.mark.django_db


@pytest.fixture
def handle(declare):
    """Return a function that hands bodies to a batch consumer, and returns what each call got."""

    def run(function, bodies, *, batch=10, **options):
        calls = []

        def note(messages):
            calls.append([message.body for message in messages])
            for message in messages:
                take_effect(message.body)
            return function(messages)

        declare(note, batch=batch, backoff_base=60, **options)
        send_many("invoices", bodies)
        drain("invoices")
        return calls

    return run


def sent_ids():
    return [row[0] for row in execute("SELECT id FROM messaging_message ORDER BY id")]


class TestABatch:
    def test_is_one_call_for_up_to_n_messages_in_one_transaction(self, handle):
        transactions = []
        calls = handle(lambda messages: transactions.append(transaction_id()), range(25))
        assert calls == [list(range(10)), list(range(10, 20)), list(range(20, 25))]
        assert effects() == [str(number) for number in range(25)]
        assert waiting() == {}

    def test_holds_one_message_of_each_key(self, declare):
        calls = []
        declare(lambda messages: calls.append([m.body for m in messages]), batch=10)
        for body, key in [("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a")]:
            send("invoices", body, ordering_key=key)
        assert drain("invoices") == 4
        assert [body for call in calls for body in call if body[0] == "a"] == ["a1", "a2", "a3"]
        assert sorted(calls[0]) == ["a1", "b1"]

    def test_leaves_expired_messages_out(self, declare):
        calls = []
        declare(lambda messages: calls.append([m.body for m in messages]), batch=10)
        send_many("invoices", ["old", "new"])
        execute(
            "UPDATE messaging_delivery SET expires_at = statement_timestamp() - interval '1 second'"
            " WHERE message_id = %s",
            sent_ids()[0],
        )
        drain("invoices")
        assert calls == [["new"]]
        assert waiting() == {}

    def test_does_not_hold_what_failed_before_beside_others(self, handle):
        def fail_at_first(messages):
            if messages[0].body == "odd" and messages[0].attempt == 1:
                raise ValueError

        calls = handle(fail_at_first, ["odd"])
        send_many("invoices", ["a", "b"])
        make_due()
        drain("invoices")
        assert calls[1:] == [["a", "b"], ["odd"]]

    def test_starts_small_in_a_process_that_may_have_replaced_a_dead_one(self, declare, runner):
        sizes = []
        declare(lambda messages: sizes.append(len(messages)), batch=8)
        send_many("invoices", range(20))
        a_runner = runner(slots=Slots(1))
        while Delivery.objects.exists():
            a_runner.run_round()
        assert sizes == [1, 2, 4, 8, 5]

    def test_is_of_the_size_declared_at_most_even_at_the_first_call_of_a_test(self, handle):
        assert handle(lambda messages: None, range(4), batch=3) == [[0, 1, 2], [3]]


class TestABatchThatFails:
    def fail_on_odd(self, messages):
        if any(message.body == "odd" for message in messages):
            raise ValueError("odd")

    def test_keeps_nothing_and_counts_against_the_one_at_fault_alone(self, handle):
        bodies = [*map(str, range(5)), "odd", *map(str, range(6, 16))]
        calls = handle(self.fail_on_odd, bodies, batch=16)
        assert sorted(effects()) == sorted(set(bodies) - {"odd"})
        assert failures() == [(sent_ids()[5], "ValueError")]
        assert waiting() == {"scheduled": 1}
        # Halves, and not one by one.
        assert [len(call) for call in calls][:3] == [16, 8, 4]
        assert len(calls) < 12

    def test_because_of_all_of_them_counts_against_each_alone(self, handle):
        def fail(messages):
            raise ConnectionError("the index is down")

        handle(fail, range(3))
        assert [error for _, error in failures()] == ["ConnectionError"] * 3
        assert effects() == []

    def test_by_retry_comes_back_as_a_whole_when_it_says(self, handle):
        def later(messages):
            raise Retry(after=30, counts=False)

        assert handle(later, range(3)) == [[0, 1, 2]]
        assert waiting() == {"scheduled": 3}
        assert execute("SELECT DISTINCT attempt FROM messaging_scheduled") == [(1,)]
        assert effects() == []

    def test_by_reject_rejects_only_the_one_that_is_alone(self, handle):
        def reject(messages):
            if any(message.body == 2 for message in messages):
                raise Reject("not this")

        handle(reject, range(4))
        assert [dead.body for dead in DeadLetter.objects.all()] == [2]
        assert sorted(effects()) == ["0", "1", "3"]

    def test_at_the_commit_is_narrowed_down_as_well(self, handle):
        def break_it(messages):
            if any(message.body == 2 for message in messages):
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1/0")

        handle(break_it, range(4))
        assert sorted(effects()) == ["0", "1", "3"]
        assert len(failures()) == 1

    @pytest.mark.django_db(transaction=True)
    def test_by_losing_its_connection_is_narrowed_down_as_well(self, declare, runner):
        def handle(messages):
            for message in messages:
                take_effect(message.body)
            if any(message.body == "odd" for message in messages):
                connection.close()

        declare(handle, batch=10, backoff_base=60)
        send_many("invoices", ["a", "b", "odd", "c"])
        runner(drain=True).run()
        assert sorted(effects()) == ["a", "b", "c"]
        assert waiting() == {"scheduled": 1}


class TestOutcomes:
    def test_in_a_list_settle_each_message_by_itself_and_keep_the_effects(self, handle):
        def judge(messages):
            return [None, True, Retry(after=60), Reject("wrong"), ValueError("odd")]

        handle(judge, range(5))
        ids = sent_ids()
        assert waiting() == {"scheduled": 2, "dead": 1}
        assert sorted(failures()) == [(ids[2], "Retry"), (ids[3], "Reject"), (ids[4], "ValueError")]
        assert (DeadLetter.objects.get().body, DeadLetter.objects.get().reason) == (3, "rejected")
        assert effects() == ["0", "1", "2", "3", "4"]

    def test_in_a_mapping_are_of_the_ids_named_and_the_others_are_done(self, handle):
        handle(lambda messages: {messages[1].id: ValueError("odd")}, range(3))
        assert failures() == [(sent_ids()[1], "ValueError")]
        assert waiting() == {"scheduled": 1}

    @pytest.mark.parametrize(
        ("result", "text"),
        [
            ([], "returned 0 outcomes for 1 messages"),
            ([None, None], "returned 2 outcomes for 1 messages"),
            ([False], "returned bool as the outcome of message"),
            (["ok"], "returned str as the outcome of message"),
            ([Retry], "returned type as the outcome of message"),
            ({"nobody": None}, "outcomes of 1 messages that it was not given, such as 'nobody'"),
        ],
        ids=repr,
    )
    def test_that_make_no_sense_fail_and_say_why(self, handle, result, text):
        handle(lambda messages: result, ["a"])
        assert text in Attempt.objects.get().description
        assert effects() == []

    @pytest.mark.parametrize(
        "result", [5, "three", object(), {1, 2}], ids=lambda result: type(result).__name__
    )
    def test_are_not_what_other_results_mean(self, handle, result):
        handle(lambda messages: result, ["a", "b"])
        assert waiting() == {}
        assert effects() == ["a", "b"]


class TestADeclaration:
    @pytest.mark.parametrize("batch", [0, -1, 1001, 2.5, "50", True], ids=repr)
    def test_takes_1_to_1000_messages(self, declared, batch):
        with pytest.raises(ValueError, match=f"batch={batch!r}, use 1 to 1000"):
            consumer("invoices", batch=batch)(len)

    @pytest.mark.parametrize("other", ["transaction_size", "lease"])
    def test_refuses_what_a_batch_cannot_be_combined_with(self, declared, other):
        with pytest.raises(NotSupported, match=r"batch=5 cannot be combined with .*" + other):
            consumer("invoices", batch=5, **{other: 10})(lambda messages: None)

    def test_refuses_an_async_function(self, declared):
        async def index(messages):
            """Do nothing, later."""

        with pytest.raises(NotSupported, match="or an async function"):
            consumer("invoices", batch=5)(index)
