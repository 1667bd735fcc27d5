"""What the operators' commands have in common: options, answers, refusals and questions."""

import getpass
import json
import sys
from abc import ABC, abstractmethod
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections

from .. import conf
from ..exceptions import MessagingError
from ..store.depths import COUNT_LIMIT, counted

EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 refused or wrong arguments."


class OperatorCommand(BaseCommand, ABC):
    """Carry out one of the verbs of ``messaging.control`` and say what came of it."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="Answer in JSON.")
        parser.add_argument(
            "--database",
            choices=tuple(connections),
            help="Alias of the database that holds the messages.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self.as_json: bool = options["json"]
        self.using: str = options["database"] or conf.DATABASE
        try:
            self.carry_out(options)
        except MessagingError as error:
            raise self.refusal(str(error)) from error

    @abstractmethod
    def carry_out(self, options: dict[str, Any]) -> None:
        """Do what the command is for."""

    @property
    def by(self) -> str:
        """Who acts, for the log: the account on this machine."""
        try:
            return f"{getpass.getuser()} (manage.py)"
        except (KeyError, OSError):  # an account without a name
            return "manage.py"

    def answer(self, text: str, facts: Any) -> None:
        """Write the text, or the facts as JSON."""
        self.stdout.write(json.dumps(facts, ensure_ascii=False) if self.as_json else text)

    def refusal(self, reason: str) -> CommandError:
        """Return the error that ends the command with exit code 2."""
        return CommandError(reason, returncode=2)

    def ask(self, question: str, expected: str) -> None:
        """Go on when the expected answer is typed; refuse when it is not, or nobody can type."""
        if not sys.stdin.isatty():
            raise self.refusal(f"{question} Nobody can answer here: add --yes, or --dry-run.")
        if input(f"{question} Type {expected!r} to go on: ").strip() != expected:
            raise self.refusal("Nothing was done.")


def some(count: int, thing: str) -> str:
    """Say a bounded count of something."""
    return f"{counted(count)} {thing}" if count == 1 else f"{counted(count)} {thing}s"


def number(count: int) -> dict[str, Any]:
    """Return a bounded count for JSON."""
    return {"number": min(count, COUNT_LIMIT), "is_exact": count <= COUNT_LIMIT}
