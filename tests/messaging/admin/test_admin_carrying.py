"""Operations in the admin: begun for many, seen, cancelled and resumed by who may."""

from typing import Any

import pytest
from admin_pages import address, token_of, visible
from django.test import Client

from messaging import control, send_many
from messaging.admin import operations
from messaging.models import DeadLetter, Operation, Queue

pytestmark = pytest.mark.django_db

SEES = ("view_operation",)
DEAD = ("view_deadletter", "redrive_deadletter")


@pytest.fixture
def purge(letters: Queue) -> Operation:
    send_many("letters", [{"secret": "s3cret"}] * 3)
    return control.begin_purge(letters, control.Filter(body={"secret": "s3cret"}), by="olga")


def do(client: Client, operation: Operation, verb: str) -> Any:
    page = client.get(address("operation", "operate", verb), {"id": operation.pk})
    return client.post(address("operation", "operate", verb), {"token": token_of(page)})


def test_operations_are_listed_with_what_is_meant_and_how_far_they_are(
    purge: Operation, staff: Any
) -> None:
    text = visible(staff(*SEES).get(address("operation")))
    for part in ("Purge", "letters", "0 of 3", "running", "olga"):
        assert part in text
    page = staff(*SEES).get(address("operation", "change", purge.pk))
    assert page.status_code == 200


def test_operations_are_cancelled_and_resumed_by_who_may_do_what_they_do(
    purge: Operation, staff: Any
) -> None:
    assert do(staff(*SEES), purge, "cancel").status_code == 403
    assert do(staff(*SEES, "redrive_deadletter"), purge, "cancel").status_code == 403
    assert Operation.objects.get().state == "running"
    client = staff(*SEES, "purge_queue")
    assert "Cancel" in visible(client.get(address("operation", "change", purge.pk)))
    assert do(client, purge, "cancel").status_code == 302
    assert Operation.objects.get().state == "cancelled"
    assert do(client, purge, "resume").status_code == 302
    assert Operation.objects.get().state == "running"
    assert do(client, purge, "resume").status_code == 302


def test_staff_alone_sees_no_operations_and_no_groups(purge: Operation, staff: Any) -> None:
    for page in (address("operation"), address("deadletter", "groups")):
        assert staff().get(page).status_code == 403


@pytest.mark.parametrize("verb", ["redrive", "discard"])
def test_more_than_one_request_does_is_begun_as_an_operation(
    bury: Any, staff: Any, monkeypatch: pytest.MonkeyPatch, verb: str, letters: Queue
) -> None:
    monkeypatch.setattr(operations, "MAX_IDS", 2)
    monkeypatch.setattr(operations, "BEGIN_ABOVE", 3)
    bury(2, reason="rejected")
    dead = bury(5)
    client = staff(*DEAD)
    where = f"{address('deadletter')}?reason__exact=max_deliveries"
    chosen = {"action": verb, "_selected_action": [dead[0].pk], "select_across": "1"}
    page = client.post(where, chosen)
    bury(1)
    answers = {"token": token_of(page), "to": ""}
    assert client.post(address("deadletter", "operate", verb), answers).status_code == 302
    operation = Operation.objects.get()
    assert (operation.kind, operation.total, DeadLetter.objects.count()) == (verb, 5, 8)
    assert control.run_operation(operation).done == 5
    assert DeadLetter.objects.filter(reason="rejected").count() == 2


def test_groups_are_shown_and_redriven_with_a_rate_and_a_canary(bury: Any, staff: Any) -> None:
    bury(3, fingerprint="a", error="KeyError")
    bury(2, fingerprint="b")
    client = staff(*DEAD)
    assert 'href="groups/"' in client.get(address("deadletter")).content.decode()
    assert "KeyError" in visible(client.get(address("deadletter", "groups")))
    where = address("deadletter", "group", "redrive") + "?fingerprint=a"
    page = client.get(where)
    assert "3 dead letters" in visible(page)
    answers = {"token": token_of(page), "to": "", "rate": "50", "canary": "on"}
    bury(1, fingerprint="a")
    assert client.post(where, answers).status_code == 302
    operation = Operation.objects.get()
    assert (operation.rate, operation.options["canary"], operation.total) == (50, True, 3)
    # What was confirmed for one group is not for another one.
    other = address("deadletter", "group", "redrive") + "?fingerprint=b"
    assert client.post(other, answers).status_code == 403
    assert client.post(where, answers | {"token": "x"}).status_code == 403
    assert client.post(where, answers | {"rate": "0"}).status_code == 200
    assert Operation.objects.count() == 1


def test_groups_are_discarded_and_only_by_who_may(bury: Any, staff: Any) -> None:
    bury(3, fingerprint="a")
    where = address("deadletter", "group", "discard") + "?fingerprint=a"
    assert staff("view_deadletter").get(where).status_code == 403
    client = staff(*DEAD)
    page = client.get(where)
    client.post(where, {"token": token_of(page)})
    assert control.run_operation(Operation.objects.get()).done == 3
    assert staff(*DEAD, strict=True).post(where, {}).status_code == 403
