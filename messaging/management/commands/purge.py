"""Delete the messages that wait on a queue."""

from argparse import ArgumentParser
from functools import partial
from typing import Any

from messaging import control
from messaging.management.carrying import BeginningCommand
from messaging.management.filters import add_filter_arguments, filter_of
from messaging.management.operators import EXIT_CODES, number, some


class Command(BeginningCommand):
    help = (
        "Delete what is ready and scheduled on a queue, or the dead letters that it holds. Asks "
        f"for the queue's name first, unless --yes. What a worker is handling stays. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("queue", help="The queue's name.")
        parser.add_argument("--dead", action="store_true", help="Its dead letters instead.")
        add_filter_arguments(parser)
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        queue, dead = options["queue"], options["dead"]
        found = control.find_queue(queue, self.using)
        wanted = filter_of(options)
        if wanted or options["rate"] or options["background"]:
            if dead:
                raise self.refusal("--dead goes with no filter; use --state dead instead.")
            begin = partial(control.begin_purge, found, wanted)
            return self.begin_and_run(begin, options, expected=queue)
        upto = control.ceiling(self.using)
        depth = control.depth(found, using=self.using)
        count = depth.held if dead else depth.ready + depth.scheduled
        thing = "dead letter" if dead else "message"
        what = f"{some(count, thing)} of queue {queue}"
        if options["dry_run"]:
            return self.answer(
                f"Would delete {what}.", {"queue": queue, "would_purge": number(count)}
            )
        if count and not options["yes"]:
            self.ask(f"This deletes {what}.", queue)
        if dead:
            purged = control.purge_dead(found, by=self.by, upto=upto, using=self.using)
        else:
            purged = control.purge(found, by=self.by, upto=upto, using=self.using)
        return self.answer(
            f"Deleted {purged:,} {thing}{'' if purged == 1 else 's'} of queue {queue}.",
            {"queue": queue, "purged": purged},
        )
