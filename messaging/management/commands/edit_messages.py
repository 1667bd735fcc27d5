"""Change the bodies of messages that wait, by a JSON merge patch."""

import json
from argparse import ArgumentParser, ArgumentTypeError
from functools import partial
from typing import Any

from messaging import control
from messaging.management.carrying import BeginningCommand
from messaging.management.filters import add_filter_arguments, filter_of
from messaging.management.operators import EXIT_CODES


def patch(text: str) -> Any:
    """Return a merge patch."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ArgumentTypeError(f"{text[:40]!r} is no JSON: {error}") from error


class Command(BeginningCommand):
    help = (
        "Change the bodies of what waits on a queue, or of what the filter describes, by a JSON "
        f"merge patch (RFC 7386). Old versions are kept. Asks first, unless --yes. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("queue", help="The queue's name.")
        parser.add_argument("--patch", type=patch, required=True, metavar="JSON")
        add_filter_arguments(parser)
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        wanted = filter_of(options)
        begin = partial(control.begin_edit, options["queue"], wanted, patch=options["patch"])
        self.begin_and_run(begin, options)
