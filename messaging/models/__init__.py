"""Tables: configuration that people edit, and hot tables that only ``store`` touches."""

from .configuration import (
    Backoff,
    Binding,
    Jitter,
    OnFailure,
    Overflow,
    Queue,
    Subscription,
    Topic,
    validate_delays,
)
from .history import Attempt, DeadLetter, Deduplication, Edit, Idempotency, Reason
from .waiting import Arrival, Delivery, Lane, LaneEntry, Lease, Message, Scheduled, Waiting
from .workers import ActiveConsumer, RateLimit, Room, Stat, Worker

__all__ = [
    "ActiveConsumer",
    "Arrival",
    "Attempt",
    "Backoff",
    "Binding",
    "DeadLetter",
    "Deduplication",
    "Delivery",
    "Edit",
    "Idempotency",
    "Jitter",
    "Lane",
    "LaneEntry",
    "Lease",
    "Message",
    "OnFailure",
    "Overflow",
    "Queue",
    "RateLimit",
    "Reason",
    "Room",
    "Scheduled",
    "Stat",
    "Subscription",
    "Topic",
    "Waiting",
    "Worker",
    "validate_delays",
]
