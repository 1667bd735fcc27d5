"""Claims, sending and operations in every order of their statements."""

import pytest
from stories import (
    ENDLESS,
    cancel_all,
    discard_dead,
    execute,
    in_a_transaction,
    killed,
    make_due,
    one_dead,
    position,
    purge,
    redrive_all,
    redrive_dead,
    retry_all_now,
    rolled_back,
    states,
    subscribe,
    subscribe_both,
    unsubscribe,
    work,
)

from messaging import DeduplicationConflict, maintenance, publish, send, send_many
from messaging.models import Delivery

pytestmark = pytest.mark.proof


class TestClaims:
    def test_two_workers_never_take_the_same_message(self, every_order):
        def both_found_work(schedule):
            # The one that is passed over by SKIP LOCKED takes the next.
            assert list(schedule.results.values()) == [1, 1]
            assert states() == ["done", "done"]
            assert not schedule.waits

        every_order(lambda: send_many("invoices", [1, 2]), {"a": work, "b": work}, both_found_work)

    def test_three_workers_share_what_there_is(self, every_order):
        def each_once(schedule):
            assert sum(schedule.results.values()) == 2
            assert states() == ["done", "done"]
            assert not schedule.waits

        jobs = {"a": work, "b": work, "c": work}
        every_order(lambda: send_many("invoices", [1, 2]), jobs, each_once)

    def test_what_is_rolled_back_is_there_for_the_others(self, every_order):
        def one_at_most(schedule):
            assert schedule.results["b"] + schedule.results["c"] == states().count("done")
            assert states() in (["ready"], ["done"])

        jobs = {"a": killed(work), "b": work, "c": work}
        every_order(lambda: send("invoices", 1), jobs, one_at_most)

    def test_a_message_is_claimed_after_its_commit_only(self, every_order):
        def visible_when_committed(schedule):
            claimed = position(schedule, "b: ", "DELETE FROM messaging_delivery")
            assert schedule.results["b"] == (position(schedule, "a: COMMIT") < claimed < ENDLESS)

        jobs = {"a": in_a_transaction(lambda: send("invoices", 1)), "b": work}
        every_order(lambda: None, jobs, visible_when_committed)

    def test_a_failing_message_is_counted_once_and_does_not_hold_up_the_other(self, every_order):
        def one_done_one_failed(schedule):
            assert states() == ["scheduled", "done"]
            assert execute("SELECT attempt FROM messaging_scheduled") == [(2,)]

        def start():
            send_many("invoices", [{"fails": 1}, 1])

        every_order(start, {"a": work, "b": work}, one_done_one_failed)

    def test_a_message_that_fails_for_the_last_time_is_dead_once(self, every_order):
        def start():
            send("invoices", {"fails": 2})
            work()
            make_due()
            maintenance.promote_due()

        def dead(schedule):
            assert states() == ["dead"]

        jobs = {"a": work, "b": work, "c": maintenance.promote_due}
        every_order(start, jobs, dead)


