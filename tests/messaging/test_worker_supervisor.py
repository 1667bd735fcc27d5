"""The supervisor: replaces what dies, passes on what it is told, and leaves nothing behind."""

import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress

import pytest
from django.db import transaction
from effects import delivered, execute, failures

from messaging import send
from messaging.models import Delivery
from messaging.worker import supervisor as module
from messaging.worker.options import Options
from messaging.worker.supervisor import Supervisor

# Tests have threads where the supervisor has none, and fork with care.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)

PATIENCE = 20  # seconds
fork = multiprocessing.get_context("fork")


class Script:
    """What the forked processes do, and what they have noted in memory that all share."""

    def __init__(self):
        self.starts = fork.Value("i", 0)
        self.told = fork.Value("i", 0)
        self.notes = fork.Value("i", 0)
        self.processes = fork.Array("i", 32)
        self.live = lambda number, process: 0

    def wait_until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError("not in time")
            time.sleep(0.005)

    def obey(self):
        """Live as a process does that ends when it is told."""
        ended = []

        def end(number, frame):
            with self.told.get_lock():
                self.told.value += 1
            ended.append(True)

        signal.signal(signal.SIGTERM, end)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        self.wait_until(lambda: ended)
        return 0


@pytest.fixture
def script(monkeypatch):
    """Return the script that the supervisor's processes follow instead of working."""
    script = Script()

    class Actor:
        def __init__(self, options, slots, slot_numbers, allowance, *, parent, pulses, paused):
            self.slots, self.slot_numbers, self.parent = slots, slot_numbers, parent
            self.pulses, self.paused = pulses, paused

        def run(self):
            with script.starts.get_lock():
                script.starts.value += 1
                number = script.starts.value
                script.processes[number] = os.getpid()
            return script.live(number, self)

    monkeypatch.setattr(module, "Process", Actor)
    return script


@pytest.fixture
def supervise(script):
    """Return a function that runs a supervisor, while another in a thread may signal it."""

    def run(meanwhile=lambda: None, **options):
        given_up = threading.Event()

        def give_up():
            given_up.set()
            for process in filter(None, script.processes):
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

        patience = threading.Timer(PATIENCE, give_up)
        thread = threading.Thread(target=meanwhile)
        patience.start()
        thread.start()
        try:
            assert Supervisor(Options(consumers=[], **options)).run() == 0
        finally:
            patience.cancel()
            thread.join()
        assert not given_up.is_set(), f"it did not end in {PATIENCE} seconds"

    return run


