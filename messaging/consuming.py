"""Consume: declare which function handles a queue's messages, and which names exist.

Declarations live in `consumers.py` of an app, found like `admin.py`. They are what
`sync_messaging` creates rows from; the rows are the truth from then on. Nothing here touches
models, so user code can import it at any time.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from .exceptions import NotSupported
from .matching import check_filter
from .names import check_pattern, check_queue_name, check_topic_name
from .options import check_batch, check_count, check_policies, check_timeouts

# Of a message, or of the list of them with ``batch``.
Handler = Callable[[Any], Any]
Function = TypeVar("Function", bound=Handler)

# How many messages of an async consumer are in flight in one process.
CONCURRENCY = 100
MAX_LEASE = 43_200

# How much longer than its timeout a handler may take before its process is replaced, seconds.
HARD_MARGIN = 10.0


TOPIC_POLICIES = {"retention", "deduplication_window", "content_based_deduplication"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Consumer:
    """The function that handles a queue's messages, and how it wants to be called.

    ``transaction_size`` None: the worker finds out whether the function uses the database, and
    gives it one message a transaction if it does. ``batch``: it gets a list of up to so many.
    ``timeout`` and ``hard_timeout`` in seconds, None: as long as it likes. ``lease`` in seconds;
    None of an async function: the queue's visibility timeout. ``concurrency`` is how many an event
    loop has in flight.
    """

    queue: str
    function: Handler
    pattern: str | None = None
    filter: dict[str, Any] | None = None
    filter_scope: str = "headers"
    transaction_size: int | None = None
    durable: bool = True
    batch: int | None = None
    timeout: float | None = None
    hard_timeout: float | None = None
    lease: float | None = None
    is_async: bool = False
    concurrency: int = CONCURRENCY

    @property
    def place(self) -> str:
        return _place(self.function)

    @property
    def is_leased(self) -> bool:
        """Whether its messages are held under a lease, outside the handlers' transactions."""
        return self.lease is not None or self.is_async


@dataclass(slots=True)
class Declarations:
    """All that code declares: names to their initial values."""

    consumers: dict[str, Consumer] = field(default_factory=dict)
    queues: dict[str, dict[str, Any]] = field(default_factory=dict)
    topics: dict[str, dict[str, Any]] = field(default_factory=dict)
    schemas: dict[str, dict[str, Any]] = field(default_factory=dict)
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)


declarations = Declarations()


def consumer(
    queue: str,
    *,
    topic: str | None = None,
    filter: dict[str, Any] | None = None,
    filter_scope: str = "headers",
    transaction_size: int | None = None,
    durable: bool = True,
    external_effects: bool = False,
    batch: int | None = None,
    timeout: float | None = None,
    hard_timeout: float | None = None,
    lease: float | None = None,
    concurrency: int = CONCURRENCY,
    **policies: Any,
) -> Callable[[Function], Function]:
    """Declare the function that handles the messages of ``queue``.

    The function gets a :class:`messaging.Message`; returning acknowledges, raising delivers
    again, :class:`Retry` and :class:`Reject` steer. ``topic``, a name or a pattern, subscribes the
    queue; of its messages those go there that match ``filter``, such as ``{"country": ["GB"]}``, by
    their headers or, with ``filter_scope="body"``, by their bodies (SNS: filter policies). Both are
    initial values of the subscription.

    ``transaction_size=n`` lets up to n messages commit together: safe where handlers do not
    update rows that others update too. ``durable=False`` does not wait for the disk at commit: for
    handlers whose effects are rows of this database only. ``external_effects=True`` says that the
    function acts elsewhere too, by a mail or a call of another service: no rollback undoes that, so
    each message is acknowledged before the next is handled, and a crash repeats one at most.
    ``policies`` (``max_deliveries``, ``backoff``, ...) are the queue's initial values.

    ``batch=n`` calls the function with a list of up to n messages, all or none: when it raises,
    nothing of it is kept, and smaller batches find the message at fault. It may return a list of
    outcomes, one for each message, or a mapping of message ids to them: None or True acknowledges,
    an exception (:class:`Retry` and :class:`Reject` too) is what that message alone comes to; what
    the function did is kept then. Of each key a batch holds one message (SQS: partial batch
    responses; here with one transaction).

    ``timeout=seconds`` raises :class:`HandlerTimeout` in a handler that takes longer, also in the
    middle of an SQL statement. Nothing in Python can interrupt other calls that block, such as
    ``time.sleep`` or a socket without a timeout of its own: past ``hard_timeout``, by default 10
    seconds above ``timeout``, the worker process is killed and replaced. Both count as attempts.
    That is how a coroutine ends, too, that goes on when it is cancelled or holds up its event loop;
    whatever else was in flight there is given back, uncounted.

    ``lease=seconds``, up to 43,200 (12 hours), holds each message for that time, a second at least,
    and for as long as its handler is at work: for handlers that take long. Their transaction begins
    with their first SQL and ends with the acknowledgement, and is rolled back when the lease was
    lost meanwhile (:class:`LeaseLost`).
    An ``async def`` function is always leased, by default for the queue's visibility timeout, and
    up to ``concurrency`` messages are in flight in one event loop of each process. It is
    acknowledged when it returns: its effects are at-least-once, unless it acknowledges in the
    transaction of its effects itself, with ``message.acknowledge()`` in a function that it calls
    through ``sync_to_async``.
    """
    check_queue_name(queue)
    if topic is not None:
        check_pattern(topic)
    elif filter is not None:
        raise ValueError(f"Queue {queue!r}: a filter needs a topic. Add topic=, or leave it out.")
    check_filter(filter, filter_scope)
    if transaction_size is not None:
        check_count(queue, "transaction_size", transaction_size)
    if external_effects:
        _check_external(queue, transaction_size, durable)
    check_count(queue, "concurrency", concurrency)
    check_timeouts(queue, timeout, hard_timeout)
    check_policies(queue, policies)
    if hard_timeout is None and timeout is not None:
        hard_timeout = timeout + HARD_MARGIN

    def declare(function: Function) -> Function:
        _check_function(queue, function)
        leased = lease is not None or _is_async(function)
        apart = leased or batch is not None
        if batch is not None:
            check_batch(queue, batch, transaction_size, lease, _is_async(function))
        if leased:
            _check_leased(queue, lease, transaction_size, durable)
        declared = declarations.consumers.get(queue)
        if declared is not None and declared.place != _place(function):
            raise ValueError(
                f"Queue {queue!r} has two consumers: {declared.place} and {_place(function)}. "
                f"A message goes to one consumer; subscribe a second queue to the topic instead."
            )
        declarations.consumers[queue] = Consumer(
            queue=queue,
            function=function,
            pattern=topic,
            filter=filter,
            filter_scope=filter_scope,
            transaction_size=1 if external_effects and not apart else transaction_size,
            durable=durable,
            batch=batch,
            timeout=timeout,
            hard_timeout=hard_timeout,
            lease=None if lease is None else float(lease),
            is_async=_is_async(function),
            concurrency=concurrency,
        )
        declarations.queues.setdefault(queue, {}).update(policies)
        if topic is not None and "*" not in topic and "#" not in topic:
            declarations.topics.setdefault(topic, {})
        return function

    return declare


