"""Schedule: send a message again and again, exactly once a tick over any number of workers.

A tick is fired in one transaction: its message is sent and the next tick planned, both or neither.
The clock is the database's.
"""

import datetime
import json
from collections.abc import Mapping
from typing import Any

from django.db import transaction

from .consuming import declarations
from .encoding import check_priority, encode_body, encode_headers
from .engines import Outgoing, engine
from .exceptions import InvalidOption, MessagingError, UnknownQueue, UnknownSchedule
from .messages import MessageId
from .names import check_queue_name, check_topic_name
from .signals import logger, printable
from .sources import source
from .store import schedules
from .store.connection import connection_for, is_lost
from .store.schedules import Scheduled
from .ticks import Ticks, check_ticks

# So many missed ticks are sent at most, of all that catch_up="all" has missed.
MOST = 1_000
# With catch_up="skip" a tick is not missed yet, seconds.
LATE = 10.0
# How soon to try again when a row says no time at all, seconds.
RETRY = 60.0
CATCH_UP = ("skip", "last", "all")
HEADER = "x-messaging-schedule"
TICK_HEADER = "x-messaging-schedule-tick"


def declare_schedule(
    name: str,
    *,
    cron: str | None = None,
    every: float | datetime.timedelta | None = None,
    queue: str | None = None,
    topic: str | None = None,
    body: Any = None,
    headers: Mapping[str, Any] | None = None,
    priority: int = 0,
    time_zone: str = "UTC",
    catch_up: str = "last",
    description: str = "",
) -> None:
    """Declare a message that is sent to a queue or topic at every tick.

    ``cron`` has five fields, minute first, read in ``time_zone``; or ``every`` so many seconds, 1
    to 31,622,400. Ticks that nobody was there to fire: ``catch_up="last"`` sends one message for
    the last of them, ``"all"`` one for each of the last 1,000, ``"skip"`` none. All are initial
    values: what an operator has set stays. Raises InvalidOption, InvalidMessage, InvalidName.
    """
    check_queue_name(name)
    if (queue is None) == (topic is None):
        raise InvalidOption("queue", queue, "give a queue or a topic=, not both")
    ticks = check_ticks(cron, every, time_zone)
    if catch_up not in CATCH_UP:
        raise InvalidOption("catch_up", catch_up, f"use {', '.join(CATCH_UP)}")
    values = {
        "queue": None if queue is None else check_queue_name(queue),
        "topic": None if topic is None else check_topic_name(topic),
        "cron": ticks.cron,
        "every": ticks.every,
        "time_zone": ticks.time_zone,
        "body": json.loads(encode_body(body)),
        "headers": json.loads(encode_headers(headers)),
        "priority": check_priority(priority),
        "catch_up": catch_up,
        "description": description,
    }
    if declarations.schedules.setdefault(name, values) != values:
        raise ValueError(f"Schedule {name!r} is declared twice, and not the same. Give two names.")


def fire_due(using: str | None = None) -> bool:
    """Fire the next schedule that is due, if there is one that nobody else fires."""
    connection = connection_for(using)
    with transaction.atomic(using=connection.alias):
        due = schedules.take_due(connection)
        if due is not None:
            _fire(due, using)
    return due is not None


def _fire(due: Scheduled, using: str | None) -> None:
    connection = connection_for(using)
    try:
        ticks = check_ticks(due.cron, due.every, due.time_zone)
        if due.next_at is None:
            schedules.plan(connection, due.id, next(ticks.after(due.now), None))
            return
        missed, more = ticks.missed(due.next_at, due.now, MOST)
        upcoming = next(each for each in ticks.after(missed[-1]) if each > due.now)
    except (MessagingError, StopIteration, OverflowError, AssertionError) as error:
        # A row that somebody wrote by hand.
        _warn(due, None, error)
        later = due.now + datetime.timedelta(seconds=RETRY)
        schedules.plan(connection, due.id, later, failed=1, error=_text(error))
        return
    sending = _chosen(due, missed)
    if len(sending) < len(missed) or more:
        logger.warning(
            "Schedule leaves out ticks name=%s catch_up=%s since=%s", due.name, due.catch_up,
            due.next_at.isoformat(),
        )  # fmt: skip
    failed, wrong, last = 0, None, None
    for tick in sending:
        try:
            with transaction.atomic(using=connection.alias):
                last = send_tick(due, tick, using)
        except Exception as error:  # whatever the row holds, the worker lives
            if is_lost(connection, error):
                raise
            failed, wrong = failed + 1, error
            _warn(due, tick, error)
    schedules.plan(
        connection,
        due.id,
        upcoming,
        last_at=sending[-1] if sending else None,
        message_id=last,
        failed=failed,
        error=None if wrong is None else _text(wrong),
    )


def _chosen(due: Scheduled, missed: list[datetime.datetime]) -> list[datetime.datetime]:
    """Return the ticks that a message is sent for."""
    if due.catch_up == "all":
        return missed
    last = missed[-1]
    is_late = (due.now - last).total_seconds() > LATE
    return [] if due.catch_up == "skip" and is_late else [last]


def send_tick(
    due: Scheduled, tick: datetime.datetime, using: str | None, *, identity: str = ""
) -> MessageId:
    """Send the message of one tick, in the caller's transaction."""
    zone = Ticks(due.cron, due.every, due.time_zone)
    ours = {HEADER: due.name, TICK_HEADER: zone.shown(tick).isoformat()}
    name = due.queue or due.topic
    if name is None:
        raise UnknownQueue(f"of schedule {due.name}")
    outgoing = Outgoing(
        name,
        due.topic is not None,
        [due.body],
        json.dumps(json.loads(due.headers) | ours, ensure_ascii=False, separators=(",", ":")),
        due.priority,
        deduplication_ids=[identity or f"schedule-{due.name}-{tick.isoformat()}"],
        source=source(),
    )
    ids = engine().store(outgoing, using)
    if ids is None:  # deleted at this moment
        raise UnknownQueue(name)
    return ids[0]


def run_now(name: str, using: str | None = None) -> MessageId:
    """Send the message of a schedule now, whatever its plan, in the caller's transaction."""
    connection = connection_for(using)
    with transaction.atomic(using=connection.alias):
        found = schedules.take(connection, check_queue_name(name))
        if found is None:
            raise UnknownSchedule(name, schedules.known_names(connection))
        identity = f"schedule-{name}-now-{found.now.isoformat()}"
        message_id = send_tick(found, found.now, using, identity=identity)
        schedules.plan(
            connection, found.id, found.next_at, last_at=found.now, message_id=message_id
        )
    return message_id


def _warn(due: Scheduled, tick: datetime.datetime | None, error: Exception) -> None:
    logger.warning(
        "Schedule failed name=%s tick=%s error=%s",
        due.name,
        tick.isoformat() if tick else None,
        printable(_text(error), 300),
    )


def _text(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:2_000].replace("\0", "")
