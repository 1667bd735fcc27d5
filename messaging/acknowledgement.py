"""Acknowledge: decide what a handled delivery comes to, and settle it in its transaction.

A delivery that was handled is already gone: the claim deleted it. What is left to settle is what
failed: delivered again later, or dead.
"""

import datetime
import hashlib
import os
import sysconfig
import traceback
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .engines import Source
from .exceptions import Expired, HandlerTimeout, Reject, Retry
from .messages import Delivered, Failure, Message, Outcome, Settlement
from .policies import QueuePolicy

MAX_DESCRIPTION = 2_000
MAX_TRACEBACK = 20_000
WORKER_DIED = "WorkerDied"
LEASE_EXPIRED = "LeaseExpired"
STANDARD_LIBRARY = sysconfig.get_path("stdlib") + os.sep
OURS = os.path.dirname(__file__) + os.sep


def outcome_of(
    policy: QueuePolicy, message: Message, error: BaseException | None, duration: float
) -> Outcome:
    """Return what a delivery comes to, by its queue's policy."""
    delivered = message.delivery
    if error is None:
        return Outcome(delivered, Settlement.ACKNOWLEDGED, duration, message)
    if isinstance(error, Expired):
        return outcome_of_expiry(policy, message)
    after, counts, reason = None, True, "max_deliveries"
    if isinstance(error, HandlerTimeout):
        reason = "timeout"
    if isinstance(error, Retry):
        after, counts = error.after, error.counts
    dead = counts and message.attempt >= policy.max_deliveries
    if isinstance(error, Reject):
        dead, reason = True, "rejected"
    return Outcome(
        delivered=delivered,
        settlement=Settlement.DEAD if dead else Settlement.RETRY,
        duration=duration,
        reason=reason if dead else "",
        after=policy.wait_after(message.attempt) if after is None else after,
        counts=counts,
        failure=_failure(policy.name, error),
        error=error,
        message=message,
    )


def outcome_of_expiry(policy: QueuePolicy, message: Message) -> Outcome:
    """Return what a delivery comes to that nobody handled in its time."""
    kept = policy.dead_letter_expired
    # A dead letter says how often it was delivered, and not which delivery would have been next.
    delivered = message.delivery._replace(attempt=message.attempt - 1)
    return Outcome(
        delivered=delivered if kept else message.delivery,
        settlement=Settlement.DEAD if kept else Settlement.EXPIRED,
        message=message,
        reason="expired" if kept else "",
        failure=Failure(
            error="Expired",
            description=f"Nobody handled it before it expired at {message.expires_at}.",
            traceback="",
            fingerprint=_fingerprint("expired", policy.name),
        )
        if kept
        else None,
    )


def outcome_of_unserved(
    policy: QueuePolicy, delivered: Delivered, since: datetime.datetime, served: bool
) -> Outcome:
    """Return what a delivery comes to that expired on a queue which no worker serves.

    ``served``: a worker was there, last at ``since``; else nobody was for as long as is known.
    """
    kept = policy.dead_letter_expired
    how = "the last sign of life was at" if served else "none was seen since"
    return Outcome(
        # A dead letter says how often it was delivered.
        delivered=delivered._replace(attempt=delivered.attempt - 1) if kept else delivered,
        settlement=Settlement.DEAD if kept else Settlement.EXPIRED,
        reason="no_consumer" if kept else "",
        failure=Failure(
            error="NoConsumer",
            description=f"No worker serves queue {policy.name!r} ({how} {since}), and it expired "
            f"at {delivered.expires_at}.",
            traceback="",
            fingerprint=_fingerprint("no_consumer", policy.name),
        )
        if kept
        else None,
    )


def outcome_of_death(
    policy: QueuePolicy, delivered: Delivered, how: str, *, overdue: bool = False
) -> Outcome:
    """Return what a delivery comes to whose worker process died while handling it.

    ``overdue``: the process was killed because the handler took too long.
    """
    dead = delivered.attempt >= policy.max_deliveries
    reason = "timeout" if overdue else "worker_died"
    if overdue:
        error = HandlerTimeout.__qualname__
        description = "The handler took longer than its hard timeout, and its process was killed."
    else:
        error = WORKER_DIED
        description = f"The worker process ended while it handled this message: {how}."
    return Outcome(
        delivered=delivered,
        settlement=Settlement.DEAD if dead else Settlement.RETRY,
        reason=reason if dead else "",
        after=policy.wait_after(delivered.attempt),
        failure=Failure(
            error=error,
            description=description,
            traceback="",
            fingerprint=_fingerprint(reason, policy.name, how),
        ),
    )


def outcome_of_lapse(policy: QueuePolicy, delivered: Delivered, worker: str) -> Outcome:
    """Return what a delivery comes to whose lease ended before it was settled."""
    dead = delivered.attempt >= policy.max_deliveries
    return Outcome(
        delivered=delivered,
        settlement=Settlement.DEAD if dead else Settlement.RETRY,
        reason="timeout" if dead else "",
        after=policy.wait_after(delivered.attempt),
        failure=Failure(
            error=LEASE_EXPIRED,
            description=f"{worker} held this message and did not settle or extend it in time.",
            traceback="",
            fingerprint=_fingerprint("lease_expired", policy.name),
        ),
    )


def settle(
    source: Source,
    outcomes: Sequence[Outcome],
    worker: str,
    *,
    unhandled: Sequence[Delivered] = (),
    waits: Mapping[int, float] | None = None,
    avoided: Collection[int] = (),
    goes_on: bool = False,
) -> None:
    """Store the retries, dead letters and failed attempts, and give back what nobody handled.

    Acknowledged ones leave a receipt, and need no more unless they have an ordering key or a queue
    without retention.
    ``waits``: seconds before the next delivery of a key, by the id of its lane. ``avoided``: ids of
    deliveries that the next claims need not look for. ``goes_on``: the transaction may send more
    afterwards.
    """
    if (
        unhandled
        or not source.policy.retention
        or any(
            o.settlement is not Settlement.ACKNOWLEDGED or o.delivered.lane_id is not None
            for o in outcomes
        )
    ):
        source.settle(
            outcomes, unhandled, worker, waits=waits or {}, avoided=avoided, goes_on=goes_on
        )
    if outcomes and source.policy.retention:
        source.keep_receipt(outcomes, worker)


def _failure(queue: str, error: BaseException) -> Failure:
    name = type(error).__qualname__
    if type(error).__module__ not in ("builtins", "messaging.exceptions"):
        name = f"{type(error).__module__}.{name}"
    try:
        description = str(error)
    except Exception:  # the class of the error is all that can be told
        description = "(the error's text cannot be shown)"
    lines = traceback.format_exception(error)
    return Failure(
        error=_storable(name)[:200],
        description=_storable(description)[:MAX_DESCRIPTION],
        traceback=_storable("".join(lines))[-MAX_TRACEBACK:],
        fingerprint=_fingerprint(name, queue, _last_project_frame(error)),
    )


def _last_project_frame(error: BaseException) -> str:
    """Return file and function of the innermost frame that is the project's own code."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        installed = "site-packages" in frame.filename or frame.filename.startswith(STANDARD_LIBRARY)
        if not installed and not frame.filename.startswith(OURS):
            return f"{os.path.basename(frame.filename)}:{frame.name}"
    return ""


def _fingerprint(*parts: Any) -> str:
    return hashlib.sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:16]


def _storable(text: str) -> str:
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()
