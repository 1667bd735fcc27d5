"""Slots: what a thread says it runs can be read after its process has died."""

import os
import signal

import pytest

from messaging.messages import Delivered
from messaging.worker.slots import Slots

# Tests have threads where the supervisor has none, and fork with care.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)


def delivered(number, **fields):
    values = {"queue_id": 7, "priority": 0, "message_id": 9, "attempt": 1, "subscription_id": None}
    return Delivered(id=number, **values | fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"subscription_id": 12},
        {"priority": -100},
        {"attempt": 1000},
        {"message_id": 2**63 - 1, "queue_id": 2**62},
        {"lane_id": 2**40, "entry_id": 2**41},
        {"token": 2**42},
    ],
)
def test_what_is_started_can_be_read(fields):
    slots = Slots(3)
    slots.start(1, delivered(2**63 - 1, **fields))
    assert slots.running(1) == delivered(2**63 - 1, **fields)
    assert slots.running(0) is None
    assert slots.running(2) is None


def test_what_is_cleared_runs_no_more():
    slots = Slots(2)
    slots.start(0, delivered(1))
    slots.start(1, delivered(2))
    slots.clear(0)
    assert slots.running(0) is None
    assert slots.running(1) == delivered(2)


def test_a_thread_is_overdue_from_its_hard_deadline_until_it_runs_something_else():
    slots = Slots(2)
    slots.start(0, delivered(1), 100.5)
    slots.start(1, delivered(2))
    assert not slots.is_overdue(0, 100.4)
    assert slots.is_overdue(0, 100.5)
    assert not slots.is_overdue(1, 10**9)
    slots.start(0, delivered(3), 200.0)
    assert not slots.is_overdue(0, 100.5)
    slots.clear(0)
    assert not slots.is_overdue(0, 10**9)


def test_elsewhere_is_every_slot_but_ones_own():
    slots = Slots(4)
    for slot in range(3):
        slots.start(slot, delivered(slot + 1))
    assert slots.running_elsewhere(1) == {1, 3}
    assert slots.running_elsewhere(3) == {1, 2, 3}


def test_the_parent_reads_what_a_killed_child_was_running():
    slots = Slots(2)
    child = os.fork()
    if child == 0:
        slots.start(1, delivered(5, attempt=3))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert slots.running(1) == delivered(5, attempt=3)
