"""Publish a message, or many, to a topic."""

from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from messaging import control, publish, publish_many
from messaging.control import Receiver
from messaging.management.operators import EXIT_CODES
from messaging.management.sending import SendingCommand


class Command(SendingCommand):
    help = (
        "Publish a message to a topic, or one for each line of a file. A dry run says who would "
        f"receive one, and why others would not. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("topic", help="The topic's name.")
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        topic, is_dry = options["topic"], options["dry_run"]
        bodies, given = self.bodies(options), self.given(options)
        is_one = options["file"] is None
        with self.stored(is_dry):
            ids = [publish(topic, bodies[0], **given)] if is_one else None
            ids = publish_many(topic, bodies, **given) if ids is None else ids
        if not (is_dry and is_one):
            return self.tell(ids, f"on topic {topic}.", is_dry, topic=topic)
        found = control.receivers(topic, bodies[0], given["headers"], using=self.using)
        lines = "".join(f"\n{told(each)}" for each in found)
        what = f"on topic {topic}. Who would receive it:{lines or ' nobody.'}"
        facts = {"topic": topic, "receivers": [asdict(each) for each in found]}
        return self.tell(ids, what, is_dry, **facts)


def told(receiver: Receiver) -> str:
    """Say whether a subscription would receive a message, and why not."""
    name = f"{receiver.queue} by {receiver.pattern}"
    return f"  {name}: yes" if receiver.receives else f"  {name}: no. {receiver.why}"
