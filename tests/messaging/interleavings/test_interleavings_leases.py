"""Leases in every order of their statements."""

import pytest
from stories import (
    acknowledge_together,
    done_with,
    execute,
    given_back,
    held,
    hold_again,
    hold_for_the_last_time,
    hold_one,
    hold_two,
    in_a_transaction,
    lapse,
    lost,
    make_due,
    position,
    rolled_back,
    send_keyed,
    states,
    take,
    work,
)

from messaging import LeaseLost, control, leasing, maintenance, send, send_many

pytestmark = pytest.mark.proof


class TestLeases:
    def test_each_message_is_held_once(self, every_order):
        def once(schedule):
            found = [each for result in schedule.results.values() for each in result]
            assert len(found) == 2
            assert len({message.delivery.token for message in found}) == 2
            assert states() == ["leased", "leased"]
            assert not schedule.waits

        jobs = {name: take for name in "abc"}
        every_order(lambda: send_many("invoices", [1, 2]), jobs, once)

    def test_a_message_is_acknowledged_once(self, every_order):
        def once(schedule):
            assert len(lost(schedule)) == 1
            assert states() == ["done"]

        every_order(hold_one, {"a": done_with("held"), "b": done_with("held")}, once)

    def test_what_is_acknowledged_was_held_until_then(self, every_order):
        def done_or_again(schedule):
            assert states() == (given_back(schedule) if lost(schedule) else ["done"])

        jobs = {"a": done_with("held"), "b": lapse, "c": leasing.sweep_expired}
        every_order(hold_one, jobs, done_or_again)

    def test_an_extension_keeps_a_message_or_comes_too_late(self, every_order):
        def held_or_lost(schedule):
            late = position(schedule, "b: ", "UPDATE messaging_lease") < position(schedule, "a: ")
            assert bool(lost(schedule)) == late
            if late:
                assert states() in (["leased"], ["scheduled"])

        jobs = {
            "a": lambda: held["held"].extend(60),
            "b": lapse,
            "c": leasing.sweep_expired,
        }
        every_order(hold_one, jobs, held_or_lost)

    def test_what_was_held_too_long_is_counted_once(self, every_order):
        def counted(schedule):
            assert states() == ["scheduled"]
            assert execute("SELECT attempt FROM messaging_scheduled") == [(2,)]

        def start():
            hold_one()
            lapse()

        jobs = {name: leasing.sweep_expired for name in "abc"}
        every_order(start, jobs, counted)

    def test_what_is_released_is_not_counted(self, every_order):
        def ready_or_counted(schedule):
            assert states() == (given_back(schedule) if lost(schedule) else ["ready"])

        jobs = {"a": lambda: held["held"].release(), "b": lapse, "c": leasing.sweep_expired}
        every_order(hold_one, jobs, ready_or_counted)

    def test_what_is_rejected_is_dead_or_was_lost(self, every_order):
        def dead_or_counted(schedule):
            assert states() == (given_back(schedule) if lost(schedule) else ["dead"])

        jobs = {"a": lambda: held["held"].reject("no"), "b": lapse, "c": leasing.sweep_expired}
        every_order(hold_one, jobs, dead_or_counted)

    def test_of_two_that_held_a_message_the_later_one_takes_effect(self, every_order):
        def start():
            hold_one()
            first = held["held"]
            lapse()
            leasing.sweep_expired()
            make_due()
            maintenance.promote_due()
            (held["later"],) = take()
            assert held["later"].delivery.token > first.delivery.token

        def only_the_later(schedule):
            assert isinstance(schedule.results["a"], LeaseLost)
            assert schedule.results["b"] is None
            assert execute("SELECT attempt FROM effect") == [(2,)]

        jobs = {"a": done_with("held"), "b": done_with("later"), "c": work}
        every_order(start, jobs, only_the_later)

    def test_who_held_a_message_before_cannot_settle_it(self, every_order):
        def only_the_later(schedule):
            assert isinstance(schedule.results["a"], LeaseLost)
            assert schedule.results["b"] is None
            assert isinstance(schedule.results["c"], LeaseLost)
            assert states() == ["done"]

        jobs = {
            "a": done_with("held"),
            "b": done_with("later"),
            "c": lambda: held["held"].acknowledge(),
        }
        every_order(hold_again, jobs, only_the_later)

    def test_who_held_a_message_before_cannot_extend_it(self, every_order):
        def too_late(schedule):
            assert isinstance(schedule.results["a"], LeaseLost)
            assert states() == given_back(schedule)

        jobs = {
            "a": lambda: held["held"].extend(60),
            "b": lapse,
            "c": leasing.sweep_expired,
        }
        every_order(hold_again, jobs, too_late)

    def test_of_two_acknowledged_together_the_one_that_was_lost_takes_no_effect(self, every_order):
        def only_what_was_held(schedule):
            assert states() == (["ready", "done"] if schedule.results["b"] else ["done", "done"])

        jobs = {
            "a": acknowledge_together,
            "b": lambda: control.release_leases([held["first"].delivery.id]),
        }
        every_order(hold_two, jobs, only_what_was_held)

    def test_what_was_held_too_long_for_the_last_time_is_dead_once(self, every_order):
        def dead(schedule):
            assert states() == ["dead"]

        jobs = {name: leasing.sweep_expired for name in "abc"}
        every_order(hold_for_the_last_time, jobs, dead)

    def test_an_operator_takes_a_lease_or_its_holder_settles_it(self, every_order):
        def one_of_both(schedule):
            assert bool(lost(schedule)) == bool(schedule.results["b"])
            assert states() == (["ready"] if lost(schedule) else ["done"])

        jobs = {
            "a": done_with("held"),
            "b": lambda: control.release_leases([held["held"].delivery.id]),
        }
        every_order(hold_one, jobs, one_of_both)

    def test_a_rolled_back_acknowledgement_leaves_the_message_held(self, every_order):
        def held_or_counted(schedule):
            assert states() in (["leased"], ["scheduled"])
            assert not execute("SELECT 1 FROM effect")

        jobs = {"a": rolled_back(done_with("held")), "b": lapse, "c": leasing.sweep_expired}
        every_order(hold_one, jobs, held_or_counted)

    def test_of_a_key_one_message_is_out_at_a_time(self, every_order):
        def start():
            send_keyed(1, 2, 3)
            (held["held"],) = take()

        jobs = {"a": done_with("held"), "b": take, "c": take}
        every_order(start, jobs)

    def test_a_key_goes_on_after_a_lease_that_lapsed(self, every_order):
        def start():
            send_keyed(1, 2)
            (held["held"],) = take()
            lapse()

        jobs = {"a": done_with("held"), "b": leasing.sweep_expired, "c": lambda: send_keyed(3)}
        every_order(start, jobs)

    def test_settling_and_sending_to_other_keys_never_waits_in_a_circle(self, every_order):
        def start():
            for key in ("1", "2"):
                send("invoices", key, ordering_key=key)
            held["1"], held["2"] = take(limit=2)

        def finish(mine, other):
            def run():
                done_with(mine)()
                send("invoices", 3, ordering_key=other)

            return in_a_transaction(run)

        every_order(start, {"a": finish("1", "2"), "b": finish("2", "1")}, ordered=False)
