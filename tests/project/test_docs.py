"""What the documents say is what the code does."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.management import get_commands

from messaging import conf, consuming, testing
from messaging.models import Delivery, Message

CHECKOUT = Path(__file__).resolve().parents[2]
README = (CHECKOUT / "README.md").read_text()
PAGES = [CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").rglob("*.md"))]


@pytest.fixture
def declarations(monkeypatch: pytest.MonkeyPatch) -> consuming.Declarations:
    """Give the example declarations of its own."""
    own = consuming.Declarations()
    monkeypatch.setattr(consuming, "declarations", own)
    for module in ("messaging.sync", "messaging.worker.configuration"):
        monkeypatch.setattr(f"{module}.declarations", own)
    return own


@pytest.mark.django_db
def test_the_example_of_the_readme_runs(declarations: consuming.Declarations) -> None:
    example: dict[str, object] = {"__name__": "example"}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(block, "README.md", "exec"), example)  # noqa: S102 - our own page
    consuming.declare_queue("receipts")
    testing.drain()
    example["order_placed"](SimpleNamespace(pk=7, total="29.33"))  # type: ignore[operator]
    assert testing.drain() == 2
    receipts = Delivery.objects.filter(queue__name="receipts").values_list("message_id", flat=True)
    bodies = Message.objects.filter(pk__in=list(receipts)).values_list("body", flat=True)
    assert list(bodies) == [{"order_id": 7, "total": "29.33"}]


def test_the_table_of_settings_names_each_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `(.+?)` \|", README, re.MULTILINE)
    told = {name: eval(default) for name, default in rows}  # noqa: S307 - our own page
    assert told == conf.DEFAULTS


def test_the_table_of_commands_names_each_command() -> None:
    rows = re.findall(r"^\| (`[a-z_`, ]+`) \| ", README, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    ours = {name for name, app in get_commands().items() if app == "messaging"}
    assert told == ours


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing
