"""Have messages of the log wait again, on the queue they were for or on another one."""

import datetime
from argparse import ArgumentParser, ArgumentTypeError
from functools import partial
from typing import Any

from messaging import control
from messaging.control.replaying import Since
from messaging.management.carrying import BeginningCommand, in_words, progress_of
from messaging.management.filters import add_filter_arguments, filter_of, message_id
from messaging.management.operators import EXIT_CODES
from messaging.models import Operation, Subscription


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


class Command(BeginningCommand):
    help = (
        "Have messages that are in the log wait again, each as new: those of a queue, or of one of "
        "its subscriptions. The answer tells the snapshot from which the next replay goes on. "
        f"Asks first, unless --yes. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("queue", help="The queue's name.")
        parser.add_argument(
            "--since", type=beginning, required=True, metavar="TIME|ID|SNAPSHOT",
            help="A time with its offset from UTC, a message's id, or a snapshot.",
        )  # fmt: skip
        parser.add_argument(
            "--subscription", metavar="PATTERN",
            help="Only what this subscription of the queue brings, active or not.",
        )  # fmt: skip
        parser.add_argument("--to", metavar="QUEUE", help="Have them wait on this queue instead.")
        add_filter_arguments(parser, states=False)
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        source: Any = options["queue"]
        if (pattern := options["subscription"]) is not None:
            queue = control.find_queue(source, self.using)
            rows = Subscription.objects.using(self.using).filter(queue=queue)
            source = rows.filter(pattern=pattern).first()
            if source is None:
                known = ", ".join(rows.values_list("pattern", flat=True)[:20]) or "none"
                raise self.refusal(
                    f"Queue {queue.name!r} has no subscription {pattern!r}. It has: {known}."
                )
        begin = partial(
            self.begin,
            source,
            since=options["since"],
            to=options["to"],
            wanted=filter_of(options),
            # What is counted first is what is replayed.
            snapshot=control.snapshot(using=self.using),
        )
        self.begin_and_run(begin, options)

    def begin(self, source: Any, *, snapshot: str, upto: Any, **how: Any) -> Operation:
        """Begin it up to a snapshot, where other operations have ids."""
        return control.begin_replay(source, upto=snapshot, **how)

    def report(self, operation: Operation) -> None:
        """Say how far it is, and where the next one goes on."""
        reached = operation.options["upto"]
        self.answer(
            f"{in_words(operation)}. The next goes on with --since '{reached}'",
            progress_of(operation) | {"snapshot": reached},
        )
