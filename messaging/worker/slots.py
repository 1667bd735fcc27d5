"""Slots: shared memory in which worker threads say what they are running.

The supervisor reads it when a process has died, so that the delivery that killed it is counted,
without any write to the database while all is well; and it reads how long a handler may take.
"""

import mmap
import struct

from ..messages import Delivered

# id, queue, message; subscription, lane, entry, token (0: none); deadline; attempt, priority
RECORD = struct.Struct("=qqqqqqqdhh4x")


class Slots:
    """One record for each thread of each process, in memory shared by fork."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory = mmap.mmap(-1, max(1, count * RECORD.size))

    def start(self, slot: int, delivered: Delivered, hard_deadline: float = 0.0) -> None:
        """Say that a thread now runs this delivery.

        Its process is replaced when it still does at ``hard_deadline`` of the monotonic clock,
        which all processes of a machine share; 0: it may take as long as it likes.
        """
        RECORD.pack_into(
            self._memory,
            slot * RECORD.size,
            delivered.id,
            delivered.queue_id,
            delivered.message_id,
            delivered.subscription_id or 0,
            delivered.lane_id or 0,
            delivered.entry_id or 0,
            delivered.token or 0,
            hard_deadline,
            delivered.attempt,
            delivered.priority,
        )

    def clear(self, slot: int) -> None:
        """Say that a thread runs nothing."""
        start = slot * RECORD.size
        self._memory[start : start + RECORD.size] = bytes(RECORD.size)

    def running(self, slot: int) -> Delivered | None:
        """Return the delivery that a thread runs, or ran when its process died."""
        values = self._read(slot)
        if not values[0]:
            return None
        return Delivered(
            id=values[0],
            queue_id=values[1],
            message_id=values[2],
            subscription_id=values[3] or None,
            lane_id=values[4] or None,
            entry_id=values[5] or None,
            token=values[6] or None,
            attempt=values[8],
            priority=values[9],
        )

    def is_overdue(self, slot: int, now: float) -> bool:
        """Tell whether a thread runs a delivery past its hard deadline."""
        values = self._read(slot)
        return bool(values[0] and 0 < values[7] <= now)

    def running_elsewhere(self, slot: int) -> set[int]:
        """Return the ids of the deliveries that other threads run or died of."""
        ids = (self._read(other)[0] for other in range(self.count) if other != slot)
        return {delivery_id for delivery_id in ids if delivery_id}

    def _read(self, slot: int) -> tuple[int, ...]:
        values: tuple[int, ...] = RECORD.unpack_from(self._memory, slot * RECORD.size)
        return values
