"""Consumers, queues and topics are declared in code, and wrong declarations fail at once."""

import functools

import pytest

from messaging import consumer, declare_queue, declare_topic
from messaging.exceptions import InvalidName, NotSupported
from messaging.models import Queue
from messaging.options import POLICIES

pytestmark = pytest.mark.usefixtures("declared")


def handle(message):
    """Handle nothing."""


def handle_too(message):
    """Handle nothing either."""


async def handle_later(message):
    """Handle nothing, later."""


async def handle_piecemeal(message):
    yield


def handle_bit_by_bit(message):
    yield


class Called:
    def __call__(self, message):
        """Handle nothing, as an object."""

    def method(self, message):
        """Handle nothing, as a method."""


class CalledLater:
    async def __call__(self, message):
        """Handle nothing, later, as an object."""


class CalledBitByBit:
    def __call__(self, message):
        yield


class TestConsumers:
    def test_a_consumer_is_declared_with_its_queue_topic_and_policies(self, declared):
        declare = consumer(
            "payments",
            topic="orders.placed",
            transaction_size=50,
            durable=False,
            max_deliveries=8,
            backoff="fixed",
        )
        assert declare(handle) is handle
        known = declared.consumers["payments"]
        assert (known.queue, known.function, known.pattern) == ("payments", handle, "orders.placed")
        assert (known.transaction_size, known.durable) == (50, False)
        assert declared.queues == {"payments": {"max_deliveries": 8, "backoff": "fixed"}}
        assert declared.topics == {"orders.placed": {}}

    def test_by_default_the_worker_sizes_transactions_and_commits_durably(self, declared):
        consumer("payments")(handle)
        known = declared.consumers["payments"]
        assert (known.pattern, known.transaction_size, known.durable) == (None, None, True)
        assert declared.topics == {}

    @pytest.mark.parametrize("pattern", ["orders.*", "orders.#", "#"])
    def test_a_pattern_declares_no_topic(self, declared, pattern):
        consumer("payments", topic=pattern)(handle)
        assert declared.consumers["payments"].pattern == pattern
        assert declared.topics == {}

    @pytest.mark.parametrize(
        "function", [handle, Called(), Called().method, functools.partial(handle), lambda m: None]
    )
    def test_whatever_can_be_called_is_a_consumer(self, declared, function):
        consumer("payments")(function)
        assert declared.consumers["payments"].function is function
        assert declared.consumers["payments"].place

    def test_two_consumers_of_one_queue_are_refused_with_both_places(self):
        consumer("payments")(handle)
        with pytest.raises(ValueError, match="has two consumers") as refused:
            consumer("payments")(handle_too)
        text = str(refused.value)
        assert f"{__name__}.handle ({__file__}:{handle.__code__.co_firstlineno})" in text
        assert f"{__name__}.handle_too ({__file__}:{handle_too.__code__.co_firstlineno})" in text

    def test_a_module_that_is_loaded_again_declares_the_same_consumer(self, declared):
        source = compile("def handle(message):\n    pass\n", "consumers.py", "exec")
        for _ in range(2):
            module = {"__name__": "shop.consumers"}
            exec(source, module)  # noqa: S102 - what importlib.reload does
            consumer("payments")(module["handle"])
        assert declared.consumers["payments"].function is module["handle"]

    @pytest.mark.parametrize(
        "function", [handle_later, functools.partial(handle_later), CalledLater()]
    )
    def test_an_async_consumer_is_leased(self, declared, function):
        consumer("payments")(function)
        found = declared.consumers["payments"]
        assert (found.is_async, found.is_leased, found.lease, found.concurrency) == (
            True, True, None, 100,
        )  # fmt: skip

    def test_an_ordinary_consumer_is_leased_when_it_says_so(self, declared):
        consumer("payments")(handle)
        assert not declared.consumers["payments"].is_leased
        consumer("payments", lease=120)(handle)
        assert declared.consumers["payments"].is_leased
        assert declared.consumers["payments"].lease == 120

    @pytest.mark.parametrize("lease", [-0.1, -1, 43_201, float("nan"), "30", True], ids=repr)
    def test_a_lease_out_of_range_is_refused_with_the_range(self, lease):
        with pytest.raises(ValueError, match=r"lease=.*, use 0 to 43,200 seconds"):
            consumer("payments", lease=lease)(handle)

    @pytest.mark.parametrize("concurrency", [0, 1001, 2.5, True], ids=repr)
    def test_a_concurrency_out_of_range_is_refused_with_the_range(self, concurrency):
        with pytest.raises(ValueError, match=r"concurrency=.*, use 1 to 1000"):
            consumer("payments", concurrency=concurrency)(handle_later)

    @pytest.mark.parametrize("function", [handle, handle_later])
    @pytest.mark.parametrize("option", [{"durable": False}, {"transaction_size": 5}], ids=repr)
    def test_a_leased_consumer_cannot_share_or_hasten_its_transactions(self, function, option):
        with pytest.raises(NotSupported, match=r"cannot be combined with a lease.* Leave"):
            consumer("payments", lease=60, **option)(function)

    @pytest.mark.parametrize("function", [handle, handle_later])
    @pytest.mark.parametrize("option", [{"durable": False}, {"transaction_size": 5}], ids=repr)
    def test_effects_elsewhere_cannot_share_or_hasten_their_transactions(self, function, option):
        with pytest.raises(NotSupported, match=r"cannot be combined with external_effects.* Leave"):
            consumer("payments", external_effects=True, **option)(function)

    @pytest.mark.parametrize(
        "function",
        [
            handle_bit_by_bit, handle_piecemeal, functools.partial(handle_bit_by_bit),
            CalledBitByBit(),
        ],
    )  # fmt: skip
    def test_a_generator_is_refused_because_nobody_would_run_it(self, function):
        with pytest.raises(TypeError, match="is a generator"):
            consumer("payments")(function)

    @pytest.mark.parametrize("function", [None, "shop.handle", 5, Called])
    def test_what_is_no_function_is_refused(self, function):
        with pytest.raises(TypeError, match="use a function"):
            consumer("payments")(function)

    def test_nothing_is_declared_by_a_refused_function(self, declared):
        with pytest.raises(TypeError):
            consumer("payments", topic="orders.placed", max_deliveries=3)(None)
        assert (declared.consumers, declared.queues, declared.topics) == ({}, {}, {})

    @pytest.mark.parametrize("size", [0, -1, 1001, 2.5, "50", True], ids=repr)
    def test_a_transaction_takes_1_to_1000_messages(self, size):
        with pytest.raises(ValueError, match=f"transaction_size={size!r}, use 1 to 1000"):
            consumer("payments", transaction_size=size)

    def test_a_wrong_queue_or_pattern_is_refused(self):
        with pytest.raises(InvalidName, match="queue name 'pay ments'"):
            consumer("pay ments")
        with pytest.raises(InvalidName, match=r"topic pattern 'orders\.\*\*'"):
            consumer("payments", topic="orders.**")


