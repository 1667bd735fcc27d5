"""Create the queues, topics and subscriptions that code declares and the database lacks."""

from dataclasses import asdict
from typing import Any

from messaging.management.operators import EXIT_CODES, OperatorCommand
from messaging.sync import synchronise


class Command(OperatorCommand):
    help = (
        "Create the queues, topics and subscriptions that are declared in code and missing here. "
        f"What is there stays as it is. migrate and runworker do this too. {EXIT_CODES}"
    )

    def carry_out(self, options: dict[str, Any]) -> None:
        created = synchronise(self.using)
        lines = [
            f"Created {kind[:-1]} {name}."
            for kind, names in asdict(created).items()
            for name in names
        ]
        self.answer("\n".join(lines) or "Nothing is missing.", asdict(created))
