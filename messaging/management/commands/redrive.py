"""Move dead letters back to the queues that they come from."""

from argparse import ArgumentParser
from functools import partial
from typing import Any

from messaging import control
from messaging.management.carrying import BeginningCommand
from messaging.management.commands.edit_messages import patch
from messaging.management.filters import add_filter_arguments, filter_of
from messaging.management.filters import message_id as row_id
from messaging.management.operators import EXIT_CODES, number, some
from messaging.models import DeadLetter
from messaging.store.connection import connection_for
from messaging.store.depths import COUNT_LIMIT
from messaging.store.operations import dead_of_queue


class Command(BeginningCommand):
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
        which.add_argument("--group", metavar="FINGERPRINT", help="Those of an error group.")
        which.add_argument("--all", action="store_true", help="Every dead letter.")
        parser.add_argument("--to", metavar="QUEUE", help="Another queue than each comes from.")
        parser.add_argument("--patch", type=patch, metavar="JSON", help="A merge patch of bodies.")
        parser.add_argument(
            "--canary", action="store_true", help="One first: stop when it fails again."
        )
        add_filter_arguments(parser, states=False)
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        ids, queue = options["ids"], options["queue"]
        to = None if options["to"] is None else control.find_queue(options["to"], self.using)
        wanted = filter_of(options)
        how = {name: options[name] for name in ("canary", "patch") if options[name]}
        if how or wanted or options["group"] or options["rate"] or options["background"]:
            begin = partial(
                control.begin_redrive, queue, wanted,
                ids=ids, fingerprint=options["group"], to=to, **how,
            )  # fmt: skip
            return self.begin_and_run(begin, options)
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
