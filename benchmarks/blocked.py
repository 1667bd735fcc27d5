"""Measure what a blocked ordering key, with much behind it, costs the other keys.

Two databases on one server, alike but for the messages that wait: the claims in both take turns.
"""

import time

from django.db import transaction

from messaging import send, send_many
from messaging.acknowledgement import outcome_of, settle
from messaging.delivery import deliver
from messaging.engines import Source, engine
from messaging.store.configuration import policies
from messaging.store.connection import connection_for
from messaging.testing import drain

from .measure import BODY, empty, plain, settle_down

QUEUE = "bench-keys"
WITH, WITHOUT = "blocked", "default"
BEHIND = 1_000_000
AT_ONCE = 10_000


def block_a_key() -> None:
    """Let the first message of a key fail for a day, and send a million more with that key."""
    for using in (WITH, WITHOUT):
        empty(using)
    send(QUEUE, {"again": True}, ordering_key="blocked", using=WITH)
    drain(QUEUE, using=WITH)
    started = time.perf_counter()
    for _ in range(BEHIND // AT_ONCE):
        send_many(QUEUE, [BODY] * AT_ONCE, ordering_key="blocked", using=WITH)
    took = time.perf_counter() - started
    print(f"  {BEHIND:,} messages were sent behind a blocked key in {took:.0f} s")
    for using in (WITH, WITHOUT):
        with plain(using) as raw:
            settle_down(raw)


def clear() -> None:
    """Leave nothing behind."""
    for using in (WITH, WITHOUT):
        empty(using)


def claims_beside_it(count: int) -> float:
    """Claim messages of other keys where the million waits; return claims a second."""
    return claim_each(count, WITH)


def claims_without_it(count: int) -> float:
    """Claim messages of as many keys where nothing else waits; return claims a second."""
    return claim_each(count, WITHOUT)


def claim_each(count: int, using: str) -> float:
    """Send a message with each of many keys, then claim and settle one in each transaction.

    The clock runs during the claims alone: commits, which wait for the disk, would hide much.
    """
    with transaction.atomic(using=using):
        for number in range(count):
            send(QUEUE, BODY, ordering_key=f"key-{number}", using=using)
    (policy,) = policies(connection_for(using), names=[QUEUE])
    source = engine().source(policy, using)
    spent = 0.0
    for _ in range(count):
        with transaction.atomic(using=using):
            spent += claim_one(source)
    return count / spent


def claim_one(source: Source) -> float:
    """Claim a message and acknowledge it; return the seconds that the claim took."""
    started = time.perf_counter()
    messages, _ = deliver(source, 1)
    took = time.perf_counter() - started
    (message,) = messages
    assert message.body == BODY
    settle(source, [outcome_of(source.policy, message, None, 0.0)], "benchmark")
    return took
