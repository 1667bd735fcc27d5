"""Time out: a handler that takes too long is interrupted, and nothing else ever is."""

import contextlib
import threading
import time

import pytest
from django.db import connection, transaction
from effects import effects, execute, failures, make_due, take_effect, waiting

from messaging import HandlerTimeout, Reject, consumer, send, send_many
from messaging.models import Attempt, DeadLetter
from messaging.testing import drain
from messaging.timeouts import TimeLimit
from messaging.worker.slots import Slots

pytestmark = pytest.mark.django_db
FOR_EVER = 60.0


def spin():
    """Be at work in Python until somebody interrupts it."""
    deadline = time.monotonic() + FOR_EVER
    while time.monotonic() < deadline:
        pass
    raise AssertionError("nobody interrupted it")


def busy_until(moment):
    """Be at work, in a function of its own: Python 3.13.0 lets an exception at a loop's end pass by
    the handlers of the function that the loop is in.
    """
    while time.monotonic() < moment:
        pass


def sleep_in_sql():
    execute("SELECT pg_sleep(%s)", FOR_EVER)
    raise AssertionError("nobody interrupted it")


@pytest.fixture
def handle(declare):
    """Return a function that handles "a", "odd" and "b", the odd one with the function given."""

    def run(function, *, timeout=0.2, **options):
        def work(message):
            take_effect(message.body)
            if message.body == "odd":
                function()

        declare(work, timeout=timeout, backoff_base=60, **options)
        send_many("invoices", ["a", "odd", "b"])
        drain("invoices")

    return run


class TestAHandlerThatTakesTooLong:
    @pytest.mark.parametrize("function", [spin, sleep_in_sql])
    @pytest.mark.parametrize("size", [None, 10])
    def test_is_interrupted_and_undone_alone_and_its_attempt_counts(self, handle, function, size):
        handle(function, transaction_size=size)
        assert effects() == ["a", "b"]
        assert [error for _, error in failures()] == ["HandlerTimeout"]
        assert Attempt.objects.get().description == "The handler took longer than 0.2 seconds."
        assert execute("SELECT attempt FROM messaging_scheduled") == [(2,)]

    def test_ends_in_the_dead_letters_with_the_reason_timeout(self, handle):
        handle(spin, max_deliveries=2)
        make_due()
        drain("invoices")
        dead = DeadLetter.objects.get()
        assert (dead.body, dead.reason, dead.attempts) == ("odd", "timeout", 2)

    def test_shows_where_it_was(self, handle):
        handle(spin)
        assert "in spin" in Attempt.objects.get().traceback

    def test_is_interrupted_inside_its_own_atomic_block(self, handle):
        def work():
            with transaction.atomic():
                take_effect("inner")
                with transaction.atomic():
                    sleep_in_sql()

        handle(work, transaction_size=10)
        assert effects() == ["a", "b"]
        assert not connection.needs_rollback

    def test_may_clean_up_and_be_done(self, handle):
        def give_up():
            try:
                spin()
            except HandlerTimeout:
                take_effect("given up")

        handle(give_up)
        assert effects() == ["a", "odd", "given up", "b"]
        assert failures() == []

    def test_may_say_what_to_do_instead(self, handle):
        def reject():
            try:
                spin()
            except HandlerTimeout as error:
                raise Reject("too slow") from error

        handle(reject)
        assert DeadLetter.objects.get().reason == "rejected"

    def test_has_timed_out_whatever_it_makes_of_that(self, handle):
        def translate():
            try:
                sleep_in_sql()
            except HandlerTimeout as error:
                raise ValueError("could not look it up") from error

        handle(translate)
        assert [error for _, error in failures()] == ["HandlerTimeout"]
        assert "could not look it up" in Attempt.objects.get().traceback

    def test_swallows_a_cancelled_statement_in_vain(self, handle):
        def swallow():
            with contextlib.suppress(HandlerTimeout):
                sleep_in_sql()

        handle(swallow)
        assert effects() == ["a", "b"]
        assert [error for _, error in failures()] == ["HandlerTimeout"]

    def test_is_one_of_a_batch_too(self, declare):
        def work(messages):
            for message in messages:
                take_effect(message.body)
                if message.body == "odd":
                    spin()

        declare(work, batch=3, timeout=0.2, backoff_base=60)
        send_many("invoices", ["a", "odd", "b"])
        drain("invoices")
        assert sorted(effects()) == ["a", "b"]
        assert [error for _, error in failures()] == ["HandlerTimeout"]

    @pytest.mark.django_db(transaction=True)
    def test_that_leaves_its_statement_half_way_loses_nothing_else(
        self, declare, runner, monkeypatch
    ):
        monkeypatch.setattr("messaging.timeouts.CANCEL_PATIENCE", 0.2)

        def abandon(message):
            if message.body == "odd" and message.attempt == 1:
                connection.connection.pgconn.send_query(b"SELECT pg_sleep(60)")
                spin()
            take_effect(message.body)

        declare(abandon, timeout=0.2, backoff_base=60)
        send_many("invoices", ["a", "odd", "b"])
        runner(drain=True).run()
        assert effects() == ["a", "b"]
        assert [error for _, error in failures()] == ["HandlerTimeout"]


