"""Following reads a page of the events behind a position, however many there are."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection

from messaging import following
from messaging.models import Message, Topic
from messaging.store import following as store
from messaging.store.feed import snapshot_params

pytestmark = pytest.mark.django_db


@pytest.fixture
def log(topic: Callable[..., Topic]) -> list[int]:
    """Fill the log with old events of two topics and with messages of queues."""
    topics = [topic("parcels.sent").pk, topic("parcels.lost").pk]
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO messaging_message
                (topic_id, queue_id, headers, body, published_at, transaction)
            SELECT (ARRAY[%s, %s, NULL]::bigint[])[1 + n %% 3], CASE n %% 3 WHEN 2 THEN 1 END,
                '{}', to_jsonb(n), now(), (3 + n / 10)::text::xid8
            FROM generate_series(1, 30000) AS n; ANALYZE messaging_message, messaging_topic""",
            topics,
        )
    return topics


def plan_of(sql: str, params: Any) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params)
        ((plan,),) = cursor.fetchall()
    found: dict[str, Any] = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    return found


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    below = [node for child in plan.get("Plans", []) for node in nodes(child)]
    return [plan, *below] if plan.get("Relation Name") == "messaging_message" else below


@pytest.mark.parametrize("pattern", ["#", "parcels.*", "parcels.sent"])
@pytest.mark.parametrize("begins", ["at the end", "far behind", "in the middle of a transaction"])
def test_a_page_never_reads_the_whole_of_the_log(log: list[int], pattern: str, begins: str) -> None:
    here = following.here().seen.snapshot
    seen, after = here, (0, 0)
    if begins != "at the end":
        seen = type(here)(xmin=3, xmax=5, running=frozenset([3, 4]))
    if begins == "in the middle of a transaction":
        message = Message.objects.filter(topic_id=log[0]).order_by("pk")[8_000]
        after = (3 + 24_003 // 10, message.pk)
    params = {
        **snapshot_params(seen),
        "upto": None,
        "transaction": str(after[0]),
        "id": after[1],
        "pattern": pattern,
        "limit": 50,
        "large": store.LARGE,
    }
    read = nodes(plan_of(store.PAGE, params))
    assert read
    assert "Seq Scan" not in {node["Node Type"] for node in read}
    rows = sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in read
    )
    assert rows < 1_000
