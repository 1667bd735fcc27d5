"""Look for messages wherever they are."""

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from messaging import control
from messaging.control import Found, Seen
from messaging.management.filters import add_filter_arguments, filter_of
from messaging.management.operators import EXIT_CODES, OperatorCommand
from messaging.management.showing import facts
from messaging.store.searching import LOOKED_AT, Position

SHOWN = 100


class Command(OperatorCommand):
    help = (
        "Look for messages of a queue, or of all queues: ready, scheduled, in flight, dead and "
        "completed ones, the newest of each first. A call looks at a bounded number of messages, "
        f"and says behind what to go on. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("queue", nargs="?", help="The queue's name (default: all queues).")
        add_filter_arguments(parser)
        parser.add_argument("--limit", type=int, default=20, help="How many to show (20).")
        parser.add_argument(
            "--look-at", type=int, default=LOOKED_AT, help=f"How many to look at ({LOOKED_AT:,})."
        )
        parser.add_argument("--after", help="Go on where a call before has ended.")
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        after = options["after"]
        found = control.search(
            options["queue"],
            filter_of(options),
            limit=options["limit"],
            look_at=options["look_at"],
            after=Position.parse(after) if after is not None else None,
            using=self.using,
        )
        following = str(found.next) if found.next else None
        told = {
            "messages": [facts(seen) for seen in found.messages],
            "looked_at": found.looked_at,
            "next": following,
            "is_certain": found.is_certain,
        }
        self.answer("\n".join(_lines(found)), told)


def _lines(found: Found) -> Iterator[str]:
    yield from map(_told, found.messages)
    many = "" if found.looked_at == 1 else "s"
    if found.next is None:
        yield f"Found {len(found.messages):,}; looked at all {found.looked_at:,} message{many}."
    else:
        yield (
            f"Found {len(found.messages):,}; looked at the newest {found.looked_at:,} "
            f"message{many}. There are more: --after {found.next}"
        )
    if not found.is_certain:
        yield "More waits than was compared: some of the completed ones may be ready still."


def _told(seen: Seen) -> str:
    where = " ".join(filter(None, (seen.queue, seen.topic and f"({seen.topic})")))
    key = f" key {seen.key!r}" if seen.key else ""
    error = f" {seen.error}" if seen.error else ""
    body = seen.undecodable or json.dumps(seen.body, ensure_ascii=False)
    body = body if len(body) <= SHOWN else f"{body[: SHOWN - 1]}…"
    at = f"{seen.published_at:%Y-%m-%d %H:%M:%S}" if seen.published_at else "-"
    return f"{seen.id} {seen.state} {where}{key} {at} {body}{error}"
