"""Say why a message is not delivered, or who would receive one."""

from argparse import ArgumentParser
from typing import Any

from messaging import control
from messaging.management.commands.publish_message import told
from messaging.management.filters import message_id
from messaging.management.operators import EXIT_CODES, OperatorCommand
from messaging.management.sending import decoded, header
from messaging.management.showing import facts


class Command(OperatorCommand):
    help = (
        "Say why a message is not delivered, queue by queue, the nearest reason first; or, with "
        "--receivers, which subscriptions a message would go to if it were published, and why not "
        f"to the others. Nothing is stored. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("id", nargs="?", type=message_id, help="The message's id.")
        parser.add_argument("--receivers", metavar="TOPIC", help="Of a message to this topic.")
        parser.add_argument("--body", default="null", help="Its body as JSON (null).")
        parser.add_argument(
            "--header",
            type=header,
            action="append",
            default=[],
            dest="headers",
            metavar="NAME=VALUE",
            help="A header of it; NAME:=JSON for what is no text. May be repeated.",
        )
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        number, topic = options["id"], options["receivers"]
        if (number is None) == (topic is None):
            raise self.refusal("Give the id of a message, or --receivers TOPIC.")
        if topic is None:
            reasons = control.explain(number, using=self.using)
            return self.answer("\n".join(map(str, reasons)), [facts(why) for why in reasons])
        body = decoded(options["body"], "The body")
        headers = dict(options["headers"]) or None
        found = control.receivers(topic, body, headers, using=self.using)
        text = "\n".join(told(each).strip() for each in found)
        return self.answer(text or "Nobody subscribes.", [facts(each) for each in found])
