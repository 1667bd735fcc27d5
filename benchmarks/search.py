"""Measure how long it takes to find messages among five million, and to tell what happened to one.

A database of its own: nine tenths are completed, the others ready, behind keys, scheduled, held
and dead, on twenty queues and ten topics.
"""

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from django.db import connections

from messaging import control
from messaging.control import Filter, State
from messaging.models import Queue, Subscription, Topic

from .measure import plain, settle_down

USING = "search"
MESSAGES = 5_000_000
DONE = MESSAGES * 9 // 10
QUEUES, TOPICS, KEYS = 20, 10, 1_000

# Of ten messages behind the completed ones eight are ready, one is scheduled and one has a key. One
# in a hundred of the others died at its fifth delivery, and the last thousand of them are held.
FILL: Any = """
    INSERT INTO messaging_message
        (id, queue_id, topic_id, headers, body, published_at, ordering_key, causation_id, source)
    OVERRIDING SYSTEM VALUE
    SELECT n, CASE WHEN n %% 4 > 0 THEN %(queue)s + n %% 20 END,
        CASE WHEN n %% 4 = 0 THEN %(topic)s + n %% 10 END,
        jsonb_build_object('tenant', 't' || n %% 100),
        jsonb_build_object('order_id', n, 'customer', jsonb_build_object('id', n %% 50000,
            'country', (ARRAY['GB', 'DE', 'FR'])[1 + n %% 3]), 'total', '29.33',
            'note', repeat('x', 60)),
        statement_timestamp() - (%(messages)s - n) * interval '0.1 s',
        CASE WHEN n > %(done)s AND n %% 10 = 9 THEN 'key-' || n %% 1000 END,
        CASE WHEN n %% 10 = 0 THEN n - 7 END, 'shop@web-1/4711'
    FROM generate_series(1, %(messages)s) AS n;

    INSERT INTO messaging_delivery (queue_id, priority, message_id, attempt)
    SELECT %(queue)s + n %% 20, n %% 3, n, 1
    FROM generate_series(%(done)s + 1, %(messages)s) AS n WHERE n %% 10 < 8;

    INSERT INTO messaging_scheduled (queue_id, priority, message_id, attempt, due_at)
    SELECT %(queue)s + n %% 20, 0, n, 1, statement_timestamp() + n * interval '1 ms'
    FROM generate_series(%(done)s + 1, %(messages)s) AS n WHERE n %% 10 = 8;

    INSERT INTO messaging_laneentry (queue_id, lane_id, priority, message_id, attempt)
    SELECT %(queue)s + n %% 20, n %% 1000, 0, n, 1
    FROM generate_series(%(done)s + 1, %(messages)s) AS n WHERE n %% 10 = 9;

    INSERT INTO messaging_deadletter (message_id, queue_id, origin_id, priority, headers, body,
        published_at, attempts, reason, description, error, traceback, fingerprint)
    SELECT id, %(queue)s + 20, %(queue)s + id %% 20, 0, headers, body, published_at, 5,
        'max_deliveries', 'connection refused', 'ConnectionError', '', 'f' || id %% 50
    FROM messaging_message WHERE id %% 100 = 3 AND id <= %(done)s ORDER BY id;

    INSERT INTO messaging_attempt
        (message_id, queue_id, attempt, outcome, error, description, traceback, worker, duration)
    SELECT dead.message_id, dead.origin_id, number, CASE WHEN number < 5 THEN 'retry'
        ELSE 'max_deliveries' END, 'ConnectionError', 'connection refused', '', 'web-1/1', 0.1
    FROM messaging_deadletter AS dead, generate_series(1, 5) AS number;

    INSERT INTO messaging_lease (queue_id, priority, message_id, attempt, token, worker,
        leased_until)
    SELECT %(queue)s + n %% 20, 0, n, 1, n, 'web-1/1', statement_timestamp() + interval '1 hour'
    FROM generate_series(%(done)s - 999, %(done)s) AS n WHERE n %% 100 <> 3;

    INSERT INTO messaging_receipt
        (queue_id, bucket, message_ids, count, outcome, worker, duration)
    SELECT %(queue)s + n %% 20, n >> 15,
        int8multirange(int8range(n, least(n + 100, ((n >> 15) + 1) << 15))), 100,
        'acknowledged', 'web-1/1', 0.5
    FROM generate_series(1, %(done)s - 1000, 100) AS n;
"""