class TestPolicies:
    def test_an_unknown_policy_is_refused_with_the_known_ones(self):
        with pytest.raises(ValueError, match=r"'payments': unknown option max_delivery.*backoff_"):
            consumer("payments", max_delivery=3)
        with pytest.raises(ValueError, match="unknown option max_delivery"):
            declare_queue("payments", max_delivery=3)

    @pytest.mark.parametrize("deliveries", [0, -1, 1001, 2**31, 5.0, "5", True, None], ids=repr)
    def test_max_deliveries_outside_of_its_range_is_refused(self, deliveries):
        with pytest.raises(ValueError, match=r"max_deliveries=.*, use 1 to 1000"):
            consumer("payments", max_deliveries=deliveries)
        with pytest.raises(ValueError, match=r"max_deliveries=.*, use 1 to 1000"):
            declare_queue("payments", max_deliveries=deliveries)

    def test_every_policy_is_a_column_of_the_queue(self):
        assert {field.name for field in Queue._meta.get_fields()} >= POLICIES


class TestNames:
    def test_a_queue_is_declared_for_others_to_consume(self, declared):
        declare_queue("invoices", description="Printed at night", retention=3600)
        assert declared.queues == {
            "invoices": {"description": "Printed at night", "retention": 3600}
        }
        assert declared.consumers == {}

    def test_the_order_of_declarations_does_not_matter(self, declared):
        declare_queue("invoices", description="Printed at night")
        consumer("invoices", max_deliveries=2)(handle)
        declare_queue("invoices", retention=3600)
        assert declared.queues == {
            "invoices": {"description": "Printed at night", "max_deliveries": 2, "retention": 3600}
        }

    def test_a_topic_is_declared_for_publishers(self, declared):
        declare_topic("orders.placed", description="An order", deduplication_window=None)
        consumer("payments", topic="orders.placed")(handle)
        assert declared.topics == {
            "orders.placed": {"description": "An order", "deduplication_window": None}
        }

    def test_wrong_names_and_policies_are_refused(self, declared):
        with pytest.raises(InvalidName):
            declare_queue("in voices")
        with pytest.raises(InvalidName):
            declare_topic("orders..placed")
        with pytest.raises(InvalidName):
            declare_topic("orders.*")
        with pytest.raises(ValueError, match=r"Topic 'orders\.placed': unknown policy backoff"):
            declare_topic("orders.placed", backoff="fixed")
        assert (declared.queues, declared.topics) == ({}, {})
