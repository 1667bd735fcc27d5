"""Replay: read a file of real orders and place them again, in the order of their dates.

An order keeps the name that it has in the file, so whatever is placed already is not placed again.
"""

import csv
import datetime
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from zlib import crc32

from django.db import transaction

from .models import Card, Customer, Order, Product
from .services import place_order

DATA = Path(__file__).parent / "data" / "cdnow_orders.csv"
COLUMNS = ("customer", "date", "units", "amount")
DAY = 86_400


class BadFile(ValueError):
    """A file that cannot be replayed; says where, why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class HistoricOrder:
    """One line of the file; ``moment`` is when it was placed, spread over its day."""

    reference: str
    customer: str
    moment: datetime.datetime
    units: int
    amount: Decimal


def read_orders(path: Path) -> list[HistoricOrder]:
    """Return all orders of a file by date, or raise BadFile for the first bad line.

    The whole file is checked before the first order is placed.
    """
    try:
        # utf-8-sig: spreadsheets put a byte order mark in front.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise BadFile(
                    f"{path} has no column {', '.join(missing)}. "
                    f"Its first line must name {', '.join(COLUMNS)}."
                )
            lines = [_parse(row, f"{path}, line {reader.line_num}") for row in reader]
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}. Give a CSV file.") from error
    except UnicodeDecodeError as error:
        raise BadFile(f"{path} is not UTF-8 text (byte {error.start}). Give a CSV file.") from error
    except csv.Error as error:
        raise BadFile(f"{path}, after line {reader.line_num}: {error}. Give a CSV file.") from error
    if not lines:
        raise BadFile(f"{path} has no orders below its first line. Give a CSV file with orders.")
    return list(_named(sorted(lines, key=lambda line: line[1]), source=path.stem))


def place_orders(orders: Iterable[HistoricOrder], *, chaos: bool = False) -> Iterator[Order]:
    """Place each order with its customer, one transaction each, and yield it when stored."""
    products = list(Product.objects.all())
    shelves = [product for product in products if product.is_delivered_again]
    limited = [product for product in products if not product.is_delivered_again]
    customers = {customer.email: customer for customer in Customer.objects.all()}
    for historic in orders:
        with transaction.atomic():
            email = f"customer-{historic.customer}@cdnow.example".lower()
            if email not in customers:
                customers[email], _ = Customer.objects.get_or_create(
                    email=email, defaults={"name": f"Customer {historic.customer}"}
                )
            shelf = limited if chaos and limited and _wants_limited(historic) else shelves
            order = place_order(
                Order(
                    source_reference=historic.reference,
                    customer=customers[email],
                    product=shelf[_digest(historic, "product") % len(shelf)],
                    quantity=historic.units,
                    amount=historic.amount,
                    card=_card(historic, chaos=chaos),
                    ordered_on=historic.moment.date(),
                )
            )
        yield order


def _parse(row: dict[str, str | None], place: str) -> tuple[str, datetime.date, int, Decimal]:
    """Return customer, date, units and amount of a line."""
    customer, date, units, amount = (str(row[name] or "").strip() for name in COLUMNS)
    if not re.fullmatch(r"[A-Za-z0-9]{1,20}", customer, re.ASCII):
        raise _bad(place, "customer", customer, "1 to 20 letters and digits")
    try:
        day = datetime.datetime.strptime(date, "%Y%m%d").replace(tzinfo=datetime.UTC).date()
    except ValueError as error:
        raise _bad(place, "date", date, "a day such as 19970131") from error
    if not re.fullmatch(r"\d{1,3}", units, re.ASCII) or not 1 <= int(units) <= Order.MAX_QUANTITY:
        raise _bad(place, "units", units, f"a whole number from 1 to {Order.MAX_QUANTITY}")
    if not re.fullmatch(r"\d{1,8}(\.\d{1,2})?", amount, re.ASCII):
        raise _bad(place, "amount", amount, "dollars from 0.00 to 99999999.99")
    return customer, day, int(units), Decimal(amount)


def _bad(place: str, column: str, value: str, limit: str) -> BadFile:
    shown = value if len(value) <= 40 else f"{value[:40]}..."
    return BadFile(
        f"{place}: {column} {shown!r} is not {limit}. Correct or remove the line; "
        f"nothing was placed."
    )


def _named(
    lines: list[tuple[str, datetime.date, int, Decimal]], *, source: str
) -> Iterator[HistoricOrder]:
    """Give each line its name and its moment within its day."""
    orders_of_day = Counter(date for _, date, _, _ in lines)
    seen_of_day: Counter[datetime.date] = Counter()
    seen_of_customer: Counter[tuple[str, datetime.date]] = Counter()
    for customer, date, units, amount in lines:
        seen_of_customer[customer, date] += 1
        midnight = datetime.datetime.combine(date, datetime.time(), datetime.UTC)
        since_midnight = DAY * seen_of_day[date] / orders_of_day[date]
        seen_of_day[date] += 1
        yield HistoricOrder(
            reference=f"{source}:{customer}-{date:%Y%m%d}-{seen_of_customer[customer, date]}",
            customer=customer,
            moment=midnight + datetime.timedelta(seconds=since_midnight),
            units=units,
            amount=amount,
        )


def _card(order: HistoricOrder, *, chaos: bool) -> Card:
    """Return the test card: one in ten is flaky; in chaos a third fails, some for good."""
    lot = _digest(order, "card") % 1000
    if not chaos:
        return Card.FLAKY if lot < 100 else Card.GOOD
    if lot < 30:
        return Card.DECLINED
    if lot < 35:
        return Card.UNREACHABLE
    return Card.FLAKY if lot < 335 else Card.GOOD


def _wants_limited(order: HistoricOrder) -> bool:
    """Pick one order in a hundred for the pressing that sells out."""
    return _digest(order, "limited") % 100 == 0


def _digest(order: HistoricOrder, purpose: str) -> int:
    # A checksum instead of chance: every replay of a file is the same.
    return crc32(f"{purpose} {order.reference}".encode())
