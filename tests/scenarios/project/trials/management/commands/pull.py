"""Pull messages with receive() in several processes, and handle each batch in one transaction."""

import multiprocessing
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from messaging import LeaseLost, Message, acknowledge_many, receive

from ...consumers import act
from ...gates import wait_at_gate
from ...journal import note


class Command(BaseCommand):
    help = "Receive messages until killed; a gate that a body names is waited for."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("queue")
        parser.add_argument("--processes", type=int, default=1)
        parser.add_argument("--limit", type=int, default=1)
        parser.add_argument("--lease", type=float)

    def handle(self, *args: Any, **options: Any) -> None:
        fork = multiprocessing.get_context("fork")
        pulled = options["queue"], options["limit"], options["lease"]
        children = [fork.Process(target=pull, args=pulled) for _ in range(options["processes"])]
        for child in children:
            child.start()
        for child in children:
            child.join()


def pull(queue: str, limit: int, lease: float | None) -> None:
    """Receive and handle; what was lost is noted, and the next is received."""
    while True:
        messages = receive(queue, limit=limit, lease=lease, wait=3_600)
        try:
            with transaction.atomic():
                handle(messages)
        except LeaseLost:
            for message in messages:
                note("loses", message.id, message.attempt)


def handle(messages: list[Message]) -> None:
    """Take all effects, wait at the gate and acknowledge, one alone or all of them together."""
    for message in messages:
        act(message)
    wait_at_gate(*messages)
    if len(messages) == 1:
        messages[0].acknowledge()
        return
    for settled in acknowledge_many(messages):
        if settled.error is not None:
            raise settled.error
