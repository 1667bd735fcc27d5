"""The overview shows what there is to those who may see it, whatever the address says."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from messaging import control, feed, publish, receive, send, send_many
from messaging.models import DeadLetter, Queue, Stat, Topic, Worker
from messaging.store import figures

PAGE = "/messaging/"
LIVE = "/messaging/live/"
NASTY = "<img src=x onerror=alert(1)>'\"</script>\u202e"


@pytest.fixture
def nasty_rows(queue: Callable[..., Queue]) -> None:
    """Store text that would be code in a page that does not escape, wherever text is free."""
    origin = queue("invoices", description=NASTY)
    send("invoices", 1)
    control.pause(origin, by=NASTY, reason=NASTY)
    now = timezone.now()
    DeadLetter.objects.create(
        message_id=1,
        queue=origin,
        origin=origin,
        priority=0,
        headers={},
        body=None,
        published_at=now,
        attempts=1,
        reason="rejected",
        description=NASTY,
        error=NASTY,
        fingerprint="f",
    )
    Worker.objects.create(
        name=NASTY,
        host=NASTY,
        pid=1,
        version="1",
        queues=[NASTY],
        threads=1,
        running={},
        handled=0,
        failed=0,
        state="running",
        started_at=now,
        seen_at=now,
    )


@pytest.fixture
def locked(transactional_db: None, queue: Callable[..., Queue]) -> Iterator[None]:
    """Keep everybody from reading the queues, so that figures cannot be had."""
    queue("invoices")
    parameters = connections["default"].get_connection_params()
    for name in ("cursor_factory", "context"):
        parameters.pop(name, None)
    with psycopg.connect(**parameters) as other:
        other.execute("LOCK TABLE messaging_delivery IN ACCESS EXCLUSIVE MODE")
        yield
        other.rollback()


# Who may see it


@pytest.mark.parametrize("address", [PAGE, LIVE])
def test_who_is_not_logged_in_is_asked_to(client: Client, address: str, db: None) -> None:
    answer = client.get(address)
    assert answer.status_code == 302
    assert answer["Location"] == f"/admin/login/?next={address}"


@pytest.mark.parametrize("address", [PAGE, LIVE])
def test_who_lacks_the_permission_learns_which_and_nothing_else(
    staff: Callable[..., Client], queue: Callable[..., Queue], address: str
) -> None:
    queue("secret-queue")
    answer = staff("view_message", is_staff=True).get(address)
    assert answer.status_code == 403
    assert "messaging.view_queue" in answer.content.decode()
    assert "secret" not in answer.content.decode()


def test_the_permission_for_the_page_is_a_setting(
    staff: Callable[..., Client], settings: Any
) -> None:
    settings.MESSAGING = {"DASHBOARD_PERMISSION": "messaging.view_worker"}
    assert staff("view_worker").get(PAGE).status_code == 200
    assert staff("view_queue").get(PAGE).status_code == 403


@pytest.mark.django_db(transaction=True)
def test_bodies_are_shown_to_those_who_may_see_payloads(
    staff: Callable[..., Client], topic: Callable[..., Topic]
) -> None:
    topic("parcels.sent")
    publish("parcels.sent", {"to": "Grace"})
    allowed = staff("view_queue", "view_topic", "view_payload").get(PAGE).content.decode()
    others = staff("view_queue", "view_topic").get(PAGE).content.decode()
    assert "Grace" in allowed
    assert "Grace" not in others
    assert "parcels.sent" in others
    assert "messaging.view_payload" in others


@pytest.mark.django_db(transaction=True)
def test_bodies_are_polled_by_those_who_may_see_payloads(
    staff: Callable[..., Client], topic: Callable[..., Topic]
) -> None:
    topic("parcels.sent")
    cursor = str(feed.latest().cursor)
    publish("parcels.sent", {"to": "Grace"})
    query = {"cursor": cursor}
    assert (
        "Grace"
        in staff("view_queue", "view_topic", "view_payload").get(LIVE, query).content.decode()
    )
    hidden = staff("view_queue", "view_topic").get(LIVE, query).json()["news"]["events"]
    assert [event["body"] for event in hidden] == [""]


def test_dead_letters_and_workers_are_shown_to_those_who_may_see_them(
    staff: Callable[..., Client], nasty_rows: None
) -> None:
    shown = staff("view_queue", "view_deadletter", "view_worker").get(PAGE).content.decode()
    hidden = staff("view_queue").get(PAGE).content.decode()
    assert shown.count("onerror=alert") > hidden.count("onerror=alert") > 0
    assert "messaging.view_deadletter" in hidden
    assert "messaging.view_worker" in hidden


def test_links_to_the_admin_are_for_those_who_can_follow_them(
    staff: Callable[..., Client], queue: Callable[..., Queue]
) -> None:
    found = queue("invoices")
    link = f"/admin/messaging/queue/{found.pk}/change/"
    assert link in staff("view_queue", is_staff=True).get(PAGE).content.decode()
    assert "/admin/messaging/" not in staff("view_queue").get(PAGE).content.decode()


# What it shows


def test_the_page_shows_every_queue_and_what_needs_attention(
    operator: Client, queue: Callable[..., Queue]
) -> None:
    queue("invoices", description="Bills")
    send("invoices", 1)
    page = operator.get(PAGE).content.decode()
    assert 'id="queue-' in page
    assert "No worker is running" in page
    assert "python manage.py runworker" in page
    assert re.search(r"\d+ queues? · 1 thing needs attention", page)


def test_the_page_shows_what_is_held_what_expired_and_who_accepts_nothing(
    operator: Client, queue: Callable[..., Queue]
) -> None:
    invoices = queue("invoices")
    send_many("invoices", range(2))
    assert len(receive("invoices", limit=2)) == 2
    send_many("invoices", range(3), ordering_key="customer 7")
    assert control.depth(invoices)[:3] == (3, 0, 2)
    control.disable(invoices)
    Stat.objects.create(
        queue=invoices, process="w", at=timezone.now() - timedelta(seconds=30), expired=4, dropped=2
    )
    Worker.objects.create(
        name="w",
        host="h",
        pid=1,
        version="1",
        queues=["invoices"],
        threads=1,
        running={},
        handled=0,
        failed=0,
        state="running",
        started_at=timezone.now(),
        seen_at=timezone.now(),
    )
    page = operator.get(PAGE)
    (line,) = [each for each in page.context["page"].queues if each.figures.name == "invoices"]
    assert (line.ready, line.figures.in_flight, line.badge) == ("3", 2, "disabled")
    assert "4 expired, 2 dropped in 5 min" in page.content.decode()


def test_a_new_installation_explains_the_next_step(operator: Client) -> None:
    Queue.objects.update(dead_letter_queue=None)
    Queue.objects.all().delete()
    page = operator.get(PAGE).content.decode()
    assert "No queues yet" in page
    assert "sync_messaging" in page
    assert "from messaging import publish" in page


def test_a_dead_letter_queue_that_keeps_nothing_is_left_out_and_counted(
    operator: Client, queue: Callable[..., Queue]
) -> None:
    queue("parcels", dead_letter_queue=queue("parcels.dlq"))
    page = operator.get(PAGE).content.decode()
    assert ">parcels<" in page
    assert ">parcels.dlq<" not in page
    assert "not shown" in page


def test_text_from_outside_is_never_code(operator: Client, nasty_rows: None) -> None:
    for address in (PAGE, LIVE):
        answer = operator.get(address).content.decode()
        assert "onerror" in answer
        assert "<img" not in answer
        assert "</script>'" not in answer


@pytest.mark.django_db(transaction=True)
def test_a_page_needs_at_most_twelve_queries(operator: Client, queue: Callable[..., Queue]) -> None:
    for number in range(30):
        queue(f"queue-{number}")
        send(f"queue-{number}", 1)
    with CaptureQueriesContext(connection) as captured:
        operator.get(PAGE)
    queries = [sql for query in captured if (sql := query["sql"]) not in ("BEGIN", "ROLLBACK")]
    assert len(queries) <= 12, queries


def test_figures_that_cannot_be_had_are_missed_on_the_page(locked: None, operator: Client) -> None:
    page = operator.get(PAGE)
    assert page.status_code == 200
    assert "The database did not give the figures in time" in page.content.decode()
    frame = operator.get(LIVE).json()
    assert frame["current"] is False
    assert frame["figures"]["rows"] is None


# What the address says


@pytest.mark.parametrize("name", ["nosuch.topic", "\x00", "a b", "../x", "x" * 10_000, "é", "*"])
def test_a_topic_that_does_not_exist_is_not_found(operator: Client, name: str) -> None:
    assert operator.get(PAGE, {"topic": name}).status_code == 404
    assert operator.get(LIVE, {"topic": name}).status_code == 404


@pytest.mark.django_db(transaction=True)
def test_one_topic_can_be_looked_at(operator: Client, topic: Callable[..., Topic]) -> None:
    topic("parcels.sent"), topic("parcels.lost")
    publish("parcels.sent", "here"), publish("parcels.lost", "elsewhere")
    page = operator.get(PAGE, {"topic": "parcels.sent"}).content.decode()
    assert "here" in page
    assert "elsewhere" not in page


@pytest.mark.parametrize("query", ["sort=payload;--", "since=9999-12-31", "p=abc", "topic=", "%00"])
def test_other_parameters_mean_nothing(operator: Client, query: str) -> None:
    assert operator.get(f"{PAGE}?{query}").status_code == 200


@pytest.mark.parametrize("cursor", ["-1", "abc", "1:2:@-1", "\x00", "9" * 30_000])
def test_a_bad_cursor_is_refused(operator: Client, cursor: str) -> None:
    answer = operator.get(LIVE, {"cursor": cursor})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_cursor")


@pytest.mark.parametrize("address", [PAGE, LIVE])
def test_pages_are_only_read(operator: Client, address: str) -> None:
    assert operator.post(address).status_code == 405
    assert "no-store" in operator.get(address)["Cache-Control"]


# Pause and resume


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_queue_is_not_paused_or_resumed_by_reading(
    operator: Client, queue: Callable[..., Queue], verb: str
) -> None:
    queue("invoices")
    assert operator.get(f"/messaging/queues/invoices/{verb}/").status_code == 405


def test_a_queue_is_paused_and_resumed_by_name_of_the_user(
    operator: Client, queue: Callable[..., Queue]
) -> None:
    found = queue("invoices")
    assert operator.post("/messaging/queues/invoices/pause/").status_code == 302
    found.refresh_from_db()
    assert (found.is_paused, found.paused_by) == (True, "operator")
    assert 'aria-label="Resume invoices"' in operator.get(PAGE).content.decode()
    operator.post("/messaging/queues/invoices/resume/")
    found.refresh_from_db()
    assert not found.is_paused


def test_pausing_needs_its_permission(
    staff: Callable[..., Client], queue: Callable[..., Queue]
) -> None:
    found = queue("invoices")
    client = staff("view_queue")
    assert "/pause/" not in client.get(PAGE).content.decode()
    assert client.post("/messaging/queues/invoices/pause/").status_code == 403
    found.refresh_from_db()
    assert not found.is_paused
    assert staff("view_queue", "pause_queue").post("/messaging/queues/invoices/pause/").url == PAGE


def test_pausing_from_another_site_is_refused(
    staff: Callable[..., Client], queue: Callable[..., Queue]
) -> None:
    found = queue("invoices")
    client = staff("view_queue", "pause_queue", strict=True)
    answer = client.post(
        "/messaging/queues/invoices/pause/", data="{}", content_type="application/json"
    )
    assert answer.status_code == 403
    found.refresh_from_db()
    assert not found.is_paused


@pytest.mark.parametrize("name", ["nosuch", "..%2f", "%00", "a%20b", "x" * 10_000])
def test_a_queue_that_does_not_exist_is_not_found(operator: Client, name: str) -> None:
    assert operator.post(f"/messaging/queues/{name}/pause/").status_code == 404


# What it needs


def test_the_pages_need_neither_channels_nor_the_admin() -> None:
    code = """
