"""Move dead letters back to the queues that they come from."""

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from messaging import control
from messaging.management.operators import EXIT_CODES, OperatorCommand, number, some
from messaging.models import DeadLetter
from messaging.store.connection import connection_for
from messaging.store.depths import COUNT_LIMIT
from messaging.store.operations import dead_of_queue


def row_id(text: str) -> int:
    """Return an id that the database can hold."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and 0 < int(text) < 2**63):
        raise ArgumentTypeError(f"{text[:40]!r} is no id; use 1 to {2**63 - 1}")
    return int(text)


class Command(OperatorCommand):
    help = (
        "Move dead letters back to the queues that they come from, where they are delivered anew. "
        f"Asks first when they are not given by id, unless --yes. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument(
            "--id", type=row_id, action="append", dest="ids", help="A dead letter; may be repeated."
        )
        which.add_argument("--queue", help="Those that a queue holds, or that come from it.")
        which.add_argument("--all", action="store_true", help="Every dead letter.")
        parser.add_argument("--to", metavar="QUEUE", help="Another queue than each comes from.")
        parser.add_argument("--yes", action="store_true", help="Do not ask.")
        parser.add_argument("--dry-run", action="store_true", help="Only count.")
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        ids, queue = options["ids"], options["queue"]
        to = None if options["to"] is None else control.find_queue(options["to"], self.using)
        count = self._count(ids, queue)
        if options["dry_run"]:
            return self.answer(
                f"Would redrive {some(count, 'dead letter')}.", {"would_redrive": number(count)}
            )
        if count and not ids and not options["yes"]:
            self.ask(f"This redrives {some(count, 'dead letter')}.", "yes")
        if ids:
            moved = control.redrive(ids, to=to, by=self.by, using=self.using)
        elif queue is not None:
            moved = control.redrive_queue(queue, to=to, by=self.by, using=self.using)
        else:
            moved = control.redrive_all(to=to, by=self.by, using=self.using)
        return self.answer(
            f"Redrove {moved:,} dead letter{'' if moved == 1 else 's'}.", {"redriven": moved}
        )

    def _count(self, ids: list[int] | None, queue: str | None) -> int:
        dead = DeadLetter.objects.using(self.using)
        if ids:
            return dead.filter(pk__in=ids).count()
        if queue is not None:
            found = control.find_queue(queue, self.using)
            newest = control.ceiling(self.using).dead
            limit = COUNT_LIMIT + 1
            ids = dead_of_queue(
                connection_for(self.using), found.pk, after=0, upto=newest, limit=limit
            )
            return len(ids)
        return dead.order_by()[: COUNT_LIMIT + 1].count()
