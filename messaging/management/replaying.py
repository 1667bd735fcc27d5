"""What the commands have in common that go by the log: a point of it, and whose messages."""

import datetime
from argparse import ArgumentParser, ArgumentTypeError

from .. import control
from ..control.replaying import Since
from ..models import Queue, Subscription
from .filters import message_id
from .operators import OperatorCommand


def beginning(text: str) -> Since:
    """Return a time, an id or a snapshot."""
    if text.isdecimal():
        return message_id(text)
    if "@" in text:
        return text
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(
            f"{text[:40]!r} is no beginning; use a time such as 2026-11-24T08:00:00+00:00, the id "
            f"of a message, or a snapshot that a replay has told"
        ) from error


def add_source_arguments(parser: ArgumentParser) -> None:
    """Take a queue, and one of its subscriptions."""
    parser.add_argument("queue", help="The queue's name.")
    parser.add_argument(
        "--subscription", metavar="PATTERN",
        help="Only what this subscription of the queue brings, active or not.",
    )  # fmt: skip


def source_of(command: OperatorCommand, name: str, pattern: str | None) -> Queue | Subscription:
    """Return the queue, or its subscription to exactly this pattern."""
    queue = control.find_queue(name, command.using)
    if pattern is None:
        return queue
    rows = Subscription.objects.using(command.using).filter(queue=queue)
    found = rows.filter(pattern=pattern).first()
    if found is None:
        known = ", ".join(rows.values_list("pattern", flat=True)[:20]) or "none"
        raise command.refusal(
            f"Queue {queue.name!r} has no subscription {pattern!r}. It has: {known}."
        )
    return found
