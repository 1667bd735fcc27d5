"""Effects: what handlers of the tests do to the database, and what became of it."""

from typing import Any

from django.contrib.auth.models import Group, Permission
from django.db import connection

from messaging.messages import Delivered
from messaging.models import Attempt, DeadLetter, Delivery, Lease, Scheduled


def take_effect(name: object) -> None:
    """Write a row that commits or vanishes with the handler."""
    Group.objects.create(name=str(name))


def effects() -> list[str]:
    """Return the names of the effects that were kept, in the order in which they were written."""
    return list(Group.objects.order_by("pk").values_list("name", flat=True))


def break_the_commit() -> None:
    """Violate a constraint that is checked at the commit, and not before."""
    Permission.objects.create(name="orphan", codename="orphan", content_type_id=-1)


def transaction_id() -> int:
    """Return what tells transactions apart, which costs a handler its first SQL."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text::bigint")
        return int(cursor.fetchone()[0])


def waiting() -> dict[str, int]:
    """Return how many deliveries are ready, scheduled, leased and dead."""
    counts = {
        "ready": Delivery.objects.count(),
        "scheduled": Scheduled.objects.count(),
        "leased": Lease.objects.count(),
        "dead": DeadLetter.objects.count(),
    }
    return {state: count for state, count in counts.items() if count}


def failures() -> list[tuple[int, str]]:
    """Return message id and error of each failed attempt, in order."""
    return list(Attempt.objects.order_by("pk").values_list("message_id", "error"))


def delivered(row: Delivery) -> Delivered:
    """Return the row as a worker knows it that has claimed it."""
    return Delivered(
        id=row.id,
        queue_id=row.queue_id,
        priority=row.priority,
        message_id=row.message_id,
        attempt=row.attempt,
        subscription_id=row.subscription_id,
    )


def make_due() -> None:
    """Let all that is scheduled be due now."""
    execute("UPDATE messaging_scheduled SET due_at = statement_timestamp()")


def execute(sql: str, *params: Any) -> list[tuple[Any, ...]]:
    """Run a statement in the test's transaction and return its rows, if it has any."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else []


def let_leases_end() -> None:
    """Let all leases be over now."""
    execute("UPDATE messaging_lease SET leased_until = statement_timestamp()")
