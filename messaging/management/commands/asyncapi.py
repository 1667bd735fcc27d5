"""Write an AsyncAPI document of the queues and topics."""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from messaging import control
from messaging.management.operators import EXIT_CODES, OperatorCommand


class Command(OperatorCommand):
    help = (
        "Write an AsyncAPI 3.1 document of all queues, topics, subscriptions and schemas, as JSON. "
        f"{EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--output", help="The file to write; the standard output otherwise.")
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        text = json.dumps(control.asyncapi(using=self.using), indent=2, ensure_ascii=False)
        if options["output"] is None:
            self.stdout.write(text)
            return
        try:
            Path(options["output"]).write_text(f"{text}\n")
        except OSError as error:
            reason = error.strerror or error
            raise self.refusal(f"{options['output']!r} cannot be written: {reason}.") from error
