"""Company: which threads of a process handle messages at the same time.

When a process dies, the messages of all its threads are counted as suspects. A suspect then runs
with no other beside it, so that the next death tells the guilty from the innocent.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Company:
    """The threads of one process."""

    def __init__(self) -> None:
        self._door = threading.Lock()
        self._changed = threading.Condition()
        self._inside = 0

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        """Handle while others may; waits for one that is alone."""
        with self._door, self._changed:
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Handle while no other does; waits until those inside have ended, and lets none in."""
        with self._door:
            with self._changed:
                self._changed.wait_for(lambda: not self._inside)
            yield
