"""List operations on many messages, show one, cancel or resume it."""

from argparse import ArgumentParser
from typing import Any

from messaging import control
from messaging.management.carrying import in_words, progress_of
from messaging.management.filters import message_id
from messaging.management.operators import EXIT_CODES, OperatorCommand


class Command(OperatorCommand):
    help = (
        "List operations, the newest first; show one; cancel one, which stops within a second; or "
        f"resume one, which goes on where it stopped. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = ["list", "show", "cancel", "resume"]
        parser.add_argument("verb", nargs="?", choices=verbs, default="list")
        parser.add_argument("operation", nargs="?", type=message_id, help="Its number.")
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        verb, number = options["verb"], options["operation"]
        if (verb == "list") != (number is None):
            raise self.refusal("list takes no number; show, cancel and resume take one.")
        if verb == "list":
            found = control.operations(using=self.using)
            lines = [in_words(each) for each in found] or ["No operations."]
            return self.answer("\n".join(lines), [progress_of(each) for each in found])
        control.find_operation(number, self.using)
        changed = True
        if verb == "cancel":
            changed = control.cancel_operation(number, by=self.by, using=self.using)
        elif verb == "resume":
            changed = control.resume_operation(number, by=self.by, using=self.using)
        operation = control.find_operation(number, self.using)
        if not changed:
            raise self.refusal(f"Operation {number} is {operation.state}: nothing to {verb}.")
        return self.answer(in_words(operation), progress_of(operation))
