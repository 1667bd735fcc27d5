"""Run worker processes that handle the messages of declared consumers."""

import os
import signal
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, OperationalError

from messaging import conf
from messaging.consuming import Consumer, declarations
from messaging.exceptions import UnknownQueue
from messaging.names import NAME, shown
from messaging.sync import is_migrated, synchronise
from messaging.webhooks.serving import Endpoints, are_installed, queues_with_webhooks
from messaging.worker.configuration import Finder, consumers_for
from messaging.worker.naming import NameTaken, give_back_name, take_name
from messaging.worker.options import Options
from messaging.worker.reloading import is_reloaded, run_reloading
from messaging.worker.supervisor import Supervisor

MIB = 1 << 20


def _within(minimum: float, kind: type, maximum: float | None = None) -> Any:
    def parse(text: str) -> Any:
        value = kind(text)
        if not value >= minimum:  # so that it is true of NaN too
            raise ValueError
        if maximum is not None and value > maximum:
            raise ValueError
        return value

    limit = "" if maximum is None else f" and at most {maximum}"
    parse.__name__ = f"{kind.__name__} of at least {minimum}{limit}"
    return parse


class Command(BaseCommand):
    help = (
        "Handle messages until stopped. SIGTERM or Ctrl-C: finish what runs, within --grace; "
        "a second one: end now. SIGTSTP or Ctrl-Z: claim nothing until SIGCONT. SIGQUIT: print the "
        "stacks of all processes. SIGUSR1: log the state. SIGHUP is ignored. "
        "Exit codes: 0 stopped or done, 1 not ready, 2 wrong arguments."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("queue", nargs="*", help="Queues to serve (default: all consumers).")
        parser.add_argument(
            "--queues", action="append", default=[], help="The same, separated by commas."
        )
        parser.add_argument(
            "--wait-for-queue",
            action="store_true",
            help="Accept queues that have no consumer yet, and wait for a release that has one.",
        )
        parser.add_argument(
            "--processes",
            type=_within(1, int),
            default=os.cpu_count() or 1,
            help="Worker processes (default: one for each core).",
        )
        parser.add_argument(
            "--threads",
            type=_within(1, int),
            default=1,
            help="Threads in each process, for handlers that wait (default: 1). When a process "
            "dies, each message that one of its threads was handling counts as failed.",
        )
        parser.add_argument("--drain", action="store_true", help="End when nothing is ready.")
        parser.add_argument(
            "--max-messages", type=_within(1, int), help="End after this many messages in all."
        )
        parser.add_argument(
            "--max-memory",
            type=_within(1, int),
            metavar="MIB",
            help="Replace a process that takes more resident memory, when it has finished what "
            "it runs; nothing is counted.",
        )
        parser.add_argument(
            "--grace",
            type=_within(0, float),
            default=30.0,
            help="Seconds to finish what runs when stopped (default: 30).",
        )
        parser.add_argument(
            "--name",
            help="Name of this worker (default: the host's). A second worker of the same name is "
            "refused while the first is alive.",
        )
        parser.add_argument(
            "--health-port",
            type=_within(1, int, 65535),
            help="Answer GET /healthz on this port: 200 when all processes are well, or 503.",
        )
        parser.add_argument(
            "--health-host",
            default="127.0.0.1",
            help="Address of the health port (default: 127.0.0.1, this machine alone).",
        )
        parser.add_argument(
            "--autoreload",
            action="store_true",
            help="Start again when code changes, for development.",
        )

    def run_from_argv(self, argv: list[str]) -> None:
        # Until the supervisor takes over there is nothing to finish.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: sys.exit(0))
        super().run_from_argv(argv)

    def handle(self, *args: Any, **options: Any) -> None:
        consumers, find = self._consumers(options)
        name = self._checked_name(options["name"])
        if options["autoreload"] and not is_reloaded():
            sys.exit(run_reloading())
        health = (options["health_host"], options["health_port"])
        worker = Options(
            consumers=consumers,
            find=find,
            processes=options["processes"],
            threads=options["threads"],
            drain=options["drain"],
            max_messages=options["max_messages"],
            max_memory=options["max_memory"] and options["max_memory"] * MIB,
            grace=options["grace"],
            name=name,
            health=health if options["health_port"] else None,
        )
        self._prepare_database(name)
        try:
            supervisor = Supervisor(worker)
        except OSError as error:
            raise CommandError(
                f"Cannot answer at {health[0]} port {health[1]}: {error.strerror or error}. "
                f"Choose another --health-port or --health-host."
            ) from error
        try:
            code = supervisor.run()
        finally:
            if name:
                with suppress(DatabaseError):
                    give_back_name(name)
        sys.exit(code)

    def _consumers(self, options: dict[str, Any]) -> tuple[Sequence[Consumer], Finder | None]:
        """Return the declared consumers to run, and what finds the webhooks to serve."""
        listed = [name for text in options["queues"] for name in text.split(",")]
        names = [name.strip() for name in (*options["queue"], *listed)]
        if not all(names):
            raise CommandError("A queue's name is empty. Leave it out to serve all.", returncode=2)
        declared = declarations.consumers
        waits = options["wait_for_queue"]
        undeclared = [name for name in names if name not in declared]
        pushed = queues_with_webhooks() if undeclared or not declared else set()
        missing = [name for name in undeclared if name not in pushed] if waits else []
        if missing:
            self.stderr.write(f"No consumer yet, waiting for one: {', '.join(missing)}")
        try:
            apart = {*missing, *pushed} - declared.keys()
            known = [name for name in names if name not in apart]
            consumers = consumers_for(known) if known or not names else []
        except UnknownQueue as error:
            raise CommandError(
                f"{error} A worker serves queues that have a consumer: "
                f"{', '.join(sorted({*declared, *pushed})) or 'none is declared'}. To wait for one "
                f"that has none yet, pass --wait-for-queue.",
                returncode=2,
            ) from error
        if not consumers and not pushed and not waits:
            raise CommandError(
                "No consumer is declared. Put @consumer functions into consumers.py of an app in "
                "INSTALLED_APPS."
            )
        if not are_installed() or (names and not undeclared):
            return consumers, None
        return consumers, Endpoints(undeclared if names else None)

    def _checked_name(self, name: str | None) -> str | None:
        if name is None or NAME.fullmatch(name):
            return name
        raise CommandError(
            f"--name is {shown(name)}: use 1 to 80 ASCII letters, digits, '_', '-' and '.' "
            f"(pattern {NAME.pattern}).",
            returncode=2,
        )

    def _prepare_database(self, name: str | None) -> None:
        try:
            if not is_migrated(conf.DATABASE):
                raise CommandError("The tables of messaging are not up to date. Run migrate first.")
            synchronise()
            if name:
                take_name(name)
        except NameTaken as error:
            raise CommandError(str(error)) from error
        except OperationalError as error:
            raise CommandError(
                f"The database does not answer: {error}\nStart it, or correct DATABASES."
            ) from error
