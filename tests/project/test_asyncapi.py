"""The AsyncAPI document is valid for the parser that everybody uses."""

import json
import subprocess
from pathlib import Path

import pytest
from django.core.management import call_command

from messaging import control
from messaging.models import Queue, Subscription, Topic

NODE = Path(__file__).resolve().parents[1] / "asyncapi"


def errors_of(text: str) -> list[list[str]]:
    """Return what the parser finds wrong: the places and the reasons."""
    if not (NODE / "node_modules").exists():
        subprocess.run(["npm", "ci", "--silent", "--no-audit", "--no-fund"], cwd=NODE, check=True)
    done = subprocess.run(
        ["node", "check.js"], cwd=NODE, input=text, capture_output=True, text=True, check=True
    )
    found: list[list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.django_db
def test_the_document_is_valid_for_the_asyncapi_parser(tmp_path: Path) -> None:
    Topic.objects.get_or_create(name="orders.placed")
    line = {"type": "object", "properties": {"price": {"type": "number"}}}
    schema = {"properties": {"line": {"$ref": "#/$defs/line"}}, "$defs": {"line": line}}
    version = control.add_schema("orders.placed", schema).version
    control.use_schema("orders.placed", version)
    abroad = Queue.objects.create(name="abroad")
    policy = {"price": [{"numeric": [">", 100]}], "country": [{"anything-but": ["GB"]}]}
    Subscription.objects.create(
        pattern="orders.#", queue=abroad, filter=policy, filter_scope="body"
    )
    Subscription.objects.create(pattern="orders.placed", queue=abroad)
    Subscription.objects.create(pattern="orders.lost", queue=abroad, is_active=False)
    file = tmp_path / "asyncapi.json"
    call_command("asyncapi", "--output", str(file))
    document = json.loads(file.read_text())
    assert errors_of(json.dumps(document)) == []
    channel = document["channels"]["topic-orders.placed"]
    assert channel["x-messaging-schema-version"] == version
    described = document["components"]["schemas"]["topic-orders.placed"]["schema"]
    assert described["$defs"]["line"] == line
    receive = document["operations"]["receive-queue-abroad"]
    assert receive["x-messaging-subscriptions"] == [
        {"pattern": "orders.#", "x-filter": policy, "x-filter-scope": "body"},
        {"pattern": "orders.placed"},
    ]
    document["operations"]["send-topic-orders.placed"]["action"] = "shout"
    assert errors_of(json.dumps(document))
