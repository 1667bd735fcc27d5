"""The bell wakes whoever waits, rung by a thread or by a signal."""

import os
import signal
import threading
import time

import pytest

from messaging.worker.bell import Bell

LONG = 60  # seconds: a test that has to wait for it fails


@pytest.fixture
def bell():
    bell = Bell()
    yield bell
    bell.close()


@pytest.fixture
def quickly():
    """Fail a test whose waiting was not cut short."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < LONG


def test_ringing_before_the_wait_is_not_lost(bell, quickly):
    bell.ring()
    bell.wait(LONG)


def test_another_thread_can_ring(bell, quickly):
    thread = threading.Thread(target=bell.ring)
    thread.start()
    bell.wait(LONG)
    thread.join()


def test_one_wait_takes_up_all_the_ringing(bell):
    for _ in range(100):
        bell.ring()
    bell.wait(LONG)
    with pytest.raises(BlockingIOError):
        bell._listening.recv(1)


def test_ringing_without_end_never_blocks_or_fails(bell, quickly):
    for _ in range(100_000):
        bell.ring()


def test_a_signal_with_a_handler_rings(bell, quickly):
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        with bell.rung_by_signals():
            os.kill(os.getpid(), signal.SIGUSR1)
            bell.wait(LONG)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_another_descriptor_ends_the_wait(bell, quickly):
    reading, writing = os.pipe()
    os.close(writing)
    bell.wait(LONG, [reading])
    os.close(reading)
