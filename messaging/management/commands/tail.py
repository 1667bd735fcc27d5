"""Follow the events of topics as they are committed."""

import json
import os
import signal
import sys
import time
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.db import Error, connections

from messaging import following
from messaging.exceptions import UnknownTopic
from messaging.feed import Event
from messaging.following import Position, Stretch
from messaging.management.operators import EXIT_CODES, OperatorCommand
from messaging.models import Message
from messaging.names import check_pattern
from messaging.store.connection import connection_for
from messaging.store.feed import topic_exists
from messaging.store.publishing import known_names

# How often it looks for events, and for the server when that is away, seconds.
POLL = 0.25
AWAY = 1.0
SHOWN = 200


class Command(OperatorCommand):
    help = (
        "Write each event of a topic as it is committed, exactly once, until Ctrl-C or SIGTERM. "
        "With --json a line each, whose cursor goes on behind it with --since; without, the cursor "
        f"is told at the end. {EXIT_CODES}"
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("topic", nargs="?", help="A topic, or a pattern such as orders.#.")
        parser.add_argument("--all", action="store_true", help="All topics.")
        parser.add_argument("--since", metavar="CURSOR", help="Go on behind this one.")
        parser.add_argument(
            "--filter", metavar="TEXT", help="Only events with this in their topic or body."
        )
        parser.add_argument("--count", type=int, help="End after so many events.")
        super().add_arguments(parser)

    def run_from_argv(self, argv: list[str]) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        super().run_from_argv(argv)

    # None until there is a position to go on from: nothing is lost by ending at once.
    _is_stopped: bool | None = None

    def _stop(self, number: int, frame: object) -> None:
        if self._is_stopped is not False:
            sys.exit(0)
        self._is_stopped = True

    def carry_out(self, options: dict[str, Any]) -> None:
        self.pattern = self._pattern(options)
        self.wanted = (options["filter"] or "").lower()
        self.left = options["count"]
        if self.left is not None and self.left < 1:
            raise self.refusal(f"--count is {self.left}: use 1 or more.")
        since = options["since"]
        position = (
            Position.parse(since, self.pattern) if since else following.here(using=self.using)
        )
        # One that is no cursor of this database is refused before anything is shown.
        following.stretch(position, pattern=self.pattern, limit=1, using=self.using)
        self._is_stopped = False
        try:
            position = self._follow(position)
        except BrokenPipeError:  # whoever read this has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        if not self.as_json:
            self.stderr.write(f"To go on: --since {position.write(self.pattern)}")

    def _follow(self, position: Position) -> Position:
        """Write what comes until it is enough; return behind which event that was."""
        while not self._is_stopped:
            try:
                page = following.stretch(position, pattern=self.pattern, using=self.using)
            except Error as error:
                self._wait_for_server(error)
                continue
            if page.is_reset:
                self.stderr.write("Some events may be missing: they were past their retention.")
            for index, event in enumerate(page.events):
                self._write(event, page, index)
                if self.left == 0:
                    return page.position_after(index)
            position = page.end
            self.stdout.flush()
            if page.is_complete and not self._is_stopped:
                time.sleep(POLL)
        return position

    def _write(self, event: Event, page: Stretch, index: int) -> None:
        body = event.body if event.body is not None else self._large(event.id)
        if self.wanted and self.wanted not in f"{event.topic} {body}".lower():
            return
        at = datetime.fromtimestamp(event.at, UTC)
        if self.as_json:
            cursor = json.dumps(page.position_after(index).write(self.pattern))
            # The body as the database has it, whose numbers may be larger than Python reads.
            self.stdout.write(
                f'{{"id": {event.id}, "topic": {json.dumps(event.topic)}, '
                f'"at": "{at.isoformat()}", "body": {body}, "cursor": {cursor}}}'
            )
        else:
            shown = body if len(body) <= SHOWN else f"{body[: SHOWN - 1]}…"
            self.stdout.write(f"{at:%Y-%m-%d %H:%M:%S} {event.topic} {event.id} {shown}")
        if self.left is not None:
            self.left -= 1

    def _large(self, message_id: int) -> str:
        """Return a body that is too large for a page, unless it has gone meanwhile."""
        messages = Message.objects.using(self.using).filter(pk=message_id)
        body = messages.values_list("body", flat=True).first()
        return json.dumps(body, ensure_ascii=False)

    def _wait_for_server(self, error: Error) -> None:
        self.stderr.write(f"The database does not answer ({str(error).strip()}); trying again.")
        connections[self.using].close()
        time.sleep(AWAY)

    def _pattern(self, options: dict[str, Any]) -> str:
        topic = options["topic"]
        if (topic is None) == (not options["all"]):
            raise self.refusal("Give a topic or a pattern, or --all.")
        if topic is None:
            return "#"
        check_pattern(topic)
        connection = connection_for(self.using)
        if not {"*", "#"} & set(topic.split(".")) and not topic_exists(connection, topic):
            raise UnknownTopic(topic, known_names(connection, True))
        return str(topic)
