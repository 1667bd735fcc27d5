"""Schedules are fired exactly once a tick while the workers that fire them are killed."""

import datetime
import signal

from machinery import wait_until

SCHEDULE = """
    INSERT INTO messaging_schedule (name, description, queue_id, body, headers, priority, cron,
        every, time_zone, catch_up, paused_by)
    SELECT 'often', '', id, '{}', '{}', 0, '', 1, 'UTC', 'all', '' FROM messaging_queue
    WHERE name = 'alone'
"""
TICKS = "SELECT headers ->> 'x-messaging-schedule-tick' FROM messaging_message ORDER BY id"


def test_each_tick_has_one_message_although_the_workers_are_killed(database, start_worker):
    database.execute(SCHEDULE)
    worker = start_worker("--processes=4", ready=4)

    def ticks():
        return [tick for (tick,) in database.rows(TICKS)]

    for count in range(1, 7):
        wait_until(lambda count=count: len(ticks()) >= count, report=lambda: worker.output)
        for child in worker.children[:3]:
            child.send_signal(signal.SIGKILL)
    worker.signal(signal.SIGTERM)
    worker.wait()
    moments = [datetime.datetime.fromisoformat(tick) for tick in ticks()]
    second = datetime.timedelta(seconds=1)
    assert moments == [moments[0] + number * second for number in range(len(moments))]
    assert database.value("SELECT failed FROM messaging_schedule") == 0
