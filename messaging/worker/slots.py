"""Slots: shared memory in which worker threads say what they are running.

The supervisor reads it when a process has died, so that the delivery that killed it is counted,
without any write to the database while all is well.
"""

import mmap
import struct

from ..messages import Delivered

# id, queue, message, subscription (0: none), attempt, priority
RECORD = struct.Struct("=qqqqhh4x")


class Slots:
    """One record for each thread of each process, in memory shared by fork."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._memory = mmap.mmap(-1, max(1, count * RECORD.size))

    def start(self, slot: int, delivered: Delivered) -> None:
        """Say that a thread now runs this delivery."""
        RECORD.pack_into(
            self._memory,
            slot * RECORD.size,
            delivered.id,
            delivered.queue_id,
            delivered.message_id,
            delivered.subscription_id or 0,
            delivered.attempt,
            delivered.priority,
        )

    def clear(self, slot: int) -> None:
        """Say that a thread runs nothing."""
        start = slot * RECORD.size
        self._memory[start : start + RECORD.size] = bytes(RECORD.size)

    def running(self, slot: int) -> Delivered | None:
        """Return the delivery that a thread runs, or ran when its process died."""
        values = RECORD.unpack_from(self._memory, slot * RECORD.size)
        if not values[0]:
            return None
        return Delivered(
            id=values[0],
            queue_id=values[1],
            message_id=values[2],
            subscription_id=values[3] or None,
            attempt=values[4],
            priority=values[5],
        )

    def running_elsewhere(self, slot: int) -> set[int]:
        """Return the ids of the deliveries that other threads run or died of."""
        ids = (
            RECORD.unpack_from(self._memory, other * RECORD.size)[0]
            for other in range(self.count)
            if other != slot
        )
        return {delivery_id for delivery_id in ids if delivery_id}
