"""Gateway: a simulated payment service that fails in ways that can be reproduced.

What happens depends on the card, the order's key and the attempt alone, never on chance, so that
two replays of the same orders fail alike.
"""

from decimal import Decimal
from zlib import crc32

from .models import Card

REFUSALS = ("insufficient funds", "the card has expired", "reported as stolen")
# A flaky card works at the latest on this attempt: below the max_deliveries of `payments`.
FLAKY_ATTEMPTS = 4


class GatewayTimeout(Exception):
    """The gateway gave no answer: whether it charged is unknown, asking again is safe."""


class CardDeclined(Exception):
    """The gateway refused the card, and will refuse it again."""


def charge(*, key: str, amount: Decimal, card: str, attempt: int) -> str:
    """Charge a card and return the authorization code.

    ``key`` is the idempotency key: charging twice with one key charges once and gives the same
    code, so a charge whose transaction was rolled back is simply made again. Raise CardDeclined
    or GatewayTimeout.
    """
    digest = crc32(key.encode())
    if card == Card.DECLINED:
        raise CardDeclined(REFUSALS[digest % len(REFUSALS)])
    if card == Card.UNREACHABLE or (
        card == Card.FLAKY and attempt <= 1 + digest % (FLAKY_ATTEMPTS - 1)
    ):
        raise GatewayTimeout(
            f"The gateway did not answer within 5 s (charge of ${amount}, attempt {attempt})"
        )
    return f"auth-{digest:08x}"
