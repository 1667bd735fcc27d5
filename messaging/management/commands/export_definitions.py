"""Write what queues, topics, subscriptions and schedules are, as JSON."""

from typing import Any

from messaging import control
from messaging.management.operators import EXIT_CODES, OperatorCommand


class Command(OperatorCommand):
    help = (
        "Write all queues, topics, subscriptions and schedules with their policies as JSON, for "
        f"import_definitions. Messages, ids and pauses are not part of it. {EXIT_CODES}"
    )

    def carry_out(self, options: dict[str, Any]) -> None:
        self.stdout.write(control.export_definitions(using=self.using))
