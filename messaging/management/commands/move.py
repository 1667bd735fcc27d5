"""Move messages of a queue to another one."""

from argparse import ArgumentParser
from functools import partial
from typing import Any

from messaging import control
from messaging.management.carrying import BeginningCommand
from messaging.management.filters import add_filter_arguments, filter_of
from messaging.management.operators import EXIT_CODES


class Command(BeginningCommand):
    help = (
        "Move what waits on a queue, or what the filter describes, to another queue, in order. "
        f"Asks first, unless --yes. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("queue", help="The queue's name.")
        parser.add_argument("to", help="The other queue's name.")
        add_filter_arguments(parser)
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        wanted = filter_of(options)
        begin = partial(control.begin_move, options["queue"], options["to"], wanted)
        self.begin_and_run(begin, options)
