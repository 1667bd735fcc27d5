"""Options: refuse values of declarations that no worker could keep to."""

import math
from collections.abc import Mapping
from typing import Any

from .exceptions import NotSupported

DAY = 86_400
MAX_TIMEOUT = 7 * DAY

# Queue policies that a declaration may give as initial values; numbers with their range.
NUMBERS: dict[str, tuple[float, float]] = {
    "backoff_base": (0, 366 * DAY),
    "backoff_cap": (0, 366 * DAY),
    "message_ttl": (0.001, 7_900 * 365 * DAY),
    "visibility_timeout": (0, DAY / 2),
    "rate_limit": (0.001, 1_000_000),
    "key_rate_limit": (0.001, 1_000_000),
}
COUNTS = {
    "max_deliveries": (1, 1_000),
    "retention": (0, 2**31 - 1),
    "deduplication_window": (0, 2**31 - 1),
    "max_length": (1, 2**31 - 1),
    "concurrency_limit": (1, 10_000),
    "weight": (1, 100),
}
FLAGS = {"content_based_deduplication", "dead_letter_expired", "single_active_consumer"}
WORDS = {
    "backoff": ("fixed", "linear", "exponential", "list"),
    "jitter": ("full", "none"),
    "overflow": ("reject", "drop_oldest", "dead_letter_oldest"),
    "on_failure": ("block", "skip", "park"),
}
MAY_BE_NONE = {
    "message_ttl",
    "rate_limit",
    "key_rate_limit",
    "deduplication_window",
    "max_length",
    "concurrency_limit",
}
POLICIES = frozenset({*NUMBERS, *COUNTS, *FLAGS, *WORDS, "backoff_delays"})


def check_policies(queue: str, policies: Mapping[str, Any]) -> None:
    """Refuse initial values that the queue's row could not have."""
    if unknown := policies.keys() - POLICIES:
        raise ValueError(
            f"Queue {queue!r}: unknown option {', '.join(sorted(unknown))}. "
            f"Policies: {', '.join(sorted(POLICIES))}."
        )
    for name, value in policies.items():
        if value is None and name in MAY_BE_NONE:
            continue
        if name in COUNTS:
            check_count(queue, name, value, *COUNTS[name])
        elif name in NUMBERS:
            _check_number(queue, name, value, *NUMBERS[name])
        elif name in FLAGS and not isinstance(value, bool):
            raise ValueError(f"Queue {queue!r}: {name}={value!r}, use True or False.")
        elif name in WORDS and value not in WORDS[name]:
            raise ValueError(f"Queue {queue!r}: {name}={value!r}, use {', '.join(WORDS[name])}.")


def check_count(queue: str, option: str, count: object, least: int = 1, most: int = 1_000) -> None:
    """Refuse what is not a whole number in its range."""
    if isinstance(count, bool) or not isinstance(count, int) or not least <= count <= most:
        raise ValueError(f"Queue {queue!r}: {option}={count!r}, use {least} to {most}.")


def check_batch(
    queue: str, batch: object, transaction_size: int | None, lease: float | None, is_async: bool
) -> None:
    """Refuse a batch where each message has to be settled by itself."""
    check_count(queue, "batch", batch)
    if transaction_size is not None:
        raise NotSupported(
            f"Queue {queue!r}: batch={batch} cannot be combined with transaction_size="
            f"{transaction_size}: a batch is one call and one transaction. Leave one of them out."
        )
    if lease is not None or is_async:
        raise NotSupported(
            f"Queue {queue!r}: batch={batch} cannot be combined with a lease or an async function, "
            f"where each message is held and settled by itself. Use receive() to take several "
            f"messages at a time under a lease."
        )


def check_timeouts(queue: str, timeout: object, hard_timeout: object) -> None:
    """Refuse times that a handler could not be held to."""
    for name, seconds in (("timeout", timeout), ("hard_timeout", hard_timeout)):
        if seconds is not None:
            _check_number(queue, name, seconds, 0.001, MAX_TIMEOUT)
    if timeout is not None and hard_timeout is not None and not hard_timeout > timeout:  # type: ignore[operator]
        raise ValueError(
            f"Queue {queue!r}: hard_timeout={hard_timeout} is not above timeout={timeout}. The "
            f"handler could never be asked to stop before its process is killed."
        )


def _check_number(queue: str, option: str, number: object, least: float, most: float) -> None:
    if (
        isinstance(number, bool)
        or not isinstance(number, int | float)
        or not math.isfinite(number)
        or not least <= number <= most
    ):
        raise ValueError(f"Queue {queue!r}: {option}={number!r}, use {least:g} to {most:,}.")
