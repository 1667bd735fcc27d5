"""A coroutine past its hard timeout costs its process and an attempt of its own, and no other's."""

import pytest
from machinery import wait_until

WAYS_TO_HANG = pytest.mark.parametrize("by", ["blocking", "going on", "the interpreter"])


@WAYS_TO_HANG
def test_a_coroutine_past_its_hard_timeout_is_killed_and_dies_of_it(
    database, send_all, start_worker, by
):
    (late,) = send_all("stubborn", [{"by": by}])
    worker = start_worker("--processes=1")
    wait_until(lambda: database.dead(), 60, report=lambda: worker.output)
    assert database.dead() == {late: ("timeout", 2)}
    assert database.value("SELECT error FROM messaging_deadletter") == "HandlerTimeout"
    assert database.attempts(late) == [1, 2]
    (well,) = send_all("stubborn", [{}])
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.attempts(well) == []


@WAYS_TO_HANG
def test_draining_ends_though_a_coroutine_does_not(database, send_all, start_worker, by):
    late, well = send_all("stubborn", [{"by": by}, {}])
    # Nobody waits for a retry that is not due yet: who drains next finds it.
    for _ in range(3):
        assert start_worker("--processes=1", "--drain").wait(60) == 0
    assert database.dead() == {late: ("timeout", 2)}
    assert database.attempts(late) == [1, 2]
    assert (database.waiting, database.attempts(well)) == (0, [])


def test_coroutines_beside_one_that_holds_up_their_loop_are_not_counted(
    database, send_all, start_worker, tmp_path
):
    gate = tmp_path / "gate"
    (beside,) = send_all("patient", [{"gate": str(gate)}])
    worker = start_worker("--processes=1", ready=1)
    wait_until(gate.with_suffix(".reached").exists, report=lambda: worker.output)
    (late,) = send_all("stubborn", [{"by": "blocking"}])
    wait_until(lambda: database.dead(), 60, report=lambda: worker.output)
    gate.touch()
    wait_until(lambda: not database.waiting, report=lambda: worker.output)
    assert database.dead() == {late: ("timeout", 2)}
    assert database.attempts(beside) == []
    assert database.value(f"SELECT count(*) FROM trials_effect WHERE message_id = {beside}") == 1
