"""A replay of very many messages, cancelled half-way, killed and resumed: exact counts."""

import json

from conftest import ALIAS
from machinery import wait_until

from messaging import control
from messaging.models import Queue

MANY = 100_000
HERE = """
    SELECT count(*), count(DISTINCT message_id) FROM messaging_delivery
    JOIN messaging_queue AS queue ON queue.id = queue_id WHERE queue.name = %s
"""
IN_ORDER = """
    SELECT count(*) FROM (
        SELECT message_id < lag(message_id) OVER (ORDER BY waiting.id) AS is_late
        FROM messaging_delivery AS waiting
        JOIN messaging_queue AS queue ON queue.id = queue_id WHERE queue.name = %s
    ) AS compared WHERE is_late
"""


def state_of(database):
    (row,) = database.rows("SELECT state, done FROM messaging_operation")
    return row


def test_a_hundred_thousand_messages_are_replayed_at_a_rate_cancelled_and_resumed_exactly(
    database, send_all, start_worker
):
    for name in ("archive", "copies"):
        Queue.objects.using(ALIAS).create(name=name)
    first, *_ = send_all("archive", range(MANY))
    worker = start_worker("--processes=2", ready=2)
    begun = database.manage(
        "replay", "archive", f"--since={first}", "--to=copies", "--rate=10000", "--yes",
        "--background", "--json",
    )  # fmt: skip
    assert begun.returncode == 0, begun.stderr
    answer = json.loads(begun.stdout)
    send_all("archive", ["after the beginning"] * 10)
    number = str(answer["operation"])
    wait_until(lambda: state_of(database)[1] >= MANY // 3, report=lambda: worker.output)
    for child in worker.children:
        child.kill()
    wait_until(lambda: state_of(database)[1] >= MANY // 2, report=lambda: worker.output)
    assert control.cancel_operation(answer["operation"], using=ALIAS)
    state, done = state_of(database)
    assert state == "cancelled"
    assert MANY // 2 <= done < MANY
    assert database.rows(HERE, "copies") == [(done, done)]
    resumed = database.manage("operations", "resume", number)
    assert resumed.returncode == 0, resumed.stderr
    wait_until(lambda: state_of(database)[0] != "running", report=lambda: worker.output)
    assert state_of(database) == ("done", MANY)
    assert database.rows(HERE, "copies") == [(MANY, MANY)]
    assert database.value(IN_ORDER, "copies") == 0
    assert database.rows(HERE, "archive") == [(MANY + 10, MANY + 10)]
    rest = database.manage(
        "replay", "archive", f"--since={answer['snapshot']}", "--to=copies", "--yes", "--json"
    )
    assert json.loads(rest.stdout)["done"] == 10, rest.stderr