def signal_us(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


class TestAProcessThatEnds:
    def test_by_itself_in_a_drain_is_not_missed(self, script, supervise):
        supervise(processes=3, drain=True)
        assert script.starts.value == 3

    @pytest.mark.parametrize("how", ["code", "signal", "exception"])
    def test_with_an_error_is_replaced(self, script, supervise, how):
        def die_once(number, process):
            if number > 1:
                return 0
            if how == "signal":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "exception":
                raise ValueError
            return 3

        script.live = die_once
        supervise(processes=1, drain=True)
        assert script.starts.value == 2

    def test_again_and_again_is_replaced_after_a_growing_delay(self, script):
        supervisor = Supervisor(Options(consumers=[], processes=2))
        delays = []
        for _ in range(12):
            supervisor._delay_start(True, 0.1)
            delays.append(round(max(0.0, supervisor._start_at - time.monotonic()), 1))
        assert delays == [0, 0, 0.8, 1.6, 3.2, 6.4, 10, 10, 10, 10, 10, 10]

    @pytest.mark.parametrize(("failed_by_itself", "lived"), [(False, 0.1), (True, 5.0)])
    def test_because_of_a_message_or_late_is_replaced_at_once(
        self, script, failed_by_itself, lived
    ):
        supervisor = Supervisor(Options(consumers=[], processes=1))
        for _ in range(12):
            supervisor._delay_start(failed_by_itself, lived)
        assert supervisor._start_at == 0

    def test_knows_its_supervisor(self, script, supervise):
        script.live = lambda number, process: int(process.parent != os.getppid())
        supervise(processes=1, drain=True)
        assert script.starts.value == 1

    def test_has_slots_of_its_own(self, script, supervise):
        def note_slots(number, process):
            with script.notes.get_lock():
                script.notes.value += sum(1 << slot for slot in process.slot_numbers)
            script.wait_until(lambda: script.starts.value == 2)
            return 0

        script.live = note_slots
        supervise(processes=2, threads=2, drain=True)
        assert script.notes.value == 0b1111


class TestAStopSignal:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_reaches_every_process_once(self, script, supervise, number):
        script.live = lambda number, process: script.obey()

        def stop():
            script.wait_until(lambda: script.starts.value == 3)
            signal_us(number)

        supervise(stop, processes=3)
        assert script.told.value == 3

    def test_waits_for_a_process_that_cannot_obey_it_yet(self, script, supervise):
        def obey_at_last(number, process):
            script.wait_until(lambda: signal.SIGTERM in signal.sigpending())
            return script.obey()

        script.live = obey_at_last

        def stop():
            script.wait_until(lambda: script.starts.value == 1)
            signal_us()

        supervise(stop, processes=1)
        assert script.told.value == 1

    def test_in_the_middle_of_a_start_is_not_lost(self, script, supervise, monkeypatch):
        script.live = lambda number, process: script.obey()
        start = Supervisor._start

        def start_and_be_told(supervisor, slots):
            signal_us()
            start(supervisor, slots)

        monkeypatch.setattr(Supervisor, "_start", start_and_be_told)
        supervise(processes=3)
        assert script.starts.value == script.told.value == 1

    def test_starts_nothing_again(self, script, supervise):
        def die_when_told(number, process):
            script.obey()
            return 3

        script.live = die_when_told

        def stop():
            script.wait_until(lambda: script.starts.value == 2)
            signal_us()

        supervise(stop, processes=2)
        assert script.starts.value == 2

    def test_that_comes_twice_ends_everything_now(self, script, supervise):
        def ignore(number, process):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            with script.notes.get_lock():
                script.notes.value += 1
            time.sleep(PATIENCE * 10)

        script.live = ignore

        def stop_twice():
            script.wait_until(lambda: script.notes.value == 2)
            signal_us()
            signal_us(signal.SIGINT)

        supervise(stop_twice, processes=2, grace=PATIENCE * 10)

    def test_is_enforced_when_the_grace_is_over(self, script, supervise, monkeypatch):
        monkeypatch.setattr(module, "MARGIN", 0.1)

        def ignore(number, process):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            script.notes.value = 1
            time.sleep(PATIENCE * 10)

        script.live = ignore

        def stop():
            script.wait_until(lambda: script.notes.value)
            signal_us()

        supervise(stop, processes=1, grace=0.1)

    def test_of_a_closed_terminal_is_none(self, script, supervise):
        script.live = lambda number, process: script.obey()

        def hang_up_and_stop():
            script.wait_until(lambda: script.starts.value == 1)
            signal_us(signal.SIGHUP)
            signal_us()

        supervise(hang_up_and_stop, processes=1)
        assert script.told.value == 1


def test_a_process_is_in_a_group_of_its_own(script, supervise):
    # Ctrl-C reaches the group of the supervisor.
    script.live = lambda number, process: int(os.getpgid(0) != os.getpid())
    supervise(processes=1, drain=True)
    assert script.starts.value == 1


def test_signals_mean_what_they_meant_when_it_has_ended(script, supervise):
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    supervise(processes=1, drain=True)
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.django_db(transaction=True)
def test_a_drain_goes_on_only_when_the_death_is_counted(script, supervise, queue, elsewhere, until):
    queue("invoices")
    send("invoices", 1)
    claimed = delivered(Delivery.objects.get())

    def die_first(number, process):
        if number == 1:
            process.slots.start(process.slot_numbers[0], claimed)
            os._exit(0)
        script.notes.value = len(failures())
        return 0

    script.live = die_first
    held = []

    def hold_for_a_while():
        """Be the session that has not noticed yet that its client is dead."""
        with transaction.atomic():
            held.extend(execute("SELECT id FROM messaging_delivery FOR UPDATE"))
            until(lambda: script.starts.value == 1)
            # Time enough for a supervisor that does not wait to start the next one.
            deadline = time.monotonic() + 0.5
            until(lambda: time.monotonic() > deadline or script.starts.value > 1)

    holding = elsewhere(hold_for_a_while)
    until(lambda: held)
    supervise(processes=1, drain=True)
    holding.result()
    assert script.starts.value == 2
    assert script.notes.value == 1
    assert len(failures()) == 1
