"""Fifty writers commit late and out of order: whoever reads sees each event exactly once."""

import datetime
import json
import subprocess
import sys
from collections import Counter

from conftest import ALIAS
from machinery import CHECKOUT, wait_until

from messaging import control, subscribe
from messaging.models import Queue, Subscription, Topic

SESSIONS = 50
EVENTS = 100_000
PATIENCE = 300
LOGGED = "SELECT count(*) FROM messaging_message"
KEPT = "SELECT count(*), count(*) FILTER (WHERE body -> 'kept' = 'true') FROM messaging_message"
# How often an event is on a queue, and how many events are so often; 0 times is missing.
COUNTED = """
    WITH held AS MATERIALIZED (
        SELECT message_id, count(*) AS number FROM messaging_delivery
        WHERE queue_id = (SELECT id FROM messaging_queue WHERE name = %s) GROUP BY 1
    )
    SELECT coalesce(held.number, 0), count(*)
    FROM messaging_message AS log FULL JOIN held ON held.message_id = log.id GROUP BY 1
"""


def test_fifty_writers_commit_late_and_feed_replay_and_subscriptions_see_each_event_once(
    database, send_all, tmp_path
):
    Topic.objects.using(ALIAS).create(name="events")
    for name in ("steady", "copies", "since"):
        Queue.objects.using(ALIAS).create(name=name)
    steady = Queue.objects.using(ALIAS).get(name="steady")
    source = Subscription.objects.using(ALIAS).create(pattern="events", queue=steady)
    told = tmp_path / "feed"
    with told.open("w") as output:
        feed = start(database, "tail", "events", "--json", f"--count={EVENTS}", stdout=output)
    writers = None
    try:
        # It has its position before the first event is there.
        wait_until(lambda: is_followed(database), report=told.read_text)
        writers = start(
            database, "write_late", "events", f"--sessions={SESSIONS}",
            f"--events={EVENTS // SESSIONS}",
        )  # fmt: skip
        wait_until(lambda: database.value(LOGGED) > EVENTS // 4, PATIENCE)
        first = control.begin_replay(source, since=1, to="copies", using=ALIAS)
        hour = datetime.timedelta(hours=1)
        done = subscribe("events", "since", since=hour, using=ALIAS)
        assert writers.poll() is None, "all was written before anything began midway"
        control.run_operation(first, using=ALIAS)
        control.run_operation(done.operation, using=ALIAS)
        assert writers.wait(PATIENCE) == 0
        control.replay(source, since=first.options["upto"], to="copies", using=ALIAS)
        assert feed.wait(PATIENCE) == 0
    finally:
        for process in filter(None, (feed, writers)):
            process.kill()
            process.wait()
    assert database.rows(KEPT) == [(EVENTS, EVENTS)]
    for name in ("steady", "copies", "since"):
        assert database.rows(COUNTED, name) == [(1, EVENTS)], name
    with told.open() as lines:
        seen = Counter(json.loads(line)["id"] for line in lines)
    assert seen == Counter(
        number for (number,) in database.rows("SELECT id FROM messaging_message")
    )


def start(database, *command, stdout=None):
    """Start a command beside the test."""
    return subprocess.Popen(
        [sys.executable, "manage.py", *command], cwd=CHECKOUT, env=database.environment(),
        stdout=stdout,
    )  # fmt: skip


def is_followed(database):
    """Tell whether the feed's session has read its first page."""
    return database.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND query LIKE '%%messaging_pattern_regex%%'"
    )
