"""Admin: edit queues, topics and subscriptions; see messages, and carry out operators' verbs."""

from .carrying import OperationAdmin
from .deadletters import DeadLetterAdmin
from .idempotency import IdempotencyAdmin
from .lanes import LaneAdmin
from .leases import LeaseAdmin
from .messages import AttemptAdmin, MessageAdmin
from .queues import QueueAdmin
from .scheduled import ScheduledAdmin
from .schedules import ScheduleAdmin
from .subscriptions import SubscriptionAdmin
from .topics import TopicAdmin
from .webhooks import WebhookAdmin
from .workers import WorkerAdmin

__all__ = [
    "AttemptAdmin",
    "DeadLetterAdmin",
    "IdempotencyAdmin",
    "LaneAdmin",
    "LeaseAdmin",
    "MessageAdmin",
    "OperationAdmin",
    "QueueAdmin",
    "ScheduleAdmin",
    "ScheduledAdmin",
    "SubscriptionAdmin",
    "TopicAdmin",
    "WebhookAdmin",
    "WorkerAdmin",
]