import sys
sys.modules.update(dict.fromkeys(["channels", "daphne"]))
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "messaging"],
    DATABASES={"default": {"ENGINE": "django.db.backends.postgresql"}},
    ROOT_URLCONF="messaging.dashboard.urls",
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}],
    STATIC_URL="static/",
)
import django
django.setup()
from messaging.dashboard import views
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_nothing_is_written_into_a_page_that_a_strict_policy_forbids(
    operator: Client, nasty_rows: None
) -> None:
    page = operator.get(PAGE)
    assert page["Content-Security-Policy"] == "default-src 'self'"
    html = page.content.decode()
    assert not re.search(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son\w+=\"", html)
    assert not re.search(r"(?:src|href)=\"(?:https?:)?//", html)


def test_the_look_is_below_its_own_class(operator: Client) -> None:
    from django.contrib.staticfiles import finders

    with open(str(finders.find("messaging/messaging.css"))) as file:
        sheet = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)
    selectors = re.findall(r"[^{};]+(?=\{)", sheet)
    parts = {part.strip() for found in selectors for part in re.split(r",(?![^(]*\))", found)}
    strays = {part for part in parts if not re.match(r"(\[data-theme.*\] )?\.messaging|@", part)}
    assert len(parts) > 100
    assert strays == {"50%", "from"}  # of the animations


