"""Ordering keys and fairness keys in every order of their statements."""

import pytest
from stories import (
    execute,
    handled,
    in_a_transaction,
    killed,
    make_due,
    one_after_another,
    overlap,
    park_keys,
    purge,
    redrive_all,
    send_keyed,
    send_keyed_in_a_long_commit,
    work,
)

from messaging import control, maintenance, send, send_many

pytestmark = pytest.mark.proof


class TestKeys:
    def test_publishers_of_a_key_are_delivered_in_the_order_of_their_commits(self, every_order):
        def in_order(schedule):
            commits = [step[0] for step in schedule.steps if step.endswith("COMMIT")]
            assert handled() == [int(schedule.results[name]) for name in commits]

        jobs = {
            name: in_a_transaction(lambda: send("invoices", 1, ordering_key="k")) for name in "abc"
        }
        every_order(lambda: None, jobs, finally_=in_order, ordered=False)

    def test_publishers_of_several_keys_never_wait_in_a_circle(self, every_order):
        def both(*keys):
            def send_them():
                for key in keys:
                    send("invoices", key, ordering_key=key)

            return in_a_transaction(send_them)

        def start():
            both("1", "2")()

        def lock():
            execute("SELECT 1 FROM messaging_lane WHERE key = '1' FOR UPDATE")

        # The third has both others wait in the middle of their commits.
        jobs = {"a": both("1", "2"), "b": both("2", "1"), "c": in_a_transaction(lock)}
        seen = every_order(start, jobs)
        assert any(schedule.waits for schedule in seen)

    def test_publishers_of_different_keys_do_not_wait(self, every_order):
        jobs = {
            name: in_a_transaction(lambda key=name: send("invoices", 1, ordering_key=key))
            for name in "abc"
        }
        seen = every_order(lambda: None, jobs)
        assert not any(schedule.waits for schedule in seen)

    def test_two_workers_on_one_key_never_run_at_once(self, every_order):
        every_order(lambda: send_keyed(1, 2), {"a": work, "b": work}, one_after_another)

    def test_a_killed_worker_gives_its_key_back(self, every_order):
        jobs = {"a": killed(work), "b": work, "c": work}
        every_order(lambda: send_keyed(1, 2), jobs, one_after_another)

    def test_a_message_sent_while_the_last_of_its_key_ends_is_not_left_behind(self, every_order):
        jobs = {"a": work, "b": in_a_transaction(lambda: send_keyed(2)), "c": work}
        every_order(lambda: send_keyed(1), jobs, one_after_another)

    def test_a_message_whose_commit_takes_long_is_not_left_behind(self, every_order):
        jobs = {"a": work, "b": lambda: send_keyed_in_a_long_commit(2)}
        every_order(lambda: send_keyed(1), jobs, one_after_another)

    def test_a_failing_message_is_retried_before_the_rest_of_its_key(self, every_order):
        jobs = {"a": work, "b": work, "c": lambda: send_keyed(3)}
        every_order(lambda: send_keyed({"fails": 1}, 2), jobs, one_after_another)

    def test_a_retry_that_becomes_due_keeps_its_place(self, every_order):
        def start():
            send_keyed({"fails": 1}, 2)
            work()
            make_due()

        jobs = {"a": maintenance.promote_due, "b": work, "c": lambda: send_keyed(3)}
        every_order(start, jobs, one_after_another)

    def test_a_parked_key_goes_on_with_its_dead_letter_first(self, every_order):
        def start():
            park_keys()
            send_keyed({"dies": "once"}, 2)
            work()

        jobs = {"a": redrive_all, "b": lambda: send_keyed(3), "c": work}
        every_order(start, jobs, one_after_another)

    def test_a_key_that_is_parked_keeps_what_is_sent_meanwhile(self, every_order):
        def start():
            park_keys()
            send_keyed({"dies": "once"}, 2)

        jobs = {"a": work, "b": in_a_transaction(lambda: send_keyed(3)), "c": redrive_all}
        every_order(start, jobs)

    def test_a_parked_key_is_released_once(self, every_order):
        def start():
            park_keys()
            send_keyed({"rejected": True}, 2, 3)
            work()

        def release():
            return control.release_key("invoices", "k")

        jobs = {"a": release, "b": release, "c": redrive_all}
        every_order(start, jobs, ordered=False)

    def test_a_purged_key_takes_new_messages(self, every_order):
        jobs = {"a": purge, "b": work, "c": in_a_transaction(lambda: send_keyed(3))}
        every_order(lambda: send_keyed(1, 2), jobs, one_after_another)

    def test_a_delayed_message_joins_its_key_when_it_is_due(self, every_order):
        def start():
            send("invoices", 1, ordering_key="k", delay=3600)
            make_due()
            send_keyed(2)

        jobs = {
            "a": maintenance.promote_due,
            "b": work,
            "c": in_a_transaction(lambda: send_keyed(3)),
        }
        every_order(start, jobs, ordered=False)

    def test_workers_share_a_fairness_key(self, every_order):
        def both_at_once(schedule):
            assert sum(schedule.results.values()) == 2
            assert not schedule.waits

        def start():
            send_many("invoices", [1, 2], fairness_key="f")

        jobs = {"a": work, "b": work, "c": work}
        seen = every_order(start, jobs, both_at_once, ordered=False)
        assert any(overlap(schedule) for schedule in seen)

    def test_a_handler_that_sends_to_its_own_key_comes_after_itself(self, every_order):
        jobs = {"a": work, "b": work, "c": work}
        every_order(lambda: send_keyed({"sends": 2, "to": "k"}), jobs, one_after_another)

    def test_handlers_that_send_to_each_others_keys_never_wait_in_a_circle(self, every_order):
        def start():
            send("invoices", {"sends": 1, "to": "2"}, ordering_key="1")
            send("invoices", {"sends": 1, "to": "1"}, ordering_key="2")

        every_order(start, {"a": work, "b": work}, ordered=False)
