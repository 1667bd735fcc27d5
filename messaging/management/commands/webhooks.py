"""List the webhooks, or enable and disable some of them."""

from argparse import ArgumentParser
from typing import Any

from messaging import control
from messaging.control.webhooks import in_words
from messaging.management.operators import EXIT_CODES, OperatorCommand
from messaging.management.showing import table
from messaging.store.connection import connection_for
from messaging.store.webhooks import described

HEADINGS = ("webhook", "queue", "secret", "state")


class Command(OperatorCommand):
    help = (
        "List the webhooks; or enable those named, also after failures, or disable them: their "
        f"messages wait. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = ["list", "enable", "disable"]
        parser.add_argument("verb", nargs="?", choices=verbs, default="list")
        parser.add_argument("name", nargs="*", help="The webhooks.")
        parser.add_argument("--reason", default="", help="Why they are disabled, for all to see.")
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        verb, names, reason = options["verb"], options["name"], options["reason"]
        # All names first, so that a wrong one leaves every webhook as it is.
        found = [control.find_webhook(name, self.using) for name in names]
        if verb == "list":
            return self._list({webhook.name for webhook in found})
        if not names:
            raise self.refusal(f"Name the webhooks to {verb}.")
        if verb != "disable" and reason:
            raise self.refusal("--reason goes with disable.")
        if len(reason) > 200:
            raise self.refusal(f"The reason has {len(reason)} characters; use at most 200.")
        lines, facts = [], []
        for webhook in found:
            if verb == "disable":
                changed = control.disable_webhook(
                    webhook, by=self.by, reason=reason, using=self.using
                )
                words = "is disabled now" if changed else "was disabled already"
            else:
                changed = control.enable_webhook(webhook, by=self.by, using=self.using)
                words = "is enabled now" if changed else "was enabled already"
            lines.append(f"Webhook {webhook.name} {words}.")
            facts.append({"webhook": webhook.name, "changed": changed})
        return self.answer("\n".join(lines), facts)

    def _list(self, names: set[str]) -> None:
        found = [
            webhook
            for webhook in described(connection_for(self.using))
            if not names or webhook.name in names
        ]
        rows = [(each.name, each.queue, each.secret, in_words(each)) for each in found]
        self.answer(table(HEADINGS, rows), [each._asdict() for each in found])
