"""Publish in many sessions at once, in transactions that are held open and commit out of order."""

import random
import threading
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import connections, transaction

from messaging import publish_many

BATCH = 50
# A transaction publishes so many batches, and is held open between them for up to so long, seconds.
BATCHES = 2
LONGEST = 0.1


class Command(BaseCommand):
    help = "Publish events: 'kept' is true in those whose transaction commits."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("topic")
        parser.add_argument("--sessions", type=int, required=True)
        parser.add_argument("--events", type=int, required=True, help="Of each session.")

    def handle(self, *args: Any, **options: Any) -> None:
        topic, events = options["topic"], options["events"]
        threads = [
            threading.Thread(target=write, args=(topic, events, session))
            for session in range(options["sessions"])
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def write(topic: str, events: int, session: int) -> None:
    """Commit so many events; every fifth transaction or so is rolled back instead."""
    chance = random.Random(session)
    written = 0
    while written < events:
        kept = chance.random() > 0.2
        with transaction.atomic():
            for _ in range(BATCHES):
                bodies = [{"session": session, "kept": kept} for _ in range(BATCH)]
                publish_many(topic, bodies)
                time.sleep(chance.random() * LONGEST)
            transaction.set_rollback(not kept)
        written += BATCH * BATCHES * kept
    connections.close_all()
