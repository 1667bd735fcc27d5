"""Gates: where a process waits, so that a scenario finds it there and may stop it."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from messaging import Message, leasing
from messaging.engines import Source
from messaging.messages import Outcome

from .journal import note

PATIENCE = 60  # seconds

settle_held = leasing.settle_held


def wait_at_gate(*messages: Message, name: str = "gate") -> None:
    """Say that the gate is reached that the bodies name, and wait until it is there."""
    gate = Path(messages[0].body[name])
    for message in messages:
        note("waits", message.id, message.attempt)
    gate.with_suffix(".reached").touch()
    deadline = time.monotonic() + PATIENCE
    while not gate.exists():
        if time.monotonic() > deadline:
            raise TimeoutError("Nobody opened the gate.")
        time.sleep(0.01)


def settle_at_gate(source: Source, outcomes: Sequence[Outcome], *args: Any, **options: Any) -> Any:
    """Settle leases; messages whose body names a gate for that wait there first."""
    for outcome in outcomes:
        if outcome.message is not None and "gate of settling" in outcome.message.body:
            wait_at_gate(outcome.message, name="gate of settling")
    return settle_held(source, outcomes, *args, **options)


# Between the handler and its acknowledgement there is no code of the project's.
leasing.settle_held = settle_at_gate
