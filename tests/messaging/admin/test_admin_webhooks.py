"""Webhooks in the admin: edited by those who manage them, never a link, never a secret."""

from collections.abc import Callable
from typing import Any

import pytest
from admin_pages import address, texts, token_of, version_of, visible
from django.contrib.admin.models import LogEntry
from django.db.models.functions import Now
from django.test import Client

from messaging import consumer
from messaging.models import Queue, Webhook

KEY = "a2V5IG9mIHRoZSBwYXJ0bmVyLCB3aGljaCBub2JvZHkga25vd3M="


@pytest.fixture(autouse=True)
def secrets(settings: Any) -> None:
    settings.MESSAGING = {"WEBHOOK_SECRETS": {"partner": f"whsec_{KEY}"}}


@pytest.fixture
def hooks(bare: None, queue: Callable[..., Queue]) -> Queue:
    return queue("hooks")


@pytest.fixture
def webhook(hooks: Queue) -> Webhook:
    return Webhook.objects.create(
        name="partner", queue=hooks, url="https://partner.example/hook", secret="partner"
    )


def form(hooks: Queue, **fields: Any) -> dict[str, Any]:
    """Return what the form sends for a webhook that is right."""
    return {
        "name": "partner",
        "description": "",
        "queue": hooks.pk,
        "url": "https://partner.example/hook",
        "secret": "partner",
        "timeout": "15",
    } | fields


def operate(client: Client, name: str, webhook: Webhook) -> Any:
    """Choose a webhook in the list and confirm."""
    chosen = {"_selected_action": [webhook.pk], "action": name, "index": "0"}
    page = client.post(address("webhook"), chosen)
    if page.status_code != 200:
        return page
    where = address("webhook", "operate", name)
    return client.post(where, {"token": token_of(page)}, follow=True)


def test_it_is_added(hooks: Queue, root: Client) -> None:
    assert root.post(address("webhook", "add"), form(hooks)).status_code == 302
    assert Webhook.objects.get().queue == hooks


@pytest.mark.parametrize(
    ("field", "values", "reason"),
    [
        ("url", {"url": "javascript:alert(1)"}, "use https://"),
        ("url", {"url": "http://127.0.0.1/"}, "use https://"),
        ("url", {"url": "https://10.0.0.1/"}, "10.0.0.1 is not public"),
        ("url", {"url": ""}, "required"),
        ("secret", {"secret": "other"}, "there is no such secret; known: partner"),
        ("queue", {"queue": ""}, "required"),
        ("timeout", {"timeout": "0"}, "greater than or equal to 0.1"),
        ("timeout", {"timeout": "nan"}, "number"),
        ("name", {"name": "a b"}, "Invalid queue name"),
    ],
)
def test_what_is_wrong_is_said_at_its_field(
    hooks: Queue, root: Client, field: str, values: dict[str, Any], reason: str
) -> None:
    page = root.post(address("webhook", "add"), form(hooks, **values))
    errors = page.context["adminform"].form.errors
    assert list(errors) == [field]
    assert reason in " ".join(errors[field])
    assert KEY not in page.content.decode()


def test_a_queue_that_a_consumer_handles_is_refused(
    hooks: Queue, root: Client, declared: Any
) -> None:
    @consumer("hooks")
    def handle(message: Any) -> None: ...

    page = root.post(address("webhook", "add"), form(hooks))
    (reason,) = page.context["adminform"].form.errors["queue"]
    assert reason.startswith("Queue 'hooks' has a consumer, test_admin_webhooks.")
    assert not Webhook.objects.exists()


def test_a_url_written_past_the_form_is_no_link(webhook: Webhook, root: Client) -> None:
    Webhook.objects.update(url="javascript:alert(1)")
    for page in (root.get(address("webhook")), root.get(address("webhook", "change", webhook.pk))):
        assert "javascript:alert(1)" in page.content.decode()
        assert 'href="javascript:' not in page.content.decode()


def test_two_that_edit_it_do_not_overwrite_each_other(webhook: Webhook, root: Client) -> None:
    where = address("webhook", "change", webhook.pk)
    version = version_of(root.get(where))
    fields = form(webhook.queue, version=version, url="https://a.example/")
    assert root.post(where, fields).status_code == 302
    page = root.post(where, fields | {"url": "https://b.example/"})
    assert "Somebody else has changed this" in visible(page)
    assert Webhook.objects.get().url == "https://a.example/"


def test_a_changed_one_rests_no_longer(webhook: Webhook, root: Client) -> None:
    Webhook.objects.update(failures=7, rests_until=Now())
    where = address("webhook", "change", webhook.pk)
    root.post(where, form(webhook.queue, version=version_of(root.get(where))))
    webhook.refresh_from_db()
    assert (webhook.failures, webhook.rests_until) == (0, None)


def test_it_is_disabled_and_enabled_again_and_the_history_says_by_whom(
    webhook: Webhook, staff: Callable[..., Client]
) -> None:
    client = staff("view_webhook", "manage_webhooks")
    assert "1 webhook is disabled." in texts(operate(client, "disable", webhook))
    assert "disabled by staff0 since" in visible(client.get(address("webhook")))
    assert "1 webhook is enabled." in texts(operate(client, "enable", webhook))
    webhook.refresh_from_db()
    assert not webhook.is_disabled
    history = LogEntry.objects.order_by("pk").values_list("change_message", flat=True)
    assert list(history) == ["Disabled.", "Enabled."]


def test_who_may_not_manage_them_may_look_at_most(
    webhook: Webhook, staff: Callable[..., Client]
) -> None:
    others = ("change_queue", "pause_queue", "purge_queue")
    looks, nobody = staff("view_webhook", *others), staff(*others)
    where = address("webhook", "change", webhook.pk)
    assert looks.get(where).status_code == 200
    assert nobody.get(where).status_code == nobody.get(address("webhook")).status_code == 403
    for client in (looks, nobody):
        assert client.get(address("webhook", "add")).status_code == 403
        assert client.post(where, form(webhook.queue)).status_code == 403
        assert client.post(address("webhook", "delete", webhook.pk)).status_code == 403
        assert operate(client, "disable", webhook).status_code == 403
    assert not Webhook.objects.get().is_disabled
