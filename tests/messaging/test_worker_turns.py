"""Turns: a queue is served as often as it weighs, and none waits for all the turns of another."""

import pytest

from messaging import consumer, send_many
from messaging.testing import drain
from messaging.worker.turns import turns


@pytest.mark.parametrize(
    ("weights", "order"),
    [
        ([], []),
        ([1], [0]),
        ([7, 7], [0, 1]),
        ([1, 1, 1], [0, 1, 2]),
        ([3, 1], [0, 0, 1, 0]),
        ([5, 1, 1], [0, 0, 1, 0, 2, 0, 0]),
    ],
)
def test_each_has_its_share_of_a_round(weights, order):
    assert list(turns(weights)) == order


@pytest.mark.django_db
class TestAWorker:
    @pytest.fixture
    def handled(self, declared):
        """Declare two queues of the weights 3 and 1; return what is handled, by queue, in order."""
        handled = []
        for name, weight in (("heavy", 3), ("light", 1)):

            @consumer(name, weight=weight, transaction_size=1)
            def note(message):
                handled.append(message.queue)

        drain()
        return handled

    def test_gives_each_queue_its_weight_in_transactions(self, handled, runner):
        send_many("heavy", range(40))
        send_many("light", range(40))
        a_runner = runner()
        for _ in range(5):
            a_runner.run_round()
        assert (handled.count("heavy"), handled.count("light")) == (15, 5)

    def test_gives_the_turns_of_an_empty_queue_to_the_others(self, handled, runner):
        send_many("light", range(10))
        a_runner = runner()
        for _ in range(10):
            a_runner.run_round()
        assert handled == ["light"] * 10

    def test_starves_none_however_busy_another_is(self, handled, runner):
        send_many("heavy", range(2000))
        send_many("light", ["waiting"])
        runner().run_round()
        assert handled.count("light") == 1
        assert len(handled) == 4
