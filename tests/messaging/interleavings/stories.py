"""Stories: what sessions do in the interleavings, and what has to hold after each schedule."""

from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

from django.db import OperationalError, connection, connections, transaction
from interleaving import Job, Schedule
from invariants import PLACES, hold
from journal import current

from messaging import (
    LeaseLost,
    Message,
    Reject,
    acknowledge_many,
    control,
    leasing,
    maintenance,
    receive,
    send,
    send_many,
)
from messaging.models import DeadLetter, Lane, Queue, Scheduled, Subscription
from messaging.store import lanes
from messaging.worker.configuration import Configuration, consumers_for
from messaging.worker.runner import Runner

ENDLESS = float("inf")

EFFECT = """
    CREATE UNLOGGED TABLE effect (
        id bigint GENERATED ALWAYS AS IDENTITY, message_id bigint NOT NULL,
        queue text NOT NULL, attempt integer NOT NULL, key text, token bigint)
"""
TAKE_EFFECT = """
    INSERT INTO effect (message_id, queue, attempt, key, token) VALUES (%s, %s, %s, %s, %s)
"""
RESET = """
    DELETE FROM messaging_message; DELETE FROM messaging_delivery; DELETE FROM messaging_scheduled;
    DELETE FROM messaging_lane; DELETE FROM messaging_laneentry; DELETE FROM messaging_lease;
    DELETE FROM messaging_arrival; DELETE FROM messaging_deadletter;
    DELETE FROM messaging_deduplication; DELETE FROM messaging_attempt; DELETE FROM effect;
    DELETE FROM messaging_subscription; UPDATE messaging_queue SET on_failure = 'block';
"""

# What a story keeps from its start for its sessions.
held: dict[str, Any] = {}


def execute(sql: str, *params: Any) -> list[tuple[Any, ...]]:
    """Run a statement and return its rows, if it has any."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params or None)
        return cursor.fetchall() if cursor.description else []


def take_effect(message: Message) -> None:
    """Leave a row in the handler's transaction, and end as the body says."""
    current.journal.called(message)
    token = message.delivery.token
    execute(TAKE_EFFECT, message.id, message.queue, message.attempt, message.ordering_key, token)
    match message.body:
        case {"fails": int(times)} if message.attempt <= times:
            raise ValueError("as told")
        case {"rejected": True}:
            raise Reject("as told")
        case {"dies": "once"} if not held.get("died"):
            held["died"] = True
            raise Reject("as told")
        case {"sends": body, "to": str(key)}:
            send("invoices", body, ordering_key=key)


def work_off() -> None:
    """Let everything become due and be handled, and look that each message ended once."""
    redrive_all()
    for _ in range(20):
        control.release_keys(list(Lane.objects.filter(tokens=0).values_list("pk", flat=True)))
        lapse()
        leasing.sweep_expired()
        make_due()
        maintenance.promote_due()
        if not work() + work("copies"):
            break
    places = execute(PLACES)
    assert {where for _, _, where, _ in places} <= {"done", "dead"}, places
    hold()


def work(queue: str = "invoices") -> int:
    """Claim, handle and settle once, as a worker does that has just started."""
    consumers = consumers_for([queue])
    configuration = Configuration(consumers, None)
    configuration.refresh()
    return Runner(consumers, configuration, name="session").run_round().settled


def states() -> list[str]:
    """Return where the messages are, in order."""
    return [where for _, _, where, _ in sorted(execute(PLACES))]


def handled(key: str = "k") -> list[int]:
    """Return the messages of a key in the order in which they took effect."""
    return [
        message
        for (message,) in execute("SELECT message_id FROM effect WHERE key = %s ORDER BY id", key)
    ]


def position(schedule: Schedule, *words: str) -> float:
    """Return the number of the first step that has all the words, or infinity."""
    for at, step in enumerate(schedule.steps):
        if all(word in step for word in words):
            return at
    return ENDLESS


def spans(schedule: Schedule) -> list[tuple[int, int]]:
    """Return from which step to which each handler ran, to the end of its transaction."""
    began: dict[str, int] = {}
    found = []
    for at, step in enumerate(schedule.steps):
        name, _, sql = step.partition(": ")
        if "INTO effect" in sql:
            began.setdefault(name, at)
        elif sql in ("COMMIT", "ROLLBACK") and name in began:
            found.append((began.pop(name), at))
    return sorted(found)


def overlap(schedule: Schedule) -> bool:
    """Tell whether two handlers ran at once."""
    found = spans(schedule)
    return any(end > start for (_, end), (start, _) in pairwise(found))


def one_after_another(schedule: Schedule) -> None:
    """Look that no two handlers ran at once: I5."""
    assert not overlap(schedule)


def lost(schedule: Schedule) -> list[str]:
    """Return the sessions that came too late."""
    return [name for name, what in schedule.results.items() if isinstance(what, LeaseLost)]


