"""Presence: the row and the figures by which others know that a worker process is alive."""

import json
import os
import socket
from collections.abc import Callable

import messaging

from ..store import workers
from ..store.connection import connection_for
from .configuration import Configuration
from .options import Options
from .pulses import Pulses
from .tally import Tally


class Presence:
    """The signs of life of one process, from the first heartbeat until it signs off."""

    def __init__(
        self,
        name: str,
        options: Options,
        configuration: Configuration,
        tally: Tally,
        *,
        pulses: Pulses,
        slot: int,
        is_ending: Callable[[], bool],
    ) -> None:
        self._name = name
        self._options = options
        self._configuration = configuration
        self._tally = tally
        self._pulses = pulses
        self._slot = slot
        self._is_ending = is_ending
        self._has_beaten = False

    def beat(self) -> None:
        """Tell the database that it lives, and the supervisor that the database knows."""
        connection = connection_for(self._options.using)
        workers.beat(connection, self._heartbeat())
        self._pulses.beat(self._slot)
        if self._options.name and not self._has_beaten:
            # The worker bears its name by the heartbeats of its processes from now on.
            workers.sign_off(connection, self._options.name)
        self._has_beaten = True

    def record(self) -> None:
        """Store what has been done since the last time."""
        if rows := self._tally.flush():
            workers.record(connection_for(self._options.using), self._name, rows)

    def sign_off(self) -> None:
        """Record the rest, and leave no row that says it lives."""
        self.record()
        workers.sign_off(connection_for(self._options.using), self._name)

    def _heartbeat(self) -> dict[str, object]:
        return {
            "name": self._name,
            "host": socket.gethostname()[:100],
            "pid": os.getpid(),
            "version": messaging.__version__,
            "queues": json.dumps(self._configuration.queues),
            "threads": self._options.threads,
            "running": json.dumps(self._tally.running()),
            "handled": self._tally.handled,
            "failed": self._tally.failed,
            "state": self._state(),
        }

    def _state(self) -> str:
        if self._is_ending():
            return "stopping"
        # What it does, and not what it was told a moment ago: whoever reads it relies on it.
        return "paused" if self._configuration.is_held else "running"