class TestAHandlerInTime:
    def test_is_never_interrupted_afterwards(self):
        """Ends as close to its time as it can, often, and sees whether anything comes later."""
        late = 0
        for number in range(300):
            seconds = 0.002
            try:
                try:
                    limit = TimeLimit(seconds, connection)
                    limit.begin()
                    busy_until(limit.deadline - 0.0005 + number * 0.000004)
                finally:
                    limit.end()
            except HandlerTimeout:
                late += 1
            # Whatever was still to come would come here, outside of everything.
            for _ in range(200):
                pass
        assert 0 < late < 300

    def test_leaves_the_next_statement_alone(self, declare):
        def work(message):
            until = time.monotonic() + message.body
            while time.monotonic() < until:
                execute("SELECT 1")
            take_effect(message.id)

        declare(work, timeout=0.02, backoff_base=60, jitter="none")
        send_many("invoices", [0.015 + number * 0.0001 for number in range(60)])
        drain("invoices")
        assert {error for _, error in failures()} <= {"HandlerTimeout"}
        assert len(effects()) + len(failures()) == 60

    def test_has_a_time_of_its_own_each(self, declare):
        # Fifteen together take longer than each of them may.
        declare(lambda message: time.sleep(0.05), timeout=0.5, transaction_size=50)
        send_many("invoices", range(15))
        drain("invoices")
        assert failures() == []

    def test_is_watched_by_one_thread_only(self, declare):
        declare(lambda message: None, timeout=5)
        send_many("invoices", range(20))
        drain("invoices")
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("messaging-timeouts") == 1


class TestTheHardTimeout:
    def test_stands_in_the_slot_while_the_handler_runs(self, declare, runner):
        seen = []
        slots = Slots(1)
        now = time.monotonic

        def look(message):
            seen.append((slots.is_overdue(0, now() + 5), slots.is_overdue(0, now() + 7)))

        declare(look, hard_timeout=6)
        send_many("invoices", [1, 2])
        runner(slots=slots, drain=True).run()
        assert seen == [(False, True)] * 2

    def test_is_ten_seconds_more_than_the_soft_one_unless_it_is_given(self, declared):
        consumer("soft", timeout=5)(spin)
        consumer("both", timeout=5, hard_timeout=7)(spin)
        consumer("hard", hard_timeout=7)(spin)
        consumer("none")(spin)
        found = [(c.timeout, c.hard_timeout) for c in declared.consumers.values()]
        assert found == [(5, 15), (5, 7), (None, 7), (None, None)]


class TestADeclaration:
    @pytest.mark.parametrize("option", ["timeout", "hard_timeout"])
    @pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "5", True], ids=repr)
    def test_refuses_what_is_no_time(self, declared, option, value):
        with pytest.raises(ValueError, match=f"{option}={value!r}, use 0.001 to 604,800"):
            consumer("invoices", **{option: value})

    @pytest.mark.parametrize("hard", [5, 4.9])
    def test_refuses_a_hard_timeout_that_leaves_the_soft_one_no_time(self, declared, hard):
        with pytest.raises(ValueError, match=f"hard_timeout={hard} is not above timeout=5"):
            consumer("invoices", timeout=5, hard_timeout=hard)


def test_a_timeout_in_the_handler_of_one_thread_is_none_in_another(declare, elsewhere):
    """The watcher serves several threads at once."""
    ends = {}

    def call(name, seconds):
        connection.ensure_connection()
        try:
            try:
                limit = TimeLimit(seconds, connection)
                limit.begin()
                busy_until(time.monotonic() + 1)
            finally:
                limit.end()
        except HandlerTimeout:
            ends[name] = "late"
        else:
            ends[name] = "in time"

    for running in [elsewhere(call, "short", 0.1), elsewhere(call, "long", 30)]:
        running.result(timeout=20)
    assert ends == {"short": "late", "long": "in time"}


def test_a_handler_with_a_timeout_still_sends(declare, queue):
    queue("others")
    declare(lambda message: send("others", 1), timeout=5)
    send("invoices", 1)
    drain("invoices")
    assert waiting() == {"ready": 1}
