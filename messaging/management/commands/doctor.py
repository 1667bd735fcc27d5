"""Say what is missing or misconfigured, each with the fix."""

import sys
from typing import Any

from messaging import control
from messaging.control import Finding, Level
from messaging.management.operators import OperatorCommand
from messaging.management.showing import facts


class Command(OperatorCommand):
    help = (
        "Examine settings, database, queues and workers, and say what is wrong with the fix of "
        "each. Nothing is changed. Exit codes: 0 all is well, perhaps with warnings; 1 something "
        "is wrong; 2 wrong arguments."
    )
    # It tells what they say itself.
    requires_system_checks = []

    def carry_out(self, options: dict[str, Any]) -> None:
        found = control.diagnose(using=self.using)
        is_well = all(finding.level is not Level.ERROR for finding in found)
        text = "\n".join(map(_told, found))
        self.answer(text, {"is_well": is_well, "findings": [facts(each) for each in found]})
        if not is_well:
            sys.exit(1)


def _told(finding: Finding) -> str:
    fix = f"\n         {finding.fix}" if finding.fix else ""
    return f"{finding.level:<7}  {finding.text}{fix}"
