"""Send a message, or many, to a queue."""

from argparse import ArgumentParser
from typing import Any

from messaging import send, send_many
from messaging.management.operators import EXIT_CODES
from messaging.management.sending import SendingCommand


class Command(SendingCommand):
    help = f"Send a message to a queue, or one for each line of a file. {EXIT_CODES}"

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("queue", help="The queue's name.")
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        queue, is_dry = options["queue"], options["dry_run"]
        bodies, given = self.bodies(options), self.given(options)
        with self.stored(is_dry):
            if options["file"] is None:
                ids = [send(queue, bodies[0], **given)]
            else:
                ids = send_many(queue, bodies, **given)
        self.tell(ids, f"on queue {queue}.", is_dry, queue=queue)
