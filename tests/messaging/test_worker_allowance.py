"""The allowance: never more messages than allowed, whichever processes handle them or die."""

import os
import signal

import pytest

from messaging.worker.allowance import Allowance

# Tests have threads where the supervisor has none, and fork with care.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


@pytest.fixture
def fork():
    """Return a function that runs another in a child process and returns the child's status."""

    def run(function):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                function()
                status = 0
            finally:
                os._exit(status)
        return child

    return run


def test_without_a_limit_everything_is_granted():
    allowance = Allowance(None)
    assert allowance.take(500) == 500
    allowance.give_back(500)
    assert not allowance.used_up


def test_no_more_is_granted_than_is_left():
    allowance = Allowance(10, slots=2)
    assert allowance.of_slot(0).take(7) == 7
    assert allowance.of_slot(1).take(7) == 3
    assert allowance.used_up
    assert allowance.of_slot(1).take(7) == 0


def test_what_was_not_handled_can_be_taken_again():
    allowance = Allowance(10)
    allowance.take(10)
    allowance.give_back(4)
    assert not allowance.used_up
    assert allowance.take(10) == 4


def test_processes_share_one_allowance(fork):
    allowance = Allowance(100_000, slots=4)

    def take_and_give_back(slot):
        mine = allowance.of_slot(slot)
        # Often enough for two to meet in the middle of it, if they could.
        for _ in range(5_000):
            assert mine.take(2) == 2
            mine.give_back(1)

    children = [fork(lambda slot=slot: take_and_give_back(slot)) for slot in range(4)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert allowance.take(100_000) == 80_000


def test_what_a_killed_process_had_reserved_is_recovered(fork):
    allowance = Allowance(100, slots=2)

    def take_and_die():
        allowance.of_slot(1).take(60)
        os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(fork(take_and_die), 0)
    assert allowance.of_slot(0).take(100) == 40
    allowance.of_slot(1).recover(handled=1)
    assert allowance.of_slot(0).take(100) == 59


def test_a_thread_that_had_reserved_nothing_gives_nothing_back():
    allowance = Allowance(100, slots=2)
    allowance.of_slot(1).take(60)
    allowance.of_slot(1).give_back(0)
    allowance.of_slot(1).recover(handled=0)
    allowance.of_slot(0).recover(handled=0)
    assert allowance.of_slot(0).take(100) == 40


def test_a_process_killed_in_the_middle_of_taking_holds_up_nobody(fork):
    allowance = Allowance(100, slots=2)

    def die_holding_the_lock():
        with allowance._locked():
            os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(fork(die_holding_the_lock), 0)
    assert allowance.of_slot(0).take(100) == 100
