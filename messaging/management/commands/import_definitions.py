"""Create and change queues, topics, subscriptions and schedules as an export says."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from messaging import control
from messaging.control import Change
from messaging.management.operators import EXIT_CODES, OperatorCommand
from messaging.signals import printable


class Command(OperatorCommand):
    help = (
        "Create and change queues, topics, subscriptions and schedules as export_definitions has "
        "written "
        "them: all of it, or nothing when a line or a field is wrong. Rows are found by their "
        f"names; none is deleted. Doing it again changes nothing. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", help="The exported JSON; - reads the standard input.")
        parser.add_argument("--dry-run", action="store_true", help="Only tell what would change.")
        super().add_arguments(parser)

    def carry_out(self, options: dict[str, Any]) -> None:
        imported = control.import_definitions(
            self._read(options["file"]),
            by=self.by,
            dry_run=options["dry_run"],
            using=self.using,
        )
        would = "Would be c" if options["dry_run"] else "C"
        lines = [f"{would}reated: {what}" for what in imported.created]
        lines += [f"{would}hanged: {_told(change)}" for change in imported.changed]
        facts = {
            "created": imported.created,
            "changed": [change._asdict() for change in imported.changed],
        }
        self.answer("\n".join(lines) or "Nothing is to be changed.", facts)

    def _read(self, file: str) -> bytes:
        if file == "-":
            return sys.stdin.buffer.read()
        try:
            return Path(file).read_bytes()
        except OSError as error:
            raise self.refusal(f"{file!r} cannot be read: {error.strerror or error}.") from error


def _told(change: Change) -> str:
    before, after = printable(change.before, 80), printable(change.after, 80)
    return f"{change.what}, {change.policy}: {before} → {after}"
