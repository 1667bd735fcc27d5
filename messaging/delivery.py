"""Deliver: claim a batch and decode it, message by message."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from json import JSONDecoder
from typing import Any

from .engines import Claimed, Source
from .messages import Delivered, Failure, Message, Outcome, Settlement

# PostgreSQL writes jsonb as one document without white space around it, so that the scanner alone
# does; where there is none it raises StopIteration.
scan: Callable[[str, int], tuple[Any, int]] = JSONDecoder().scan_once  # type: ignore[attr-defined]
as_delivered: Callable[[Iterable[Any]], Delivered] = partial(tuple.__new__, Delivered)


def deliver(
    source: Source, limit: int, *, thorough: bool = False, one_a_lane: bool = False
) -> tuple[list[Message], list[Outcome]]:
    """Claim up to ``limit`` messages; those that cannot be decoded come back as dead.

    Runs inside the transaction in which the handlers run.
    """
    messages: list[Message] = []
    undecodable: list[Outcome] = []
    queue = source.policy.name
    for row in source.claim(limit, thorough=thorough, one_a_lane=one_a_lane):
        delivered = as_delivered(row[:10])
        if row.body is None or row.headers is None:
            error: Exception = LookupError("The log no longer holds this message.")
            undecodable.append(_undecodable(delivered, queue, error))
            continue
        try:
            messages.append(_decode(row, row.headers, row.body, queue, delivered))
        except StopIteration:
            broken = ValueError("The log holds no JSON for this message.")
            undecodable.append(_undecodable(delivered, queue, broken))
        except (ValueError, RecursionError) as error:
            undecodable.append(_undecodable(delivered, queue, error))
    return messages, undecodable


def _decode(row: Claimed, headers: str, body: str, queue: str, delivered: Delivered) -> Message:
    decoded: dict[str, Any] = scan(headers, 0)[0] if headers != "{}" else {}
    return Message(
        row.message_id,
        queue,
        row.topic,
        scan(body, 0)[0],
        decoded,
        row.priority,
        row.attempt,
        row.ordering_key,
        row.published_at,
        delivered,
        row.fairness_key,
        row.correlation_id,
        row.causation_id,
        row.reply_to,
        row.expires_at,
        None if row.seconds_left is None else time.monotonic() + row.seconds_left,
    )


def _undecodable(delivered: Delivered, queue: str, error: Exception) -> Outcome:
    return Outcome(
        delivered=delivered,
        settlement=Settlement.DEAD,
        reason="undecodable",
        failure=Failure(
            error=type(error).__qualname__,
            description=str(error)[:2000],
            traceback="",
            fingerprint=f"undecodable:{queue}"[:32],
        ),
        error=error,
    )
