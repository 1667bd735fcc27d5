"""Run worker processes that handle the messages of declared consumers."""

import os
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, connections
from django.db.migrations.executor import MigrationExecutor

from messaging import conf
from messaging.exceptions import UnknownQueue
from messaging.sync import synchronise
from messaging.worker.configuration import consumers_for
from messaging.worker.process import Options
from messaging.worker.supervisor import Supervisor


def _at_least(minimum: float, kind: type) -> Any:
    def parse(text: str) -> Any:
        value = kind(text)
        if not value >= minimum:  # so that it is true of NaN too
            raise ValueError
        return value

    parse.__name__ = f"{kind.__name__} of at least {minimum}"
    return parse


class Command(BaseCommand):
    help = (
        "Handle messages until stopped. SIGTERM or Ctrl-C: finish what runs, within --grace; "
        "a second one: end now. Exit codes: 0 stopped or done, 1 not ready, 2 wrong arguments."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("queue", nargs="*", help="Queues to serve (default: all consumers).")
        parser.add_argument(
            "--processes",
            type=_at_least(1, int),
            default=os.cpu_count() or 1,
            help="Worker processes (default: one for each core).",
        )
        parser.add_argument(
            "--threads",
            type=_at_least(1, int),
            default=1,
            help="Threads in each process, for handlers that wait (default: 1). When a process "
            "dies, each message that one of its threads was handling counts as failed.",
        )
        parser.add_argument("--drain", action="store_true", help="End when nothing is ready.")
        parser.add_argument(
            "--max-messages", type=_at_least(1, int), help="End after this many messages in all."
        )
        parser.add_argument(
            "--grace",
            type=_at_least(0, float),
            default=30.0,
            help="Seconds to finish what runs when stopped (default: 30).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if any(not name.strip() for name in options["queue"]):
            raise CommandError("A queue's name is empty. Leave it out to serve all.", returncode=2)
        try:
            consumers = consumers_for(options["queue"])
        except UnknownQueue as error:
            raise CommandError(
                f"{error} A worker serves queues that have a consumer.", returncode=2
            ) from error
        if not consumers:
            raise CommandError(
                "No consumer is declared. Put @consumer functions into consumers.py of an app in "
                "INSTALLED_APPS."
            )
        try:
            self._check_migrated()
            synchronise()
        except OperationalError as error:
            raise CommandError(
                f"The database does not answer: {error}\nStart it, or correct DATABASES."
            ) from error
        worker = Options(
            consumers=consumers,
            processes=options["processes"],
            threads=options["threads"],
            drain=options["drain"],
            max_messages=options["max_messages"],
            grace=options["grace"],
        )
        sys.exit(Supervisor(worker).run())

    def _check_migrated(self) -> None:
        executor = MigrationExecutor(connections[conf.DATABASE])
        targets = [key for key in executor.loader.graph.leaf_nodes() if key[0] == "messaging"]
        if executor.migration_plan(targets):
            raise CommandError("The tables of messaging are not up to date. Run migrate first.")
