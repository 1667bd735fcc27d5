"""Tell what happened to a message."""

from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from typing import Any

from messaging import control
from messaging.control import Caused, Event, Timeline
from messaging.management.filters import message_id
from messaging.management.operators import EXIT_CODES, OperatorCommand
from messaging.management.showing import facts


class Command(OperatorCommand):
    help = (
        "Tell what happened to a message from its publication on, where it is now, what has caused "
        f"it, and what it has caused, as a tree. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("id", type=message_id, help="The message's id.")
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        found = control.timeline(options["id"], using=self.using)
        self.answer("\n".join(_lines(found)), facts(found))


def _lines(found: Timeline) -> Iterator[str]:
    yield f"Message {found.message_id} to {found.sent_to}"
    yield from (f"  {_told(event)}" for event in found.events)
    yield "Now"
    yield from (f"  {why}" for why in found.now)
    if found.causes:
        yield "Caused by, the nearest first"
        yield from (f"  {_named(each)}" for each in found.causes)
    if found.consequences:
        yield "Has caused"
        yield from _tree(found.consequences, "  ")
    if not found.is_complete:
        yield "  and more"


def _told(event: Event) -> str:
    where = f"{event.queue}: " if event.queue else ""
    error = f" {event.error}" if event.error else ""
    return f"{event.at:%Y-%m-%d %H:%M:%S.%f} {where}{event.text}{error}"


def _tree(caused: Iterable[Caused], indent: str) -> Iterator[str]:
    for each in caused:
        yield indent + _named(each)
        yield from _tree(each.consequences, f"{indent}  ")


def _named(caused: Caused) -> str:
    return f"message {caused.id} to {caused.sent_to} at {caused.published_at:%Y-%m-%d %H:%M:%S}"
