"""Set a queue, or one of its subscriptions, to a point of the log."""

from argparse import ArgumentParser
from functools import partial
from typing import Any

from messaging import control
from messaging.management.carrying import BeginningCommand, at_least, in_words, progress_of
from messaging.management.operators import EXIT_CODES
from messaging.management.replaying import add_source_arguments, beginning, source_of
from messaging.models import Operation


class Command(BeginningCommand):
    help = (
        "Set a queue, or one of its subscriptions, to a point of the log: what waits is purged, "
        "and what was published from the point on waits again, handled or not. Asks for the "
        f"queue's name first, unless --yes. What a worker is handling stays. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_source_arguments(parser)
        parser.add_argument(
            "--to", type=beginning, required=True, metavar="TIME|ID|SNAPSHOT",
            help="A time with its offset from UTC, a message's id, or a snapshot.",
        )  # fmt: skip
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        begin = partial(
            self.begin,
            source_of(self, options["queue"], options["subscription"]),
            to=options["to"],
            # What is counted first is what is done.
            snapshot=control.snapshot(using=self.using),
        )
        self.begin_and_run(begin, options, expected=options["queue"])

    def begin(self, source: Any, *, snapshot: str, upto: Any, **how: Any) -> Operation:
        """Begin it up to a snapshot, where other operations have ids."""
        return control.begin_seek(source, upto=snapshot, **how)

    def tell_plan(self, planned: Operation) -> None:
        """Say what would go and what would come."""
        purges, replays = planned.options["purges"], planned.options["replays"]
        self.answer(
            f"Would purge {at_least(**purges)} and have {at_least(**replays)} wait again.",
            {"would_purge": purges, "would_replay": replays},
        )

    def question(self, planned: Operation) -> str:
        """Say what goes and what comes."""
        purges, replays = planned.options["purges"], planned.options["replays"]
        return f"This purges {at_least(**purges)} and has {at_least(**replays)} wait again."

    def report(self, operation: Operation) -> None:
        """Say how far it is: what has gone and what has come."""
        sought = control.Sought.by(operation)
        self.answer(
            f"{in_words(operation)}. Purged {sought.purged:,}; {sought.again:,} wait again",
            progress_of(operation) | sought._asdict() | {"snapshot": operation.options["upto"]},
        )
