"""Webhooks are enabled and disabled, carried from one database to another, and diagnosed."""

import io
import json
import re
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection

from messaging import consumer, control, send
from messaging.exceptions import InvalidDefinitions, UnknownWebhook
from messaging.models import Operation, Queue, Webhook

pytestmark = pytest.mark.django_db

# Of an hour, some of which is over.
RESTS = re.compile(r"rests for 3,[56]\d\d seconds more after 7 failures in a row")
KEY = "a2V5IG9mIHRoZSBwYXJ0bmVyLCB3aGljaCBub2JvZHkga25vd3M="


@pytest.fixture(autouse=True)
def secrets(settings: Any) -> None:
    settings.MESSAGING = {"WEBHOOK_SECRETS": {"partner": f"whsec_{KEY}"}}


@pytest.fixture
def webhook(queue: Queue) -> Webhook:
    return Webhook.objects.create(
        name="partner", queue=queue, url="https://partner.example/hook", secret="partner"
    )


def rest(webhook: Webhook, seconds: float) -> None:
    """Have it rest after some failures."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE messaging_webhook SET failures = 7, rests_until = statement_timestamp() "
            "+ %s * interval '1 second' WHERE id = %s",
            [seconds, webhook.pk],
        )


def call(*arguments: str) -> str:
    out = io.StringIO()
    call_command("webhooks", *arguments, stdout=out)
    return out.getvalue().strip()


class TestVerbs:
    def test_it_is_disabled_once_with_who_and_why(
        self, webhook: Webhook, operator: User, changes: list[str]
    ) -> None:
        assert control.disable_webhook("partner", by=operator, reason="They asked.")
        assert not control.disable_webhook("partner", by=operator)
        webhook.refresh_from_db()
        assert (webhook.disabled_by, webhook.disabled_reason) == ("olga", "They asked.")
        assert LogEntry.objects.get().change_message == "Disabled: They asked."

    def test_it_is_enabled_again_also_when_it_only_rests(
        self, webhook: Webhook, operator: User
    ) -> None:
        control.disable_webhook(webhook)
        assert control.enable_webhook("partner", by=operator)
        rest(webhook, 60)
        assert control.enable_webhook("partner", by=operator)
        assert not control.enable_webhook("partner", by=operator)
        webhook.refresh_from_db()
        assert (webhook.is_disabled, webhook.failures, webhook.rests_until) == (False, 0, None)

    def test_each_leaves_a_row_among_the_operations(self, webhook: Webhook) -> None:
        control.disable_webhook("partner", by="olga", reason="They asked.")
        control.enable_webhook("partner", by="piet")
        enabled, disabled = Operation.objects.order_by("-pk")
        assert (disabled.kind, disabled.created_by) == ("disable_webhook", "olga")
        assert disabled.filter == {"webhook": "partner", "reason": "They asked."}
        assert (enabled.kind, enabled.created_by) == ("enable_webhook", "piet")
        assert enabled.queue == disabled.queue == webhook.queue

    def test_an_unknown_one_is_refused_with_what_was_meant(self, webhook: Webhook) -> None:
        with pytest.raises(UnknownWebhook, match="Did you mean 'partner'"):
            control.disable_webhook("partnr")

    def test_a_long_reason_is_refused(self, webhook: Webhook) -> None:
        with pytest.raises(ValueError, match="use at most 200"):
            control.disable_webhook(webhook, reason="x" * 201)


class TestCommand:
    def test_it_lists_them_with_their_states(self, webhook: Webhook) -> None:
        assert call("list", "partner").endswith("partner  letters  partner  is enabled")
        rest(webhook, 60)
        assert "after 7 failures in a row" in call()
        call("disable", "partner", "--reason", "They asked.")
        assert "(manage.py): They asked." in call()
        (facts,) = json.loads(call("--json"))
        assert (facts["name"], facts["queue"], facts["failures"]) == ("partner", "letters", 7)

    def test_it_disables_and_enables(self, webhook: Webhook) -> None:
        assert call("disable", "partner") == "Webhook partner is disabled now."
        assert call("disable", "partner") == "Webhook partner was disabled already."
        assert call("enable", "partner") == "Webhook partner is enabled now."
        assert call("enable", "partner") == "Webhook partner was enabled already."

    @pytest.mark.parametrize(
        ("arguments", "reason"),
        [
            (["disable"], "Name the webhooks to disable"),
            (["disable", "nobody"], "Unknown webhook 'nobody'"),
            (["enable", "partner", "--reason", "x"], "--reason goes with disable"),
            (["disable", "partner", "--reason", "x" * 201], "use at most 200"),
        ],
    )
    def test_what_is_wrong_is_refused_with_code_2(
        self, webhook: Webhook, arguments: list[str], reason: str
    ) -> None:
        with pytest.raises(CommandError, match=reason) as refusal:
            call(*arguments)
        assert refusal.value.returncode == 2
        assert not Webhook.objects.get().is_disabled


class TestDefinitions:
    def test_an_export_has_the_name_of_the_secret_and_not_the_secret(
        self, webhook: Webhook
    ) -> None:
        text = control.export_definitions()
        assert json.loads(text)["webhooks"] == [
            {
                "name": "partner",
                "description": "",
                "queue": "letters",
                "url": "https://partner.example/hook",
                "secret": "partner",
                "timeout": 15.0,
            }
        ]
        assert KEY not in text

    def test_an_import_makes_what_was_exported_and_doing_it_again_changes_nothing(
        self, webhook: Webhook
    ) -> None:
        text = control.export_definitions()
        webhook.delete()
        assert control.import_definitions(text).created == ["webhook partner"]
        assert not control.import_definitions(text)
        assert control.export_definitions() == text

    def test_an_import_changes_where_it_is_sent(self, webhook: Webhook) -> None:
        other = webhook.queue.dead_letter_queue
        assert other is not None
        changed = {"name": "partner", "queue": other.name, "url": "https://b.example/"}
        control.import_definitions(json.dumps({"version": 1, "webhooks": [changed]}))
        webhook.refresh_from_db()
        assert (webhook.queue, webhook.url) == (other, "https://b.example/")

    @pytest.mark.parametrize(
        ("values", "reason"),
        [
            ({"url": "https://10.0.0.1/"}, "url: .*10.0.0.1 is not public"),
            ({"secret": "other"}, "secret: .*there is no such secret"),
            ({"queue": "nobody"}, "queue: queue 'nobody' is neither defined nor there"),
            ({"queue": None}, "queue: None is not the name of a queue"),
            ({"queue": "letters"}, "queue: webhook 'partner' has this queue already"),
            ({"queue": "letters.dlq"}, "queue: Queue 'letters.dlq' has a consumer"),
            ({"failures": 0}, "failures: it is unknown"),
        ],
    )
    def test_what_is_wrong_is_refused_with_its_place(
        self, webhook: Webhook, declared: Any, values: dict[str, Any], reason: str
    ) -> None:
        @consumer("letters.dlq")
        def handle(message: Any) -> None: ...

        Queue.objects.create(name="free")
        right = {"queue": "free", "url": "https://a.example/", "secret": "partner"}
        document = {"version": 1, "webhooks": [{"name": "other"} | right | values]}
        with pytest.raises(InvalidDefinitions, match=rf"^webhooks\[0\], {reason}"):
            control.import_definitions(json.dumps(document))
        assert Webhook.objects.count() == 1

    def test_one_without_a_queue_is_refused(self) -> None:
        values = {"name": "a", "url": "https://a.example/", "secret": "partner"}
        document = {"version": 1, "webhooks": [values]}
        with pytest.raises(InvalidDefinitions, match=r"^webhooks\[0\]: queue is missing"):
            control.import_definitions(json.dumps(document))


class TestDoctor:
    def told(self) -> list[str]:
        return [each.text for each in control.diagnose() if each.what == "webhooks"]

    def test_one_that_is_well_is_not_worth_a_word(self, webhook: Webhook) -> None:
        assert self.told() == []

    def test_a_disabled_one_is_told_with_the_reason(self, webhook: Webhook) -> None:
        control.disable_webhook(webhook, by="receiver", reason="answered 410 Gone")
        assert self.told() == ["Webhook partner is disabled by receiver: answered 410 Gone."]

    def test_one_that_rests_is_told(self, webhook: Webhook) -> None:
        rest(webhook, 3_600)
        (told,) = self.told()
        assert told.startswith("Webhook partner ") and RESTS.search(told)


class TestExplain:
    def test_a_message_whose_webhook_is_disabled_says_by_whom_and_why(
        self, webhook: Webhook
    ) -> None:
        control.disable_webhook(webhook, by="receiver", reason="answered 410 Gone")
        (why,) = control.explain(send("letters", 1))
        assert (why.cause, why.by) == (control.Cause.WEBHOOK, "receiver")
        assert why.text == (
            "Its webhook, partner, is disabled by receiver: answered 410 Gone. Enable it."
        )

    def test_one_whose_webhook_rests_says_for_how_long(self, webhook: Webhook) -> None:
        rest(webhook, 3_600)
        (why,) = control.explain(send("letters", 1))
        assert RESTS.search(why.text)
