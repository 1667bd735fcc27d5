"""What the commands that send and publish have in common: bodies, options and the answer."""

import datetime
import json
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction

from ..exceptions import EngineUnavailable, InvalidMessage, PublishUncertain
from ..messages import MessageId
from .operators import OperatorCommand

SINGLE = ("deduplication_id", "message_id")
OPTIONS = (
    "priority",
    "delay",
    "deliver_at",
    "expires_in",
    "ordering_key",
    "fairness_key",
    "correlation_id",
    "reply_to",
)


def header(text: str) -> tuple[str, Any]:
    """Return the name and value of ``name=text`` or, for what is no text, ``name:=JSON``."""
    name, separator, value = text.partition("=")
    if not separator or not name.rstrip(":"):
        raise ArgumentTypeError(f"{text[:40]!r} is no header; use name=text, or name:=5")
    if not name.endswith(":"):
        return name, value
    try:
        return name[:-1], json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ArgumentTypeError(f"{value[:40]!r} is no JSON; use {name}=true or so") from error


def moment(text: str) -> datetime.datetime:
    """Return a point in time, as ISO 8601 writes it."""
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise ArgumentTypeError(
            f"{text[:40]!r} is no time; use one such as 2026-12-24T18:00:00+01:00"
        ) from error


def decoded(text: str | bytes, what: str) -> Any:
    """Return a JSON value, or raise InvalidMessage that says what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidMessage(
            f"{what} is no JSON ({error or 'too deep'}). Text needs quotes: '\"text\"'."
        ) from error


class SendingCommand(OperatorCommand):
    """Store messages that the command line, a file or the standard input holds."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("body", nargs="?", help="The body as JSON; - reads standard input.")
        parser.add_argument(
            "--file",
            help="Many bodies instead, a line each in JSON: all are stored or none; - reads "
            "standard input.",
        )
        parser.add_argument(
            "--header",
            type=header,
            action="append",
            default=[],
            dest="headers",
            metavar="NAME=VALUE",
            help="A header; NAME:=JSON for a number, true, false or null. May be repeated.",
        )
        parser.add_argument("--priority", type=int, help="-100 to 100, higher first (0).")
        parser.add_argument("--delay", type=float, metavar="SECONDS")
        parser.add_argument("--deliver-at", type=moment, metavar="TIME", help="In ISO 8601.")
        parser.add_argument("--expires-in", type=float, metavar="SECONDS")
        parser.add_argument("--key", dest="ordering_key", help="The ordering key.")
        parser.add_argument("--fairness-key", metavar="KEY")
        parser.add_argument("--correlation-id", metavar="ID")
        parser.add_argument("--reply-to", metavar="QUEUE")
        parser.add_argument("--deduplication-id", metavar="ID", help="Not with --file.")
        parser.add_argument("--message-id", metavar="UUID", help="Not with --file.")
        parser.add_argument(
            "--dry-run", action="store_true", help="Only tell what would be stored or refused."
        )
        super().add_arguments(parser)

    def bodies(self, options: dict[str, Any]) -> list[Any]:
        """Return the one body that is given, or those of the file."""
        body, file = options["body"], options["file"]
        if (body is None) == (file is None):
            raise self.refusal("Give one body, or --file.")
        if file is None:
            return [decoded(sys.stdin.buffer.read() if body == "-" else body, "The body")]
        if given := [name for name in SINGLE if options[name] is not None]:
            raise self.refusal(f"--{given[0].replace('_', '-')} is of one message: leave it out.")
        return [
            decoded(line, f"Line {number}")
            for number, line in enumerate(self._lines(file), 1)
            if line.strip()
        ]

    def given(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the options of send() and publish() that are given."""
        names = OPTIONS if options["file"] is not None else (*OPTIONS, *SINGLE)
        given = {name: options[name] for name in names if options[name] is not None}
        return {"headers": dict(options["headers"]) or None, "using": self.using, **given}

    def tell(self, ids: Iterable[MessageId], what: str, is_dry: bool, **facts: Any) -> None:
        """Say which messages were stored, and which were there before."""
        ids = list(ids)
        new = [] if is_dry else [str(each) for each in ids if not each.duplicate]
        lines = [f"Message {int(each)} was there before." for each in ids if each.duplicate]
        count = sum(not each.duplicate for each in ids)
        messages = f"{count:,} message{'' if count == 1 else 's'}"
        if count or not ids:
            lines.append(f"{'Would store' if is_dry else 'Stored'} {messages} {what}")
        if len(new) == 1:
            lines[-1] = f"Stored message {new[0]} {what}"
        told = [
            {"id": int(each) if each.duplicate or not is_dry else None, "duplicate": each.duplicate}
            for each in ids
        ]
        self.answer("\n".join(lines), {**facts, "dry_run": is_dry, "messages": told})

    @contextmanager
    def stored(self, is_dry: bool) -> Iterator[None]:
        """Commit what is stored inside, or undo it when it is a dry run.

        What may succeed the next time ends with exit code 1.
        """
        try:
            with transaction.atomic(using=self.using):
                yield
                if is_dry:
                    transaction.set_rollback(True, using=self.using)
        except (PublishUncertain, EngineUnavailable) as error:
            raise CommandError(str(error)) from error

    def _lines(self, file: str) -> list[bytes]:
        if file == "-":
            return sys.stdin.buffer.read().splitlines()
        try:
            return Path(file).read_bytes().splitlines()
        except OSError as error:
            raise self.refusal(f"{file!r} cannot be read: {error.strerror or error}.") from error
