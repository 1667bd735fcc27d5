"""Listen: a thread that hears what has arrived and wakes the runners."""

import logging
import random
import threading
from collections.abc import Callable, Sequence

import psycopg
from django.db import DatabaseError

from .. import conf, signals
from ..engines import wakeup
from ..store import notifications
from ..store.connection import connection_for

logger = logging.getLogger("messaging")

SLICE = 1.0


class Listener(threading.Thread):
    """Passes arrivals on; while it cannot listen, the runners poll."""

    def __init__(
        self,
        using: str | None,
        arrived: Callable[[Sequence[wakeup.Arrival]], None],
        changed: Callable[[], None],
    ) -> None:
        super().__init__(name="messaging-listener", daemon=True)
        self._using = using
        self._arrived = arrived
        self._changed = changed
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End the thread within a second or so."""
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                with notifications.connect(connection_for(self._using)) as raw:
                    notifications.start_listening(raw)
                    # What came before the LISTEN was not heard.
                    self._changed()
                    self._listen(raw)
            except psycopg.NotSupportedError as error:
                logger.warning("Worker polls every=%.1f reason=%s", conf.POLL_INTERVAL, error)
                return
            except (psycopg.Error, DatabaseError, OSError) as error:
                logger.warning(
                    "Worker does not hear wake-ups and polls every=%.1f error=%s",
                    conf.POLL_INTERVAL,
                    signals.printable(error, 200),
                )
                self._stopping.wait(random.uniform(0.5, 2.0))  # noqa: S311 - spreads reconnects

    def _listen(self, raw: psycopg.Connection[tuple[object, ...]]) -> None:
        while not self._stopping.is_set():
            for payload in notifications.listen(raw, SLICE):
                arrivals = wakeup.decode(payload)
                if arrivals is None:
                    self._changed()
                else:
                    self._arrived(arrivals)
                if self._stopping.is_set():
                    break