class TestSending:
    def test_one_of_two_senders_of_an_id_is_the_duplicate(self, every_order):
        def one_message(schedule):
            first, second = schedule.results.values()
            assert first == second
            assert {first.duplicate, second.duplicate} == {True, False}
            assert states() == ["ready"]

        def send_it():
            return send("invoices", 1, deduplication_id="one")

        jobs = {"a": in_a_transaction(send_it), "b": in_a_transaction(send_it)}
        seen = every_order(lambda: None, jobs, one_message)
        assert any(schedule.waits for schedule in seen)

    def test_the_second_sender_of_an_id_is_the_first_when_the_first_rolls_back(self, every_order):
        def original(schedule):
            assert not schedule.results["b"].duplicate
            assert states() == ["ready"]

        def send_it():
            return send("invoices", 1, deduplication_id="one")

        jobs = {"a": rolled_back(send_it), "b": in_a_transaction(send_it)}
        seen = every_order(lambda: None, jobs, original)
        assert any(schedule.waits for schedule in seen)

    def test_of_three_senders_of_an_id_one_stores_its_message(self, every_order):
        def one_message(schedule):
            assert len({int(found) for found in schedule.results.values() if found}) == 1
            assert states() == ["ready"]

        def send_it():
            return send("invoices", 1, deduplication_id="one")

        jobs = {"a": rolled_back(send_it), "b": in_a_transaction(send_it), "c": send_it}
        every_order(lambda: None, jobs, one_message)

    def test_an_id_with_another_body_conflicts_whoever_comes_first(self, every_order):
        def one_and_a_conflict(schedule):
            kinds = {type(result) for result in schedule.results.values()}
            assert DeduplicationConflict in kinds
            assert states() == ["ready"]

        jobs = {
            name: in_a_transaction(lambda body=name: send("invoices", body, deduplication_id="x"))
            for name in "ab"
        }
        every_order(lambda: None, jobs, one_and_a_conflict)

    def test_a_publication_reaches_each_subscriber_of_its_moment_once(self, every_order):
        def all_or_none(schedule):
            reached = set(Delivery.objects.values_list("queue__name", flat=True))
            stored = position(schedule, "a: ", "INSERT INTO messaging_message")
            subscribed, left = position(schedule, "b: COMMIT"), position(schedule, "c: COMMIT")
            assert ("copies" in reached) == (subscribed < stored)
            assert ("invoices" in reached) == (left > stored)

        def start():
            subscribe("invoices")

        jobs = {
            "a": in_a_transaction(lambda: publish("orders.placed", 1)),
            "b": in_a_transaction(lambda: subscribe("copies")),
            "c": in_a_transaction(lambda: unsubscribe("invoices")),
        }
        every_order(start, jobs, all_or_none)

    def test_a_publication_that_is_rolled_back_reaches_nobody(self, every_order):
        def nobody(schedule):
            assert not states()

        jobs = {
            "a": rolled_back(lambda: publish("orders.placed", 1)),
            "b": work,
            "c": lambda: work("copies"),
        }
        every_order(subscribe_both, jobs, nobody)

    def test_each_subscriber_handles_a_publication_with_a_key_once(self, every_order):
        jobs = {
            "a": in_a_transaction(lambda: publish("orders.placed", 1, ordering_key="k")),
            "b": work,
            "c": lambda: work("copies"),
        }
        every_order(subscribe_both, jobs)

    def test_of_two_publications_of_an_id_the_subscribers_have_one(self, every_order):
        def publish_it():
            return publish("orders.placed", 1, deduplication_id="one")

        jobs = {"a": in_a_transaction(publish_it), "b": rolled_back(publish_it), "c": publish_it}
        every_order(subscribe_both, jobs)


class TestOperations:
    def test_a_purge_takes_nothing_that_a_worker_holds(self, every_order):
        def done_or_gone(schedule):
            assert states().count("done") == schedule.results["a"]
            assert len(states()) + schedule.results["b"] == 2

        jobs = {"a": work, "b": purge}
        every_order(lambda: send_many("invoices", [1, 2]), jobs, done_or_gone)

    def test_a_cancelled_message_is_not_delivered_and_a_delivered_one_not_cancelled(
        self, every_order
    ):
        def one_of_both(schedule):
            assert schedule.results["a"] + len(states()) == 1

        def start():
            send("invoices", 1, delay=3600)
            make_due()

        jobs = {"a": cancel_all, "b": maintenance.promote_due, "c": work}
        every_order(start, jobs, one_of_both)

    def test_a_message_becomes_due_once_whoever_makes_it_due(self, every_order):
        def once(schedule):
            assert states() == ["ready"]

        def start():
            send("invoices", 1, delay=3600)
            make_due()

        jobs = {
            "a": in_a_transaction(maintenance.promote_due),
            "b": in_a_transaction(maintenance.promote_due),
            "c": retry_all_now,
        }
        every_order(start, jobs, once)

    def test_a_dead_letter_is_redriven_once_however_often(self, every_order):
        def once(schedule):
            assert sorted(schedule.results.values()) == [0, 0, 1]
            assert states() == ["ready"]

        jobs = {name: redrive_dead for name in "abc"}
        every_order(one_dead, jobs, once)

    def test_a_dead_letter_is_redriven_or_discarded(self, every_order):
        def one_of_both(schedule):
            assert schedule.results["a"] + schedule.results["b"] == 1
            assert bool(states()) == schedule.results["a"]

        jobs = {"a": redrive_dead, "b": discard_dead, "c": work}
        every_order(one_dead, jobs, one_of_both)

    def test_a_message_that_dies_can_be_redriven_from_then_on(self, every_order):
        def somewhere(schedule):
            assert states() == [["dead"], ["ready"]][schedule.results["b"]]

        jobs = {"a": work, "b": redrive_all}
        every_order(lambda: send("invoices", {"rejected": True}), jobs, somewhere)

    def test_retention_keeps_the_log_of_what_waits_or_comes_back(self, every_order):
        def kept(schedule):
            assert execute("SELECT body ->> 'rejected' FROM messaging_message") == [("true",)]

        def start():
            one_dead()
            execute("UPDATE messaging_message SET published_at = 'epoch'")

        jobs = {"a": in_a_transaction(redrive_all), "b": maintenance.prune}
        every_order(start, jobs, kept)