def test_a_page_reads_few_rows_however_many_messages_wait(
    operator: Client, queue: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "COUNTED", 100)
    queue("invoices")
    send_many("invoices", range(20_000))
    send_many("invoices", range(20_000), delay=60)
    send_many("invoices", range(20_000), ordering_key="customer 7")
    control.depth("invoices")
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO messaging_laneentry (queue_id, lane_id, priority, message_id, attempt)
            SELECT queue_id, -message_id, 0, message_id, 1 FROM messaging_scheduled"""
        )
        cursor.execute(
            "ANALYZE messaging_message, messaging_delivery, messaging_scheduled, "
            "messaging_laneentry, messaging_lease"
        )
        before = rows_read(cursor)
        operator.get(PAGE)
        assert rows_read(cursor) - before < 1_000


def rows_read(cursor: Any) -> int:
    """Count what this transaction has read of the hot tables and their indexes."""
    cursor.execute("""
        SELECT sum(pg_stat_get_xact_tuples_returned(relation)) FROM (
            SELECT indrelid FROM pg_index UNION SELECT indexrelid FROM pg_index
        ) AS relations (relation)
        WHERE relation::regclass::text ~ '^messaging_(message|delivery|scheduled|lane|lease)'
    """)
    return int(cursor.fetchone()[0])
