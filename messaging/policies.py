"""Policies: what a queue's row says about failures, as a value the worker keeps."""

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuePolicy:
    """One queue as configured; times are seconds."""

    id: int
    name: str
    paused: bool = False
    max_deliveries: int = 5
    backoff: str = "exponential"
    backoff_base: float = 10.0
    backoff_cap: float = 600.0
    backoff_delays: Sequence[float] = ()
    jitter: str = "full"
    retention: int = 7 * 86_400
    dead_letter_expired: bool = False
    visibility_timeout: float = 30.0
    rate_limit: float | None = None
    key_rate_limit: float | None = None
    concurrency_limit: int | None = None
    single_active_consumer: bool = False
    weight: int = 1
    on_failure: str = "block"

    @property
    def is_limited(self) -> bool:
        """Whether workers have to ask before they claim."""
        return (
            self.single_active_consumer
            or self.rate_limit is not None
            or self.key_rate_limit is not None
            or self.concurrency_limit is not None
        )

    def wait_after(self, attempt: int) -> float:
        """Return the wait in seconds after failed delivery number ``attempt``, from 1.

        Full jitter draws from 0 to the delay, so that what failed together does not come back
        together (AWS Architecture Blog, "Exponential Backoff And Jitter").
        """
        match self.backoff:
            case "fixed":
                delay = self.backoff_base
            case "linear":
                delay = self.backoff_base * attempt
            case "list":
                delays = self.backoff_delays or (self.backoff_base,)
                delay = delays[min(attempt, len(delays)) - 1]
            case _:
                delay = self.backoff_base * 2 ** min(attempt - 1, 60)
        delay = min(delay, self.backoff_cap)
        return random.uniform(0, delay) if self.jitter == "full" else delay  # noqa: S311
