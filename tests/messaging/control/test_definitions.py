"""Definitions: exported and imported by name, all or nothing, as often as one likes."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone

from messaging import control, publish, send
from messaging.exceptions import InvalidDefinitions, InvalidMessage
from messaging.models import Delivery, Message, Queue, Schedule, Schema, Subscription, Topic

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nothing")]


@pytest.fixture
def nothing(db: None) -> None:
    """Start without the rows that other apps declare."""
    Subscription.objects.all().delete()
    Topic.objects.all().delete()
    Queue.objects.update(dead_letter_queue=None)
    Queue.objects.all().delete()


@pytest.fixture
def shop(nothing: None) -> str:
    """Create a queue, its dead-letter queue, a topic and a subscription; return their export."""
    held = Queue.objects.create(name="orders.dlq", description="Дела “of” the dead")
    orders = Queue.objects.create(
        name="orders",
        max_deliveries=8,
        backoff="list",
        backoff_delays=[1, 2.5],
        message_ttl=0.5,
        deduplication_window=None,
        rate_limit=12.5,
        on_failure="park",
        dead_letter_queue=held,
    )
    Topic.objects.create(name="orders.placed", retention=0)
    Subscription.objects.create(pattern="orders.*", queue=orders, is_active=False)
    return control.export_definitions()


def rows() -> list[Any]:
    """Return all that a definition may change, and nothing else."""
    return [
        list(Queue.objects.values().order_by("name")),
        list(Topic.objects.values().order_by("name")),
        list(Subscription.objects.values().order_by("pattern", "queue__name")),
    ]


def without_ids(found: list[Any]) -> list[Any]:
    """Leave out what another database has otherwise."""
    numbers = ("id", "created_at", "queue_id", "dead_letter_queue_id")
    return [[{k: v for k, v in row.items() if k not in numbers} for row in kind] for kind in found]


def document(**kinds: Any) -> str:
    return json.dumps({"version": 1} | kinds)


class TestAnExport:
    def test_is_imported_elsewhere_as_it_was(self, shop: str, nothing: None) -> None:
        before = rows()
        Subscription.objects.all().delete()
        Topic.objects.all().delete()
        Queue.objects.update(dead_letter_queue=None)
        Queue.objects.all().delete()
        Queue.objects.create(name="other")
        imported = control.import_definitions(shop)
        assert sorted(imported.created) == [
            "queue orders",
            "queue orders.dlq",
            "subscription orders.* → orders",
            "topic orders.placed",
        ]
        assert imported.changed == []
        Queue.objects.filter(name="other").delete()
        assert without_ids(rows()) == without_ids(before)
        orders = Queue.objects.get(name="orders")
        assert orders.dead_letter_queue is not None
        assert orders.dead_letter_queue.name == "orders.dlq"
        assert control.export_definitions() == shop

    def test_has_every_policy_and_no_id_and_no_state(self, shop: str) -> None:
        control.pause("orders", by="olga")
        control.disable("orders")
        assert control.export_definitions() == shop
        found = json.loads(shop)
        orders = next(each for each in found["queues"] if each["name"] == "orders")
        states = {"id", "created_at", "paused_at", "paused_by", "pause_reason"}
        states |= {"disabled_at", "disabled_by"}
        assert orders.keys() == {field.name for field in Queue._meta.concrete_fields} - states
        assert (orders["dead_letter_queue"], orders["backoff_delays"]) == ("orders.dlq", [1, 2.5])
        assert found["subscriptions"][0]["queue"] == "orders"


class TestAnImport:
    def test_a_second_time_changes_nothing(self, shop: str) -> None:
        before = rows()
        assert not control.import_definitions(shop)
        assert rows() == before

    def test_changes_what_is_named_and_keeps_ids_messages_and_the_rest(self, shop: str) -> None:
        sent = send("orders", 1)
        control.pause("orders")
        known = Queue.objects.get(name="orders")
        text = document(queues=[{"name": "orders", "max_deliveries": 2, "jitter": "none"}])
        imported = control.import_definitions(text)
        assert imported.created == []
        assert imported.changed == [
            ("queue orders", "max_deliveries", 8, 2),
            ("queue orders", "jitter", "full", "none"),
        ]
        now = Queue.objects.get(name="orders")
        assert (now.pk, now.max_deliveries, now.jitter) == (known.pk, 2, "none")
        assert (now.backoff_delays, now.is_paused) == ([1, 2.5], True)
        assert now.dead_letter_queue_id == known.dead_letter_queue_id
        assert Delivery.objects.get().message_id == sent

    def test_is_in_force_for_what_is_published_next(self, shop: str) -> None:
        subscription = {"pattern": "orders.*", "queue": "orders", "is_active": True}
        control.import_definitions(
            document(
                topics=[{"name": "orders.sent"}],
                queues=[{"name": "new"}],
                subscriptions=[subscription, {"pattern": "#", "queue": "new"}],
            )
        )
        publish("orders.sent", 1)
        found = Delivery.objects.values_list("queue__name", flat=True)
        assert sorted(found) == ["new", "orders"]

    def test_gives_a_new_queue_a_dead_letter_queue_unless_told_otherwise(self) -> None:
        control.import_definitions(
            document(queues=[{"name": "mails"}, {"name": "facts", "dead_letter_queue": None}])
        )
        held = dict(Queue.objects.values_list("name", "dead_letter_queue__name"))
        assert held == {"mails": "mails.dlq", "mails.dlq": None, "facts": None}

    def test_that_only_tells_changes_nothing(self, shop: str) -> None:
        before = rows()
        text = document(queues=[{"name": "orders", "weight": 7}, {"name": "mails"}])
        imported = control.import_definitions(text, dry_run=True)
        assert imported.created == ["queue mails", "queue mails.dlq"]
        assert imported.changed == [("queue orders", "weight", 1, 7)]
        assert rows() == before

    def test_tells_the_workers_when_it_has_changed_anything(
        self, shop: str, changes: list[str], django_capture_on_commit_callbacks: Any
    ) -> None:
        other = document(queues=[{"name": "orders", "weight": 7}])
        with django_capture_on_commit_callbacks(execute=True):
            control.import_definitions(shop)
            control.import_definitions(other, dry_run=True)
        assert changes == []
        with django_capture_on_commit_callbacks(execute=True):
            control.import_definitions(other)
        assert changes == ["default"]

    def test_by_a_user_is_in_the_history_of_each_row(
        self, shop: str, operator: User, caplog: pytest.LogCaptureFixture
    ) -> None:
        text = document(queues=[{"name": "orders", "weight": 7}, {"name": "mails"}])
        with caplog.at_level("INFO", "messaging"):
            control.import_definitions(text, by=operator)
        notes = LogEntry.objects.values_list("object_repr", "change_message")
        assert sorted(notes) == [
            ("mails", "Imported: created."),
            ("orders", "Imported: weight."),
        ]
        who = operator.get_username()
        assert caplog.messages == [f"Definitions imported created=2 changed=1 by={who}"]

    @pytest.mark.django_db(transaction=True)
    def test_of_two_at_once_waits_for_the_other(
        self, elsewhere: Callable[..., Any], until: Callable[..., None], waiters: Callable[[], int]
    ) -> None:
        text = document(queues=[{"name": "mails", "weight": 7}])
        with transaction.atomic():
            control.import_definitions(text)
            other = elsewhere(control.import_definitions, text)
            until(lambda: waiters() == 1)
        assert not other.result(10)
        assert Queue.objects.get(name="mails").weight == 7

    @pytest.mark.django_db(transaction=True)
    def test_waits_for_who_is_editing_and_tells_of_what_it_has_really_changed(
        self, elsewhere: Callable[..., Any], until: Callable[..., None], waiters: Callable[[], int]
    ) -> None:
        Queue.objects.create(name="mails")
        with transaction.atomic():
            Queue.objects.update(weight=9)
            text = document(queues=[{"name": "mails", "weight": 7}])
            other = elsewhere(control.import_definitions, text)
            until(lambda: waiters() == 1)
        assert other.result(10).changed == [("queue mails", "weight", 9, 7)]


GOOD = {"name": "good"}


class TestAWrongDocument:
    @pytest.mark.parametrize(
        ("kinds", "told"),
        [
            ({"queues": [GOOD, {"name": "a b"}]}, r"queues\[1\], name: .*a b"),
            ({"queues": [GOOD, {"name": "a", "weight": 0}]}, r"queues\[1\], weight: .* 1"),
            ({"queues": [GOOD, {"name": "a", "weight": "7"}]}, r"queues\[1\], weight: '7' is not"),
            ({"queues": [GOOD, {"name": "a", "weight": True}]}, "True is not a whole number"),
            ({"queues": [GOOD, {"name": "a", "weight": None}]}, "None is not a whole number"),
            ({"queues": [GOOD, {"name": "a", "weight": 10**400}]}, "too large"),
            ({"queues": [GOOD, {"name": "a", "rate_limit": -1}]}, r"queues\[1\], rate_limit"),
            ({"queues": [GOOD, {"name": "a", "wieght": 1}]}, "wieght: .*did you mean weight"),
            ({"queues": [GOOD, {"name": "a", "id": 1}]}, r"queues\[1\], id: it is unknown"),
            ({"queues": [GOOD, {"name": "a", "description": "x\0"}]}, "characters of no text"),
            ({"queues": [GOOD, {"name": "a", "description": "\ud800"}]}, "characters of no text"),
            ({"queues": [GOOD, {"name": "a", "description": "x" * 201}]}, "description: .*200"),
            ({"queues": [GOOD, {"name": "a", "backoff": "list"}]}, "backoff_delays: "),
            ({"queues": [GOOD, {"name": "a", "backoff_delays": [-1]}]}, "-1 is no delay"),
            ({"queues": [GOOD, {"name": "a", "dead_letter_queue": "b"}]}, "'b' is neither defined"),
            ({"queues": [GOOD, {"name": "a", "dead_letter_queue": "a"}]}, r"queues\[1\], dead_let"),
            (
                {
                    "queues": [
                        {"name": "a", "dead_letter_queue": "b"},
                        {"name": "b", "dead_letter_queue": "a"},
                    ]
                },
                "round in a circle",
            ),
            ({"queues": [GOOD, {"weight": 1}]}, r"queues\[1\]: name is missing"),
            ({"queues": [GOOD, "a"]}, r"queues\[1\]: it is no object"),
            ({"queues": GOOD}, "'queues': it is no list"),
            ({"queues": [GOOD, GOOD]}, r"queues\[1\]: queue good is defined at queues\[0\]"),
            ({"queues": [GOOD], "topics": [{"name": "a..b"}]}, r"topics\[0\], name"),
            ({"queues": [GOOD], "topics": [{"name": "a", "weight": 1}]}, "weight: it is unknown"),
            (
                {"queues": [GOOD], "subscriptions": [{"pattern": "a", "queue": "b"}]},
                r"subscriptions\[0\], queue: queue 'b' is neither defined",
            ),
            (
                {"queues": [GOOD], "subscriptions": [{"pattern": "a.**", "queue": "good"}]},
                r"subscriptions\[0\], pattern",
            ),
            ({"queues": [GOOD], "exchanges": []}, "'exchanges': it is unknown"),
            ({"version": 2, "queues": [GOOD]}, "'version': it is not 1"),
        ],
    )
    def test_is_refused_by_its_field_and_nothing_is_imported(
        self, kinds: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(InvalidDefinitions, match=told) as refused:
            control.import_definitions(document(**kinds))
        assert str(refused.value).endswith("Nothing was imported.")
        assert rows() == [[], [], []]

    def test_is_one_that_is_cut_off_wherever_that_is(self, shop: str) -> None:
        before = rows()
        lines = shop.splitlines()
        for number in range(len(lines)):
            with pytest.raises(InvalidDefinitions, match=r"^Line \d+, column \d+: "):
                control.import_definitions("\n".join(lines[:number]))
        with pytest.raises(InvalidDefinitions, match=rf"^Line {len(lines)}, column 1: .*cut off\?"):
            control.import_definitions(shop[: -len(lines[-1])])
        assert rows() == before

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("[]", "The document: it is no object"),
            (b'{"version": 1, "queues": "\xff"}', "Byte 26: it is no UTF-8"),
            ('{"version": 1, "version": 1}', "'version': it comes twice"),
            ('{"version": NaN}', "NaN is no JSON"),
            ("[" * 100_000, "too long or too deep"),
            ('{"version": ' + "9" * 5_000 + "}", "too long or too deep"),
            ('{"version": 1,\n"queues": [}', "Line 2, column 12"),
        ],
        ids=lambda text: str(text)[:20],
    )
    def test_is_one_that_is_no_document(self, text: str | bytes, told: str) -> None:
        with pytest.raises(InvalidDefinitions, match=told):
            control.import_definitions(text)


class TestTheCommands:
    def run(self, *args: str) -> str:
        out = io.StringIO()
        call_command(*args, stdout=out)
        return out.getvalue().strip()

    def test_take_definitions_from_one_database_to_another(
        self, shop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "definitions.json"
        file.write_text(self.run("export_definitions"))
        assert self.run("import_definitions", str(file)) == "Nothing is to be changed."
        Queue.objects.filter(name="orders").update(weight=7)
        Topic.objects.all().delete()
        expected = "reated: topic orders.placed\n{}hanged: queue orders, weight: 7 → 1"
        dry = self.run("import_definitions", str(file), "--dry-run")
        assert dry == "Would be c" + expected.format("Would be c")
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
        assert self.run("import_definitions", "-") == "C" + expected.format("C")
        assert control.export_definitions() == shop

    def test_answer_in_json(self, shop: str, tmp_path: Path) -> None:
        file = tmp_path / "definitions.json"
        file.write_text(document(queues=[{"name": "orders", "weight": 7}]))
        change = {"what": "queue orders", "policy": "weight", "before": 1, "after": 7}
        assert json.loads(self.run("import_definitions", str(file), "--json")) == {
            "created": [],
            "changed": [change],
        }

    @pytest.mark.parametrize("content", [None, '{"version": 1'], ids=["missing", "cut off"])
    def test_refuse_a_file_that_cannot_be_read(self, tmp_path: Path, content: str | None) -> None:
        file = tmp_path / "definitions.json"
        if content is not None:
            file.write_text(content)
        told = "Line 1, column 14" if content else "cannot be read: No such file"
        with pytest.raises(CommandError, match=told) as refused:
            self.run("import_definitions", str(file))
        assert refused.value.returncode == 2
        assert not Message.objects.exists()


def test_schedules_come_along_and_are_planned_anew_when_their_time_changes(shop: str) -> None:
    Schedule.objects.create(
        name="nightly", queue=Queue.objects.get(name="orders"), cron="0 6 * * *", body={"n": None}
    )
    Schedule.objects.create(name="often", topic=Topic.objects.get(), every=1.5)
    text = control.export_definitions()
    Schedule.objects.all().delete()
    assert control.import_definitions(text).created == ["schedule nightly", "schedule often"]
    assert control.export_definitions() == text
    assert not control.import_definitions(text)
    Schedule.objects.update(next_at=timezone.now())
    changed = text.replace("0 6 * * *", "0 7 * * *")
    (change,) = control.import_definitions(changed).changed
    assert (change.what, change.policy, change.after) == ("schedule nightly", "cron", "0 7 * * *")
    assert Schedule.objects.get(name="nightly").next_at is None
    assert Schedule.objects.get(name="often").next_at is not None


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"cron": "99 * * * *", "queue": "orders"}, "cron"),
        ({"every": 0.5, "queue": "orders"}, "every"),
        ({"every": 5, "queue": "nobody"}, "queue"),
        ({"every": 5, "topic": "nobody"}, "topic"),
        ({"every": 5}, "queue"),
        ({"every": 5, "queue": "orders", "headers": {"x-messaging-a": 1}}, "headers"),
    ],
)
def test_a_wrong_schedule_is_refused_by_its_field(
    shop: str, values: dict[str, Any], place: str
) -> None:
    document = {"version": 1, "schedules": [{"name": "nightly", **values}]}
    with pytest.raises(InvalidDefinitions, match=rf"schedules\[0\], {place}"):
        control.import_definitions(json.dumps(document))
    assert not Schedule.objects.exists()


VERSIONS = ({"type": "string"}, {"type": "object"}, {"type": "object", "title": "Order"})


@pytest.fixture
def versions(shop: str) -> str:
    """Return an export whose topic has versions of which the second counts."""
    Topic.objects.update(compatibility="none")
    for document in VERSIONS:
        control.add_schema("orders.placed", document, by="olga")
    control.use_schema("orders.placed", 2)
    Topic.objects.update(compatibility="full")
    return control.export_definitions()


def test_schemas_come_along_with_the_version_that_counts(versions: str) -> None:
    assert json.loads(versions)["topics"][0]["schema"] == 2
    Topic.objects.all().delete()
    imported = control.import_definitions(versions, by="ivan")
    told = [f"schema orders.placed → {number}" for number in (1, 2, 3)]
    assert imported.created == ["topic orders.placed", *told]
    assert imported.changed == []
    assert control.export_definitions() == versions
    assert not control.import_definitions(versions)
    assert [each.version for each in control.schemas("orders.placed")] == [3, 2, 1]
    assert control.schemas("orders.placed")[0].created_by == "ivan"
    publish("orders.placed", {})
    with pytest.raises(InvalidMessage, match="version 2"):
        publish("orders.placed", "text")


def test_an_import_adds_the_versions_that_lack_and_says_which_one_counts(versions: str) -> None:
    found = json.loads(versions)
    found["schemas"].append({"topic": "orders.placed", "version": 12, "document": {"type": "null"}})
    found["topics"][0]["schema"] = 12
    text = json.dumps(found)
    imported = control.import_definitions(text)
    assert imported.created == ["schema orders.placed → 12"]
    assert imported.changed == [("topic orders.placed", "schema", 2, 12)]
    publish("orders.placed", None)
    assert not control.import_definitions(text)
    assert control.import_definitions(document(topics=[{"name": "orders.placed", "schema": None}]))
    publish("orders.placed", "anything")
    assert not control.import_definitions(document(topics=[{"name": "orders.placed"}]))
    assert len(control.schemas("orders.placed")) == 4


def test_a_dry_run_adds_no_version(versions: str) -> None:
    Topic.objects.update(schema=None)
    Schema.objects.all().delete()
    assert len(control.import_definitions(versions, dry_run=True).created) == 3
    assert not Schema.objects.exists()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"version": 1, "document": {"type": "null"}}, r"document: version 1 .* version 4"),
        ({"version": 0, "document": {}}, "version: 0 is not at least 1"),
        ({"version": "1", "document": {}}, "version: '1' is not a whole number"),
        ({"version": True, "document": {}}, "version: True is not a whole number"),
        ({"version": 4}, "document: at [$]: a schema is an object"),
        ({"version": 4, "document": {"type": "strng"}}, r"document: at \$\.type"),
        ({"version": 4, "document": {}, "topic": "nobody"}, "topic: topic 'nobody' is neither"),
        ({"version": 4, "document": {}, "topic": 5}, "topic: 5 is not the name"),
        ({"document": {}}, "version is missing"),
        ({"version": 2**40, "document": {}}, "version: "),
    ],
)
def test_a_wrong_version_is_refused_by_its_field(
    versions: str, values: dict[str, Any], told: str
) -> None:
    text = document(schemas=[{"topic": "orders.placed", **values}])
    with pytest.raises(InvalidDefinitions, match=rf"schemas\[0\](, |: ){told}"):
        control.import_definitions(text)
    assert control.export_definitions() == versions


@pytest.mark.parametrize(
    ("version", "told"), [(4, "version 4 is neither"), ("1", "'1' is not the number of a version")]
)
def test_a_version_that_is_not_there_cannot_count(versions: str, version: Any, told: str) -> None:
    with pytest.raises(InvalidDefinitions, match=rf"topics\[0\], schema: {told}"):
        control.import_definitions(document(topics=[{"name": "orders.placed", "schema": version}]))


def test_a_version_before_those_that_are_there_is_refused(shop: str) -> None:
    Schema.objects.create(topic=Topic.objects.get(), version=5, document={})
    text = document(schemas=[{"topic": "orders.placed", "version": 4, "document": {}}])
    with pytest.raises(InvalidDefinitions, match="has version 5 already"):
        control.import_definitions(text)
