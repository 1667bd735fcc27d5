"""Consumers: the body says how each message ends."""

import asyncio
import contextlib
import ctypes
import os
import re
import signal
import time
from functools import partial
from pathlib import Path

from asgiref.sync import sync_to_async
from django.db import transaction

from messaging import Message, Reject, Retry, consumer, declare_queue

from .gates import PATIENCE, wait_at_gate
from .journal import note
from .models import Effect


def take_effect(message: Message) -> None:
    """Write the row that shows that this message was handled."""
    Effect.objects.create(
        message_id=message.id, queue=message.queue, attempt=message.attempt, worker=os.getpid()
    )


def act(message: Message) -> None:
    """Take effect, and note that, and the commit."""
    note("acts", message.id, message.attempt)
    transaction.on_commit(partial(note, "commits", message.id, message.attempt))
    take_effect(message)


def end(message: Message) -> None:
    """End the way that the body says."""
    match message.body:
        case {"end": "exit"}:
            os._exit(3)
        case {"end": "exit well"}:
            os._exit(0)
        case {"end": "segfault"}:
            ctypes.string_at(0)
        case {"end": "killed"}:
            os.kill(os.getpid(), signal.SIGKILL)
        case {"end": "linger"}:
            time.sleep(1)  # longer than servers of the scenarios wait, and than a death takes
        case {"end": "raise"}:
            raise ValueError("This message always fails.")
        case {"end": "fail once"} if message.attempt == 1:
            raise ValueError("This message fails once.")
        case {"end": "fail twice"} if message.attempt <= 2:
            raise ValueError("This message fails twice.")
        case {"end": "retry"} if message.attempt == 1:
            raise Retry(after=0)
        case {"end": "reject"}:
            raise Reject("This message is refused.")


@consumer("alone", max_deliveries=3, backoff="fixed", backoff_base=0.05)
def handle_alone(message: Message) -> None:
    """Take effect in a transaction of its own."""
    take_effect(message)
    end(message)


@consumer("together", max_deliveries=3, backoff="fixed", backoff_base=0.05, transaction_size=20)
def handle_together(message: Message) -> None:
    """Take effect in a transaction that others share."""
    take_effect(message)
    end(message)


@consumer("keyed", max_deliveries=100, backoff="fixed", backoff_base=0.01, transaction_size=20)
def handle_in_order(message: Message) -> None:
    """Take effect, and note when that begins and ends, however it does."""
    note("begins", message.id, message.attempt)
    try:
        take_effect(message)
        end(message)
    finally:
        note("ends", message.id, message.attempt)


@consumer("gated")
def handle_when_opened(message: Message) -> None:
    """Take effect, say so beside the gate, and end when the gate is there."""
    take_effect(message)
    wait_at_gate(message)


@consumer("leased", max_deliveries=3, backoff="fixed", backoff_base=0.05, lease=2)
def handle_leased(message: Message) -> None:
    """Take effect in a transaction that ends a lease; at a gate, if the body names one."""
    act(message)
    end(message)
    if "gate" in message.body:
        wait_at_gate(message)


@consumer("looped", max_deliveries=3, backoff="fixed", backoff_base=0.05, lease=2)
async def handle_in_a_loop(message: Message) -> None:
    """Take effect and acknowledge in one transaction, beside others; at a gate, if it is named."""
    if "gate" in message.body:
        gate = Path(message.body["gate"])
        gate.with_suffix(".reached").touch()
        note("waits", message.id, message.attempt)
        async with asyncio.timeout(PATIENCE):
            while not gate.exists():
                await asyncio.sleep(0.01)
    end(message)
    await sync_to_async(take_effect_and_acknowledge)(message)


def take_effect_and_acknowledge(message: Message) -> None:
    """Write the row and settle the message together."""
    with transaction.atomic():
        act(message)
        message.acknowledge()


@consumer("hurried", max_deliveries=2, backoff="fixed", backoff_base=0.05, hard_timeout=0.5)
def hang(message: Message) -> None:
    """Take effect and never end, in a way that nothing but the end of the process interrupts."""
    take_effect(message)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(PATIENCE)


@consumer("stubborn", max_deliveries=2, backoff="fixed", backoff_base=0.05, hard_timeout=0.5)
async def hang_in_the_loop(message: Message) -> None:
    """Take effect and never end, in the way that the body says."""
    await sync_to_async(take_effect)(message)
    match message.body:
        case {"by": "blocking"}:
            time.sleep(PATIENCE)
        case {"by": "the interpreter"}:
            re.match(r"(a+)+$", "a" * 60 + "b")
        case {"by": "going on"}:
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.01)


@consumer("patient", max_deliveries=2, hard_timeout=PATIENCE)
async def wait_in_the_loop(message: Message) -> None:
    """Wait at the gate, and take effect."""
    gate = Path(message.body["gate"])
    gate.with_suffix(".reached").touch()
    while not gate.exists():
        await asyncio.sleep(0.01)
    await sync_to_async(take_effect)(message)


# Messages that the command `pull` receives.
declare_queue("pulled", max_deliveries=3, backoff="fixed", backoff_base=0.05)

hoard: list[bytes] = []


@consumer("hungry")
def grow(message: Message) -> None:
    """Take effect and keep so many MiB for ever."""
    take_effect(message)
    hoard.append(b"\1" * (message.body["mib"] << 20))
