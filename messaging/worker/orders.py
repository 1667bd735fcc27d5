"""Orders: what signals have told the supervisor to do."""

import faulthandler
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

STOP = (signal.SIGTERM, signal.SIGINT)
PAUSE = (signal.SIGTSTP, signal.SIGCONT)
OBEYED = (*STOP, *PAUSE, signal.SIGQUIT, signal.SIGUSR1)


class Orders:
    """Noted by signal handlers, carried out by the supervisor between two of its turns."""

    def __init__(self) -> None:
        self.stops = 0
        self.paused = False
        self.stacks_wanted = False
        self.report_wanted = False

    def _note(self, number: int, frame: object) -> None:
        if number in STOP:
            self.stops += 1
        elif number in PAUSE:
            self.paused = number == signal.SIGTSTP
        elif number == signal.SIGQUIT:
            self.stacks_wanted = True
        else:
            self.report_wanted = True

    @contextmanager
    def obeyed(self) -> Iterator[None]:
        """Note what signals say, and have them mean afterwards what they meant before."""
        before = {number: signal.signal(number, self._note) for number in OBEYED}
        # The terminal was closed, which is no reason to end.
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        # The stacks of this process at once, even of one that hangs; the note comes after.
        with suppress(AttributeError, ValueError, OSError):
            faulthandler.register(signal.SIGQUIT, chain=True)
        try:
            yield
        finally:
            faulthandler.unregister(signal.SIGQUIT)
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Hold orders back around a fork, so that no child misses one or takes it for ours."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, OBEYED)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
