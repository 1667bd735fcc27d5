"""Replay real orders through the shop: at the pace of their dates, or as fast as it goes."""

import argparse
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, IntegrityError

from orders.models import Order, Product
from orders.replay import DATA, BadFile, HistoricOrder, place_orders, read_orders

PROGRESS_EVERY = 10  # seconds


class Command(BaseCommand):
    help = (
        "Replay real orders by date: each is stored and published as if placed now. "
        "Orders that were replayed before are skipped, so a stopped replay simply goes on."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--file", type=Path, default=DATA, help="CSV with customer, date, units and amount."
        )
        parser.add_argument(
            "--speed",
            type=_speed,
            default="100000x",
            help="How much faster than in real life, such as 1000x, or max. The 18 months of the "
            "file take 13 hours at 1000x, 8 minutes at 100000x (default: %(default)s).",
        )
        parser.add_argument(
            "--chaos",
            action="store_true",
            help="Let a third of the payments fail, some for good, and sell out one CD.",
        )
        parser.add_argument(
            "--limit", type=_limit, metavar="N", help="Place at most N orders, then stop."
        )

    def handle(self, *, file: Path, speed: float | None, chaos: bool, **options: Any) -> None:
        try:
            historic = read_orders(file)
        except BadFile as error:
            raise CommandError(str(error)) from error
        if not Product.objects.exists():
            raise CommandError("The shop has no products. Run `manage.py migrate` to stock it.")
        placed_before = set(
            Order.objects.exclude(source_reference=None).values_list("source_reference", flat=True)
        )
        waiting = [order for order in historic if order.reference not in placed_before]
        skipped = len(historic) - len(waiting)
        waiting = waiting[: options["limit"]]
        self._say(f"{len(waiting):,} orders to place" + (f", {skipped:,} are." if skipped else "."))
        self._place(waiting, speed=speed, chaos=chaos)

    def _place(self, waiting: list[HistoricOrder], *, speed: float | None, chaos: bool) -> None:
        started = told = time.monotonic()
        placed = 0
        try:
            for order in place_orders(_paced(waiting, speed), chaos=chaos):
                placed += 1
                if time.monotonic() - told >= PROGRESS_EVERY:
                    told = time.monotonic()
                    self._say(f"{placed:,} of {len(waiting):,} placed, up to {order.ordered_on}.")
        except KeyboardInterrupt:
            self._say(f"Stopped after {placed:,} orders. Start again to go on.")
            return
        except IntegrityError as error:
            raise CommandError(
                f"Stopped after {placed:,} orders: another replay placed the next one at the same "
                f"time. Let one run alone; start again to go on. ({error})"
            ) from error
        except DatabaseError as error:
            raise CommandError(
                f"Stopped after {placed:,} orders, all of them complete: {error}. "
                f"Start again to go on when the database answers."
            ) from error
        self._say(f"{placed:,} orders placed in {time.monotonic() - started:.1f} s.")

    def _say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def _paced(orders: list[HistoricOrder], speed: float | None) -> Iterator[HistoricOrder]:
    """Yield each order when its time has come; at once without a speed."""
    started = time.monotonic()
    for order in orders:
        if speed:
            due = (order.moment - orders[0].moment).total_seconds() / speed
            time.sleep(max(0, started + due - time.monotonic()))
        yield order


def _speed(text: str) -> float | None:
    """Return the factor, or None for `max`."""
    if text == "max":
        return None
    if re.fullmatch(r"\d{1,9}(\.\d+)?x", text, re.ASCII) and float(text[:-1]) > 0:
        return float(text[:-1])
    raise argparse.ArgumentTypeError(
        f"{text!r} is no speed. Use a number above 0 followed by x, such as 1000x, or max."
    )


def _limit(text: str) -> int:
    if re.fullmatch(r"\d{1,9}", text, re.ASCII) and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of orders. Use 1 or more.")
