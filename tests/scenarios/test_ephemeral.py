"""An ephemeral subscription ends with its process, and those of living processes go on."""

import json
import signal

from machinery import wait_until

TOPIC = """
    INSERT INTO messaging_topic (name, description, deduplication_window,
        content_based_deduplication, retention)
    VALUES ('trials.heard', '', 300, false, 3600)
"""
LISTEN = """
from messaging import subscription
from trials.consumers import take_effect

with subscription("trials.#", idle_timeout=5) as messages:
    while True:
        for message in messages(wait=60):
            take_effect(message)
            message.acknowledge()
"""
QUEUES = "SELECT id FROM messaging_queue WHERE name LIKE 'ephemeral.%%' ORDER BY id"

EPHEMERAL = "SELECT queue_id FROM messaging_subscription WHERE idle_timeout IS NOT NULL"


def test_what_a_killed_process_subscribed_is_swept_and_a_living_one_goes_on(database, start_worker):
    database.execute(TOPIC)

    def queues():
        return [number for (number,) in database.rows(QUEUES)]

    def publish(body):
        done = database.manage("publish_message", "trials.heard", json.dumps({"n": body}))
        assert done.returncode == 0, done.stderr

    killed = start_worker("-c", LISTEN, command="shell")
    wait_until(lambda: len(queues()) == 1, report=lambda: killed.output)
    (gone,) = queues()
    living = start_worker("-c", LISTEN, command="shell")
    wait_until(lambda: len(queues()) == 2, report=lambda: living.output)
    start_worker("--processes=2", ready=2)
    publish(1)
    wait_until(lambda: sum(database.effects().values()) == 2, report=lambda: killed.output)
    killed.process.send_signal(signal.SIGKILL)
    killed.process.wait()
    publish(2)
    wait_until(lambda: gone not in queues(), report=lambda: living.output)
    assert len(queues()) == 1, living.output
    assert database.rows(EPHEMERAL) == [(queues()[0],)]
    publish(3)
    wait_until(lambda: sum(database.effects().values()) == 4, report=lambda: living.output)
    # The first was handled by both, the others by the one that lives.
    assert sorted(database.effects().values()) == [1, 1, 2]
    wait_until(lambda: database.waiting == 0)
