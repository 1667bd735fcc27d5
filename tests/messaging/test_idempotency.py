"""What `once()` did is remembered together with its effect, and forgotten with it."""

import datetime
from contextlib import suppress

import pytest
from django.db import connection, transaction
from django.utils import timezone

from messaging import InvalidMessage, PayloadTooLarge, consumer, once, send
from messaging.models import Idempotency, Queue
from messaging.testing import drain

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("bare")]


def effect(name="effect"):
    """Leave a row that can be counted."""
    Queue.objects.create(name=name)


def effects():
    return Queue.objects.filter(name__startswith="effect").count()


class TestOnce:
    def test_only_the_first_call_is_the_first(self):
        for _ in range(3):
            with once("charge-card", 7) as first:
                if first:
                    effect()
        assert effects() == 1

    def test_each_scope_and_key_is_one_of_its_own(self):
        told = []
        for scope, key in (("charge", 1), ("charge", 2), ("mail", 1), ("charge", "1")):
            with once(scope, key) as first:
                told.append(bool(first))
        assert told == [True, True, True, False]

    @pytest.mark.parametrize("result", [None, 0, "", False, {"id": "ch_1", "n": 2**60}, [1]])
    def test_the_second_call_gets_what_the_first_saved(self, result):
        with once("charge", 1) as first:
            assert first.result is None
            first.save(result)
            assert first.result == result
        with once("charge", 1) as second:
            assert not second
            assert second.result == result
            assert type(second.result) is type(result)

    def test_a_result_that_cannot_be_stored_is_refused(self, settings):
        settings.MESSAGING = {"MAX_BODY_BYTES": 100}
        with once("charge", 1) as first:
            with pytest.raises(InvalidMessage, match=r"\$\.a"):
                first.save({"a": object()})
            with pytest.raises(PayloadTooLarge):
                first.save("x" * 101)
            first.save("ok")
            assert first.result == "ok"

    def test_a_block_that_fails_is_forgotten_with_its_effects(self):
        with suppress(LookupError), once("charge", 1):
            effect()
            raise LookupError
        assert effects() == 0
        with once("charge", 1) as first:
            assert first

    def test_a_rolled_back_transaction_forgets_too(self):
        with suppress(LookupError), transaction.atomic():
            with once("charge", 1) as first:
                first.save("result")
            raise LookupError
        with once("charge", 1) as first:
            assert first
            assert first.result is None

    def test_a_handler_that_is_retried_does_its_effect_once(self, declared, queue):
        queue("invoices", backoff_base=0)
        attempts = []

        @consumer("invoices")
        def handle(message):
            with once("charge", message.id) as first:
                if first:
                    effect()
            attempts.append(message.attempt)
            if message.attempt < 3:
                raise LookupError

        send("invoices", 1)
        drain()
        assert (attempts, effects()) == ([1, 2, 3], 1)

    def test_a_call_is_one_statement_and_a_savepoint(self, django_assert_num_queries):
        with django_assert_num_queries(3), once("charge", 1):
            pass


class TestWindows:
    @pytest.mark.parametrize("window", [90, 90.0, datetime.timedelta(seconds=90)])
    def test_a_window_forgets_after_its_time(self, window):
        with once("charge", 1, window=window) as first:
            first.save("first")
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT expires_at - created_at = interval '90 seconds' FROM messaging_idempotency"
            )
            assert cursor.fetchone() == (True,)
        with once("charge", 1, window=window) as second:
            assert not second
        Idempotency.objects.update(expires_at=timezone.now())
        with once("charge", 1, window=window) as again:
            assert again
            assert again.result is None
        assert Idempotency.objects.get().expires_at > timezone.now()

    def test_without_a_window_it_is_for_ever(self):
        with once("charge", 1):
            pass
        assert Idempotency.objects.get().expires_at is None

    @pytest.mark.parametrize(
        "window", [0, -1, float("nan"), float("inf"), datetime.timedelta.max, "1", True], ids=repr
    )
    def test_other_windows_are_refused(self, window):
        with pytest.raises(InvalidMessage, match="window"), once("charge", 1, window=window):
            effect()
        assert effects() == 0


class TestNames:
    @pytest.mark.parametrize("scope", ["", "s" * 81, "a\0", "\ud800", None, 5], ids=repr)
    def test_a_scope_has_1_to_80_characters(self, scope):
        with pytest.raises(InvalidMessage, match="is no scope"), once(scope, 1):
            effect()

    @pytest.mark.parametrize("key", ["", "k" * 201, "a\0", "\ud800"], ids=repr)
    def test_a_key_has_1_to_200_characters(self, key):
        with pytest.raises(InvalidMessage, match="is no key"), once("charge", key):
            effect()

    def test_the_key_of_an_object_that_was_never_saved_is_refused(self):
        with pytest.raises(InvalidMessage, match="None is no key"), once("charge", Queue().pk):
            effect()


@pytest.mark.django_db(transaction=True)
class TestTwoCallersAtOnce:
    @staticmethod
    def call():
        with once("charge", 1) as first:
            if first:
                effect("effect-of-the-second")
            return bool(first), first.result

    def test_the_second_waits_and_gets_the_result_of_the_first(self, elsewhere, until, waiters):
        with once("charge", 1) as first:
            assert first
            effect()
            second = elsewhere(self.call)
            until(lambda: waiters() == 1)
            first.save("done")
        assert second.result(15) == (False, "done")
        assert effects() == 1

    def test_the_second_is_the_first_when_that_one_rolls_back(self, elsewhere, until, waiters):
        with suppress(LookupError), once("charge", 1) as first:
            assert first
            effect()
            second = elsewhere(self.call)
            until(lambda: waiters() == 1)
            raise LookupError
        assert second.result(15) == (True, None)
        assert list(Queue.objects.values_list("name", flat=True)) == ["effect-of-the-second"]

    def test_other_keys_do_not_wait(self, elsewhere):
        with once("charge", 2):
            assert elsewhere(self.call).result(15) == (True, None)

    def test_two_who_take_over_an_expired_record_are_not_both_first(
        self, elsewhere, until, waiters
    ):
        with once("charge", 1, window=90) as first:
            first.save("old")
        Idempotency.objects.update(expires_at=timezone.now())
        with once("charge", 1, window=90) as again:
            assert again
            second = elsewhere(self.call)
            until(lambda: waiters() == 1)
            again.save("new")
        assert second.result(15) == (False, "new")
