"""An operation goes on, whoever dies: exact counts."""

import json

from machinery import wait_until

MANY = 3_000
HERE = """
    SELECT count(*), count(DISTINCT message_id) FROM messaging_scheduled
    JOIN messaging_queue AS queue ON queue.id = queue_id WHERE queue.name = %s
"""


def state_of(database):
    (row,) = database.rows("SELECT state, done FROM messaging_operation")
    return row


def test_an_operation_whose_processes_are_killed_moves_each_message_once(
    database, send_all, start_worker
):
    send_all("alone", [{}] * MANY, delay=3_600)
    worker = start_worker("--processes=2", ready=2)
    begun = database.manage(
        "move", "alone", "together", "--yes", "--background", "--rate=1500", "--json"
    )
    assert begun.returncode == 0, begun.stderr
    assert json.loads(begun.stdout)["total"] == {"number": MANY, "is_exact": True}
    for part in (1, 2, 3):
        wait_until(
            lambda part=part: state_of(database)[1] >= part * MANY // 5,
            report=lambda: worker.output,
        )
        for child in worker.children:
            child.kill()
    wait_until(lambda: state_of(database)[0] != "running", report=lambda: worker.output)
    assert state_of(database) == ("done", MANY)
    assert database.rows(HERE, "together") == [(MANY, MANY)]
    assert database.rows(HERE, "alone") == [(0, 0)]


def test_what_a_killed_command_has_begun_is_finished_by_the_workers(
    database, send_all, start_worker
):
    send_all("alone", [{}] * MANY, delay=3_600)
    command = start_worker("alone", "--yes", "--rate=1500", command="purge")
    wait_until(
        lambda: database.rows("SELECT 1 FROM messaging_operation WHERE done > 0"),
        report=lambda: command.output,
    )
    command.process.kill()
    command.process.wait()
    assert state_of(database)[0] == "running"
    worker = start_worker("--processes=1")
    wait_until(lambda: state_of(database)[0] != "running", report=lambda: worker.output)
    assert state_of(database) == ("done", MANY)
    assert database.rows(HERE, "alone") == [(0, 0)]