def declare_queue(name: str, *, description: str = "", **policies: Any) -> None:
    """Declare a queue that others consume; ``policies`` are its initial values."""
    check_queue_name(name)
    check_policies(name, policies)
    initial = declarations.queues.setdefault(name, {})
    initial.update(policies)
    if description:
        initial["description"] = description


def declare_topic(
    name: str,
    *,
    description: str = "",
    schema: dict[str, Any] | None = None,
    **policies: Any,
) -> None:
    """Declare a topic that code publishes to.

    ``policies`` are its ``retention``, ``deduplication_window`` and
    ``content_based_deduplication``, as initial values. ``schema``, a JSON Schema, is the first
    version of what its bodies have to look like; another one is added in :mod:`messaging.control`.
    """
    check_topic_name(name)
    if unknown := policies.keys() - TOPIC_POLICIES:
        raise ValueError(f"Topic {name!r}: unknown policy {', '.join(sorted(unknown))}.")
    initial = declarations.topics.setdefault(name, {})
    initial.update(policies)
    if schema is not None:
        # Whoever has no schemas need not have loaded this.
        from .schemas import check_document

        check_document(schema)
        declarations.schemas[name] = schema
    if description:
        initial["description"] = description


def _check_function(queue: str, function: object) -> None:
    if not callable(function) or inspect.isclass(function):
        raise TypeError(f"The consumer of {queue!r} is {function!r}; use a function.")
    # An object that is called may be asynchronous, or a generator, in its `__call__` alone.
    calls = (function, function.__call__)
    if any(map(inspect.isgeneratorfunction, calls)) or any(map(inspect.isasyncgenfunction, calls)):
        raise TypeError(f"The consumer of {queue!r}, {_place(function)}, is a generator; return.")


def _is_async(function: Any) -> bool:
    return any(map(inspect.iscoroutinefunction, (function, function.__call__)))


def _check_external(queue: str, transaction_size: int | None, durable: bool) -> None:
    if not durable:
        raise NotSupported(
            f"Queue {queue!r}: durable=False cannot be combined with external_effects=True. A "
            f"server crash would bring back messages whose effects are outside the database. Leave "
            f"durable=False out."
        )
    if transaction_size not in (None, 1):
        raise NotSupported(
            f"Queue {queue!r}: transaction_size={transaction_size} cannot be combined with "
            f"external_effects=True. A crash would repeat the effects of all messages that were to "
            f"commit together. Leave one of them out."
        )


def _check_leased(
    queue: str, lease: float | None, transaction_size: int | None, durable: bool
) -> None:
    if lease is not None and (
        isinstance(lease, bool) or not isinstance(lease, int | float) or not 0 <= lease <= MAX_LEASE
    ):
        raise ValueError(
            f"Queue {queue!r}: lease={lease!r}, use 0 to {MAX_LEASE:,} seconds (12 hours)."
        )
    if not durable:
        raise NotSupported(
            f"Queue {queue!r}: durable=False cannot be combined with a lease. A server crash would "
            f"bring back the lease, and with it effects that may be outside the database. Leave "
            f"durable=False out."
        )
    if transaction_size is not None:
        raise NotSupported(
            f"Queue {queue!r}: transaction_size={transaction_size} cannot be combined with a "
            f"lease, where each message has a transaction of its own. Leave one of them out."
        )


def _place(function: Handler) -> str:
    code = getattr(inspect.unwrap(function), "__code__", None)
    name = f"{function.__module__}.{getattr(function, '__qualname__', type(function).__name__)}"
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name
