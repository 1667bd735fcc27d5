"""Consumers: the body says how each message ends."""

import ctypes
import os
import signal
import time
from pathlib import Path

from messaging import Message, Reject, Retry, consumer

from .models import Effect

PATIENCE = 60  # seconds


def take_effect(message: Message) -> None:
    """Write the row that shows that this message was handled."""
    Effect.objects.create(
        message_id=message.id, queue=message.queue, attempt=message.attempt, worker=os.getpid()
    )


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
            time.sleep(1)
        case {"end": "raise"}:
            raise ValueError("This message always fails.")
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


@consumer("gated")
def handle_when_opened(message: Message) -> None:
    """Take effect, say so beside the gate, and end when the gate is there."""
    take_effect(message)
    gate = Path(message.body["gate"])
    gate.with_suffix(".reached").touch()
    deadline = time.monotonic() + PATIENCE
    while not gate.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("Nobody opened the gate.")
        time.sleep(0.01)
