"""List the queues, or pause and resume some of them."""

from argparse import ArgumentParser
from typing import Any

from messaging import control
from messaging.management.operators import EXIT_CODES, OperatorCommand, number
from messaging.models import Queue
from messaging.store.connection import connection_for
from messaging.store.depths import Depth, counted, depths

HEADINGS = ("queue", "ready", "scheduled", "dead", "state")


class Command(OperatorCommand):
    help = (
        "List the queues with what waits on them; or pause or resume the queues named. Counts are "
        f"exact up to 10,000. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("verb", nargs="?", choices=["list", "pause", "resume"], default="list")
        parser.add_argument("name", nargs="*", help="Queues to pause, to resume or to list.")
        parser.add_argument("--reason", default="", help="Why they are paused, for all to see.")
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        verb, name, reason = options["verb"], options["name"], options["reason"]
        if verb == "list":
            return self._list(name)
        if not name:
            raise self.refusal(f"Name the queues to {verb}.")
        if verb == "resume" and reason:
            raise self.refusal("--reason goes with pause.")
        if len(reason) > 200:
            raise self.refusal(f"The reason has {len(reason)} characters; use at most 200.")
        # All names first, so that a wrong one leaves every queue as it is.
        queues = [control.find_queue(each, self.using) for each in name]
        lines, facts = [], []
        for queue in queues:
            if verb == "pause":
                changed = control.pause(queue, by=self.by, reason=reason, using=self.using)
                words = "is paused now" if changed else "was paused already"
            else:
                changed = control.resume(queue, by=self.by, using=self.using)
                words = "is resumed now" if changed else "was not paused"
            lines.append(f"Queue {queue.name} {words}.")
            facts.append({"queue": queue.name, "changed": changed})
        return self.answer("\n".join(lines), facts)

    def _list(self, names: list[str]) -> None:
        queues = list(Queue.objects.using(self.using).order_by("name"))
        if names:
            wanted = {control.find_queue(name, self.using).pk for name in names}
            queues = [queue for queue in queues if queue.pk in wanted]
        found = depths(connection_for(self.using), [queue.pk for queue in queues])
        rows = [HEADINGS, *(_row(queue, found[queue.pk]) for queue in queues)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        self.answer("\n".join(lines), [_facts(queue, found[queue.pk]) for queue in queues])


def _row(queue: Queue, depth: Depth) -> tuple[str, ...]:
    state = "running"
    if queue.paused_at:
        state = f"paused by {queue.paused_by or '?'} since {queue.paused_at:%Y-%m-%d %H:%M} UTC"
        state += f": {queue.pause_reason}" if queue.pause_reason else ""
    return (
        queue.name,
        *map(counted, (depth.ready, depth.scheduled, depth.held or depth.dead)),
        state,
    )


def _facts(queue: Queue, depth: Depth) -> dict[str, Any]:
    return {
        "name": queue.name,
        "ready": number(depth.ready),
        "scheduled": number(depth.scheduled),
        "held": number(depth.held),
        "dead": number(depth.dead),
        "paused_at": queue.paused_at.isoformat() if queue.paused_at else None,
        "paused_by": queue.paused_by,
        "pause_reason": queue.pause_reason,
    }
