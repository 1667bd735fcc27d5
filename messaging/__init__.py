"""Message queues, publish/subscribe and asynchronous processing inside Django and PostgreSQL.

How a message travels, in file names:

    declare        publish           store         deliver        handle        acknowledge
   consuming.py   publishing.py ->  store/  ->   delivery.py -> handling.py -> acknowledgement.py
   @consumer      send, publish     the SQL      claim a batch  call it        settle outcomes
                                                     \\________ worker/ runs these three ______/

A message is stored in the caller's own transaction. A handler's rows, the messages that it sends
and the acknowledgement commit together; effects outside the database are at-least-once, with the
message's id as idempotency key.
"""

from .cancelling import cancel
from .confirming import aconfirm, confirm
from .consuming import consumer, declare_queue, declare_topic
from .ephemeral import asubscription, subscription
from .exceptions import (
    DeduplicationConflict,
    EngineUnavailable,
    HandlerTimeout,
    IncompatibleSchema,
    InvalidFilter,
    InvalidMessage,
    InvalidName,
    InvalidOption,
    InvalidSchema,
    LeaseLost,
    MessagingError,
    NoConsumer,
    NotSupported,
    OperationRefused,
    PayloadTooLarge,
    PublishUncertain,
    QueueDisabled,
    QueueFull,
    Reject,
    RequestFailed,
    Retry,
    SubscriptionEnded,
    UnknownQueue,
    UnknownSchedule,
    UnknownTopic,
)
from .idempotency import once
from .messages import Message, MessageId, new_message_id
from .publishing import (
    apublish,
    apublish_many,
    asend,
    asend_many,
    publish,
    publish_many,
    send,
    send_many,
)
from .receiving import areceive, receive
from .requesting import arequest, request
from .scheduling import declare_schedule
from .settling import Settled, acknowledge_many, extend_many, reject_many, release_many
from .subscriptions import subscribe, unsubscribe

__version__ = "0.1.0"

__all__ = [
    "DeduplicationConflict",
    "EngineUnavailable",
    "HandlerTimeout",
    "IncompatibleSchema",
    "InvalidFilter",
    "InvalidMessage",
    "InvalidName",
    "InvalidOption",
    "InvalidSchema",
    "LeaseLost",
    "Message",
    "MessageId",
    "MessagingError",
    "NoConsumer",
    "NotSupported",
    "OperationRefused",
    "PayloadTooLarge",
    "PublishUncertain",
    "QueueDisabled",
    "QueueFull",
    "Reject",
    "RequestFailed",
    "Retry",
    "Settled",
    "SubscriptionEnded",
    "UnknownQueue",
    "UnknownSchedule",
    "UnknownTopic",
    "acknowledge_many",
    "aconfirm",
    "apublish",
    "apublish_many",
    "areceive",
    "arequest",
    "asend",
    "asend_many",
    "asubscription",
    "cancel",
    "confirm",
    "consumer",
    "declare_queue",
    "declare_schedule",
    "declare_topic",
    "extend_many",
    "new_message_id",
    "once",
    "publish",
    "publish_many",
    "receive",
    "reject_many",
    "release_many",
    "request",
    "send",
    "send_many",
    "subscribe",
    "subscription",
    "unsubscribe",
]
