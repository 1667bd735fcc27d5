"""List the queues, or pause, resume, disable and enable some of them."""

import datetime
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

from messaging import control
from messaging.management.operators import EXIT_CODES, OperatorCommand, number
from messaging.models import Queue
from messaging.store.connection import connection_for
from messaging.store.depths import Depth, counted, depths

HEADINGS = ("queue", "ready", "in flight", "scheduled", "dead", "state")

# What each verb does, and its answers: the state is new, or it was there before.
VERBS: dict[str, tuple[Callable[..., bool], str, str]] = {
    "pause": (control.pause, "is paused now", "was paused already"),
    "resume": (control.resume, "is resumed now", "was not paused"),
    "disable": (control.disable, "accepts nothing now", "was disabled already"),
    "enable": (control.enable, "accepts messages again", "was not disabled"),
}


class Command(OperatorCommand):
    help = (
        "List the queues with what waits on them; or pause or resume the queues named, or disable "
        f"and enable them for senders. Counts are exact up to 10,000. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("verb", nargs="?", choices=["list", *VERBS], default="list")
        parser.add_argument("name", nargs="*", help="The queues.")
        parser.add_argument("--reason", default="", help="Why they are paused, for all to see.")
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        verb, name, reason = options["verb"], options["name"], options["reason"]
        if verb == "list":
            return self._list(name)
        if not name:
            raise self.refusal(f"Name the queues to {verb}.")
        if verb != "pause" and reason:
            raise self.refusal("--reason goes with pause.")
        if len(reason) > 200:
            raise self.refusal(f"The reason has {len(reason)} characters; use at most 200.")
        # All names first, so that a wrong one leaves every queue as it is.
        queues = [control.find_queue(each, self.using) for each in name]
        lines, facts = [], []
        for queue in queues:
            act, new, before = VERBS[verb]
            given = {"reason": reason} if verb == "pause" else {}
            changed = act(queue, by=self.by, using=self.using, **given)
            words = new if changed else before
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
    numbers = (depth.ready, depth.in_flight, depth.scheduled, depth.held or depth.dead)
    return (queue.name, *map(counted, numbers), _state(queue))


def _state(queue: Queue) -> str:
    states = []
    if queue.paused_at:
        reason = f": {queue.pause_reason}" if queue.pause_reason else ""
        states.append(f"paused {_since(queue.paused_by, queue.paused_at)}{reason}")
    if queue.disabled_at:
        states.append(f"disabled {_since(queue.disabled_by, queue.disabled_at)}")
    return "; ".join(states) or "running"


def _since(by: str, at: datetime.datetime) -> str:
    return f"by {by or '?'} since {at:%Y-%m-%d %H:%M} UTC"


def _facts(queue: Queue, depth: Depth) -> dict[str, Any]:
    return {
        "name": queue.name,
        "ready": number(depth.ready),
        "in_flight": number(depth.in_flight),
        "scheduled": number(depth.scheduled),
        "held": number(depth.held),
        "dead": number(depth.dead),
        "paused_at": queue.paused_at.isoformat() if queue.paused_at else None,
        "paused_by": queue.paused_by,
        "pause_reason": queue.pause_reason,
        "disabled_at": queue.disabled_at.isoformat() if queue.disabled_at else None,
        "disabled_by": queue.disabled_by,
    }