def fill() -> None:
    """Store the five million messages, once."""
    empty()
    Subscription.objects.using(USING).all().delete()
    first = _rows(Queue, QUEUES + 1)
    topic = _rows(Topic, TOPICS)
    for number in range(TOPICS):
        Subscription.objects.using(USING).create(
            pattern=f"search.{number}", queue_id=first + number
        )
    started = time.perf_counter()
    with connections[USING].cursor() as cursor:
        names = {"queue": first, "topic": topic, "messages": MESSAGES, "done": DONE}
        cursor.execute(FILL, names)
    with plain(USING) as raw:
        settle_down(raw)
    print(f"  {MESSAGES:,} messages were stored in {time.perf_counter() - started:.0f} s")


def _rows(model: Any, count: int) -> int:
    """Create queues or topics whose ids follow one another; return the first id."""
    rows = model.objects.using(USING)
    names = [f"search.{number}" for number in range(count)]
    rows.filter(name__in=names).delete()
    made = [rows.create(name=name).pk for name in names]
    assert made == list(range(made[0], made[0] + count)), "another session makes rows too"
    return made[0]


def empty() -> None:
    """Remove all messages."""
    with connections[USING].cursor() as cursor:
        cursor.execute(
            "TRUNCATE messaging_message, messaging_delivery, messaging_scheduled, messaging_lane,"
            " messaging_laneentry, messaging_attempt, messaging_lease, messaging_deadletter,"
            " messaging_receipt"
        )


def looks() -> Iterator[tuple[str, Callable[[], object]]]:
    """Give what an operator asks for, with the call that answers it."""
    somewhere = random.Random(4).randrange  # noqa: S311 - the same places each time
    wanted: dict[str, Filter] = {
        f"{state}, a field of the body": Filter(state=state, body={"customer.country": "GB"})
        for state in State
    }
    wanted |= {
        f"{state}, a field that no body has": Filter(state=state, body={"customer.id": -1})
        for state in State
    }
    wanted |= {
        "any state, a field that no body has": Filter(body={"customer.id": -1}),
        "any state, a header": Filter(headers={"tenant": "t7"}),
        "a key": Filter(key="key-999"),
        "part of an error": Filter(error="refused"),
        "part of an error that none has": Filter(error="no such error"),
        "a topic": Filter(topic="search.4"),
        "older than five days": Filter(older_than=5 * 86_400),
    }
    for title, each in wanted.items():
        for queue in ("search.3", None):
            where = f"search of {'one queue' if queue else 'all queues'}: {title}"
            yield where, lambda queue=queue, each=each: control.search(queue, each, using=USING)
    yield (
        "search: an id",
        lambda: control.search(None, Filter(ids=[somewhere(1, DONE)]), using=USING),
    )
    yield "peek", lambda: control.peek("search.3", limit=100, using=USING)
    for title, number in {
        "a completed message": lambda: somewhere(1, DONE),
        "a ready message": lambda: somewhere(DONE, MESSAGES) // 10 * 10,
        "a scheduled message": lambda: somewhere(DONE, MESSAGES) // 10 * 10 + 8,
        "a message behind a key": lambda: somewhere(DONE, MESSAGES) // 10 * 10 + 9,
        "a dead message": lambda: somewhere(1, DONE) // 100 * 100 + 3,
    }.items():
        yield f"explain {title}", lambda pick=number: control.explain(pick(), using=USING)
        yield f"timeline of {title}", lambda pick=number: control.timeline(pick(), using=USING)
