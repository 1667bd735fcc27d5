"""Carry on the operations on many messages that run, beside what is handled."""

import logging
import threading
import time
from collections.abc import Callable

from django.db import DatabaseError, InterfaceError, connections

from .. import signals
from ..control import operating

logger = logging.getLogger("messaging")


class Operating:
    """A thread that lives while there are operations to advance; an idle look is one by index."""

    def __init__(self, using: str | None, is_over: Callable[[], bool]) -> None:
        self._using = using
        self._is_over = is_over
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Begin to advance the operations that run, unless that goes on already."""
        if self._is_over() or (self._thread is not None and self._thread.is_alive()):
            return
        if operating.running(self._using):
            self._thread = threading.Thread(
                target=self._advance_all, name="messaging-operations", daemon=True
            )
            self._thread.start()

    def _advance_all(self) -> None:
        try:
            while not self._is_over() and (found := operating.running(self._using)):
                waits = [operating.advance(number, using=self._using) for number in found]
                pauses = [wait for wait in waits if wait is not None]
                if pauses and min(pauses) > 0:
                    time.sleep(min(*pauses, operating.LOOK_EVERY))
        except (DatabaseError, InterfaceError) as error:
            logger.warning("Operations wait error=%s", signals.printable(error, 200))
        finally:
            connections.close_all()
