"""Have messages of the log wait again, on the queue they were for or on another one."""

from argparse import ArgumentParser
from functools import partial
from typing import Any

from messaging import control
from messaging.management.carrying import BeginningCommand, in_words, progress_of
from messaging.management.filters import add_filter_arguments, filter_of
from messaging.management.operators import EXIT_CODES
from messaging.management.replaying import add_source_arguments, beginning, source_of
from messaging.models import Operation


class Command(BeginningCommand):
    help = (
        "Have messages that are in the log wait again, each as new: those of a queue, or of one of "
        "its subscriptions. The answer tells the snapshot from which the next replay goes on. "
        f"Asks first, unless --yes. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_source_arguments(parser)
        parser.add_argument(
            "--since", type=beginning, required=True, metavar="TIME|ID|SNAPSHOT",
            help="A time with its offset from UTC, a message's id, or a snapshot.",
        )  # fmt: skip
        parser.add_argument("--to", metavar="QUEUE", help="Have them wait on this queue instead.")
        add_filter_arguments(parser, states=False)
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        begin = partial(
            self.begin,
            source_of(self, options["queue"], options["subscription"]),
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
