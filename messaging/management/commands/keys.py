"""List the ordering keys that are parked, or let one go on."""

from argparse import ArgumentParser
from typing import Any

from messaging import control
from messaging.management.operators import EXIT_CODES, OperatorCommand, number
from messaging.store.depths import counted


class Command(OperatorCommand):
    help = (
        "List the keys of a queue that a dead letter has set aside, or let one go on without it. "
        f"A key that waits for a retry is tried at once. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("queue", help="The queue's name.")
        parser.add_argument("--release", metavar="KEY", help="The key to let go on.")
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        queue, key = control.find_queue(options["queue"], self.using), options["release"]
        if key is None:
            parked = control.parked(queue, using=self.using)
            lines = [
                f"{each.key}  {counted(each.waiting)} waiting, parked since "
                f"{each.parked_at:%Y-%m-%d %H:%M} UTC"
                for each in parked
            ]
            facts = [
                {
                    "key": each.key,
                    "waiting": number(each.waiting),
                    "parked_at": each.parked_at.isoformat(),
                }
                for each in parked
            ]
            return self.answer("\n".join(lines) or "No key is parked.", facts)
        released = control.release_key(queue, key, by=self.by, using=self.using)
        if not released:
            raise self.refusal(f"Key {key!r} of queue {queue.name} neither is parked nor waits.")
        return self.answer(
            f"Key {key} of queue {queue.name} goes on.", {"queue": queue.name, "released": key}
        )
