"""Writers whose transactions commit late and out of order."""

import random

from django.db import connection, transaction

from messaging import publish

TRANSACTIONS = 50


def hold(seconds: float) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [seconds])


def write(writer: int) -> list[str]:
    """Publish in transactions that are held for random times; return what was committed."""
    chance = random.Random(writer)
    committed = []
    for number in range(TRANSACTIONS):
        names = [f"{writer}-{number}-{part}" for part in range(chance.randint(1, 6))]
        with transaction.atomic():
            for name in names:
                publish("parcels.sent", name)
                hold(chance.random() * 0.02)
        committed += names
    return committed
