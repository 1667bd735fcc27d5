"""Deliver: claim a batch and decode it, message by message."""

import time
from json import JSONDecoder
from typing import Any

from .engines import Claimed, Source
from .messages import Delivered, Failure, Message, Outcome, Settlement

# PostgreSQL writes jsonb without white space around it, which raw_decode() does not look for.
decode = JSONDecoder().raw_decode


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
        delivered = Delivered._make(row[:10])
        if row.body is None or row.headers is None:
            error: Exception = LookupError("The log no longer holds this message.")
            undecodable.append(_undecodable(delivered, queue, error))
            continue
        try:
            messages.append(_decode(row, row.headers, row.body, queue, delivered))
        except (ValueError, RecursionError) as error:
            undecodable.append(_undecodable(delivered, queue, error))
    return messages, undecodable


def _decode(row: Claimed, headers: str, body: str, queue: str, delivered: Delivered) -> Message:
    decoded: dict[str, Any] = decode(headers)[0] if headers != "{}" else {}
    return Message(
        id=row.message_id,
        queue=queue,
        topic=row.topic,
        body=decode(body)[0],
        headers=decoded,
        priority=row.priority,
        attempt=row.attempt,
        ordering_key=row.ordering_key,
        published_at=row.published_at,
        delivery=delivered,
        fairness_key=row.fairness_key,
        correlation_id=row.correlation_id,
        causation_id=row.causation_id,
        reply_to=row.reply_to,
        expires_at=row.expires_at,
        deadline=None if row.seconds_left is None else time.monotonic() + row.seconds_left,
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