def given_back(schedule: Schedule) -> list[str]:
    """Return where a message is that was held too long: a sweep passes over what is locked."""
    return ["scheduled"] if schedule.results["c"] else ["leased"]


def in_a_transaction(job: Job) -> Job:
    """Return a job that does another in a transaction that commits."""

    def run() -> Any:
        with transaction.atomic():
            return job()

    return run


def rolled_back(job: Job) -> Job:
    """Return a job that does another and takes it back."""

    def run() -> None:
        with transaction.atomic():
            job()
            transaction.set_rollback(True)

    return run


def killed(job: Job) -> Job:
    """Return a job that ends where it would commit, as that of a worker which is killed."""

    def run() -> None:
        mine = connections["default"]
        commit = mine._commit

        def die() -> None:
            raise OperationalError("killed")

        mine._commit = die
        try:
            with suppress(OperationalError):
                job()
        finally:
            mine._commit = commit

    return run


def subscribe(queue: str) -> None:
    """Let a queue have what is published from now on."""
    Subscription.objects.create(pattern="orders.placed", queue=Queue.objects.get(name=queue))
    current.journal.subscribed(queue, True)


def subscribe_both() -> None:
    """Start with both queues subscribed."""
    subscribe("invoices")
    subscribe("copies")


def unsubscribe(queue: str) -> None:
    """Let a queue have nothing more."""
    Subscription.objects.filter(queue__name=queue).delete()
    current.journal.subscribed(queue, False)


def make_due() -> None:
    """Let all that is scheduled be due."""
    execute("UPDATE messaging_scheduled SET due_at = statement_timestamp()")


def lapse() -> None:
    """Let the time of all leases be over."""
    execute("UPDATE messaging_lease SET leased_until = statement_timestamp()")


def cancel_all() -> int:
    """Cancel what is scheduled."""
    found = list(Scheduled.objects.values_list("pk", flat=True))
    return current.journal.took_away(control.cancel(found))


def purge() -> int:
    """Delete what waits."""
    return current.journal.took_away(control.purge("invoices"))


def discard_dead() -> int:
    """Delete the dead letter of the start for good."""
    return current.journal.took_away(control.discard(held["dead"]))


def retry_all_now() -> int:
    """Make ready what is scheduled."""
    return control.retry_now(list(Scheduled.objects.values_list("pk", flat=True)))


def redrive_all() -> int:
    """Redrive every dead letter that there is."""
    return control.redrive(list(DeadLetter.objects.values_list("pk", flat=True)))


def redrive_dead() -> int:
    """Redrive the dead letter of the start, as whoever has seen it in a list."""
    return control.redrive(held["dead"])


def one_dead() -> None:
    """Start with one dead letter, and keep its id."""
    send("invoices", {"rejected": True})
    work()
    held["dead"] = [DeadLetter.objects.get().pk]


def hold_again() -> None:
    """Start with one message that an operator took from its holder, and another holds now."""
    hold_one()
    control.release_leases([held["held"].delivery.id])
    (held["later"],) = take()
    assert held["later"].delivery.id == held["held"].delivery.id


def hold_for_the_last_time() -> None:
    """Start with one message whose last attempt has been held for too long."""
    hold_one()
    lapse()
    leasing.sweep_expired()
    make_due()
    maintenance.promote_due()
    take()
    lapse()


def hold_two() -> None:
    """Start with two messages that are held."""
    send_many("invoices", [1, 2])
    held["first"], held["second"] = take(limit=2)


def acknowledge_together() -> None:
    """Acknowledge two messages in one call; only those take effect that were still held."""
    with transaction.atomic():
        for settled in acknowledge_many([held["first"], held["second"]]):
            if settled.error is None:
                take_effect(settled.message)


def send_keyed(*bodies: Any) -> None:
    """Send to one ordering key, a transaction each unless there is one already."""
    for body in bodies:
        send("invoices", body, ordering_key="k")


def send_keyed_in_a_long_commit(body: Any) -> None:
    """Send to the key, and hold its lane for a while before the commit is through."""
    with transaction.atomic():
        send_keyed(body)
        lanes.join_now(connection)


def park_keys() -> None:
    """Let a dead letter set its key aside."""
    Queue.objects.update(on_failure="park")


def take(limit: int = 1) -> list[Message]:
    """Receive, as a thread does that never did before."""
    leasing._sources.known.clear()
    messages = receive("invoices", limit=limit, lease=60)
    current.journal.received(messages)
    return messages


def hold_one() -> None:
    """Start with one message that is held."""
    send("invoices", 1)
    (held["held"],) = take()


def done_with(name: str) -> Callable[[], None]:
    """Return a job that takes effect and acknowledges in one transaction."""

    def run() -> None:
        with transaction.atomic():
            take_effect(held[name])
            held[name].acknowledge()

    return run
