"""What the commands have in common that begin an operation: count, ask, carry out, say so."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from typing import Any

from django.core.management.base import CommandError
from django.db import transaction

from .. import control
from ..models import Operation
from ..store.depths import counted
from .operators import OperatorCommand


def rate(text: str) -> float:
    """Return messages a second."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"{text[:40]!r} is no rate; use messages a second, more than 0")
    return value


def progress_of(operation: Operation) -> dict[str, Any]:
    """Return an operation as JSON values."""
    return {
        "operation": operation.pk,
        "kind": operation.kind,
        "state": operation.state,
        "queue": operation.queue.name if operation.queue else None,
        "to": operation.to.name if operation.to else None,
        "done": operation.done,
        "total": {"number": operation.total, "is_exact": operation.is_exact},
        "filter": operation.filter,
        "rate": operation.rate,
        "error": operation.error,
        "by": operation.created_by,
        "begun_at": operation.created_at.isoformat(),
        "ended_at": operation.finished_at and operation.finished_at.isoformat(),
    }


def in_words(operation: Operation) -> str:
    """Say on one line how far an operation is."""
    total = "?" if operation.total is None else counted(operation.total)
    if operation.total is not None and not operation.is_exact and not total.endswith("+"):
        total += "+"
    end = f": {operation.error}" if operation.error else ""
    return (
        f"Operation {operation.pk}, {operation.kind}: {operation.state}, "
        f"{operation.done:,} of {total}{end}"
    )


def at_least(number: int | None, is_exact: bool) -> str:
    """Say how many, with a plus where there may be more."""
    many = counted(number or 0)
    return many if is_exact or many.endswith("+") else f"{many}+"


class BeginningCommand(OperatorCommand):
    """Begin an operation and carry it out, or leave that to the workers."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--rate", type=rate, help="Messages a second.")
        parser.add_argument(
            "--background", action="store_true", help="Leave it to the workers, and end at once."
        )
        parser.add_argument("--yes", action="store_true", help="Do not ask.")
        parser.add_argument("--dry-run", action="store_true", help="Only count.")
        super().add_arguments(parser)

    def begin_and_run(
        self, begin: Callable[..., Operation], options: dict[str, Any], expected: str = "yes"
    ) -> None:
        """Count, ask, begin, and carry out; Ctrl-C cancels it, and it can be resumed."""
        how = {
            "by": self.by,
            "upto": control.ceiling(self.using),
            "using": self.using,
            "rate": options["rate"],
        }
        # What would begin, taken back: only its count is wanted yet.
        with transaction.atomic(using=self.using):
            planned = begin(**how)
            transaction.set_rollback(True, using=self.using)
        if options["dry_run"]:
            return self.tell_plan(planned)
        if planned.total and not options["yes"]:
            self.ask(self.question(planned), expected)
        operation = begin(**how)
        if options["background"]:
            return self.report(operation)
        try:
            operation = control.run_operation(operation, progress=self._tell, using=self.using)
        except KeyboardInterrupt:
            control.cancel_operation(operation, by=self.by, using=self.using)
            operation = control.find_operation(operation.pk, self.using)
        self.report(operation)
        if operation.state in ("failed", "cancelled"):
            raise CommandError(f"{in_words(operation)} (resume {operation.pk} goes on)")
        return None

    def tell_plan(self, planned: Operation) -> None:
        """Say what would be done."""
        facts = {"number": planned.total, "is_exact": planned.is_exact}
        many = at_least(planned.total, planned.is_exact)
        self.answer(f"Would {planned.kind} {many}.", {f"would_{planned.kind}": facts})

    def question(self, planned: Operation) -> str:
        """Say what is about to be done."""
        return f"This does {planned.kind} to {at_least(planned.total, planned.is_exact)}."

    def report(self, operation: Operation) -> None:
        """Say how far an operation is."""
        self.answer(in_words(operation), progress_of(operation))

    def _tell(self, operation: Operation) -> None:
        self.stderr.write(in_words(operation))
