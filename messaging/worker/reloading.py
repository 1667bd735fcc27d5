"""Reload: run the worker in a process that is replaced, gracefully, whenever code changes."""

import logging
import os
import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.apps import apps
from django.utils import autoreload

from .bell import Bell

logger = logging.getLogger("messaging")

# In the environment of the process that really works.
WORKS = "MESSAGING_RELOADED"
LOOK_EVERY = 1.0
STOP = (signal.SIGTERM, signal.SIGINT)
PASSED_ON = (signal.SIGTSTP, signal.SIGCONT, signal.SIGQUIT, signal.SIGUSR1)
INSTALLED = tuple(Path(sysconfig.get_path(name)) for name in ("purelib", "stdlib"))


def is_reloaded() -> bool:
    """Tell whether this process is the one that works, which another starts again."""
    return WORKS in os.environ


def run_reloading() -> int:
    """Run this very command until it is done or told to stop; return its exit code.

    A worker that cannot start, such as for an error of syntax, is started again by the next change.
    """
    return Reloading().run()


class Reloading:
    """Starts the worker, watches the code, passes signals on."""

    def __init__(self) -> None:
        self._bell = Bell()
        self._told = False
        self._worker: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        with self._signals_passed_on(), self._bell.rung_by_signals():
            seen = snapshot()
            worker = self._start()
            failed = False
            while not self._told:
                self._bell.wait(LOOK_EVERY)
                code = worker.poll()
                if code in (0, 2):
                    return code
                if code is not None and not failed:
                    failed = True
                    logger.warning("Worker ended and waits for code to change code=%s", code)
                now = snapshot()
                changed = [file for file, _ in set(now.items()) ^ set(seen.items())]
                if changed and not self._told:
                    seen, failed = now, False
                    logger.info("Code has changed, worker starts again file=%s", changed[0])
                    worker.terminate()
                    worker.wait()
                    if not self._told:
                        worker = self._start()
            return worker.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        # A group of its own: Ctrl-C reaches this process alone, which passes it on, once.
        self._worker = subprocess.Popen(  # noqa: S603 (this very command)
            autoreload.get_child_arguments(), env={**os.environ, WORKS: "1"}, process_group=0
        )
        if self._told:  # just before
            self._worker.terminate()
        return self._worker

    def _pass_on(self, number: int, frame: object) -> None:
        if number in STOP:
            self._told = True
            number = signal.SIGTERM
        if self._worker is not None:
            self._worker.send_signal(number)

    @contextmanager
    def _signals_passed_on(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._pass_on) for number in (*STOP, *PASSED_ON)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._bell.close()


def snapshot() -> dict[Path, float]:
    """Return when each file of the project's code was last changed.

    Those are the modules loaded, and whatever else is in the folders of the project's own apps.
    """
    files = set(autoreload.iter_all_python_module_files())
    for config in apps.get_app_configs():
        folder = Path(config.path)
        if not any(folder.is_relative_to(place) for place in INSTALLED):
            files.update(folder.rglob("*.py"))
    times = {}
    for file in files:
        try:
            times[file] = file.stat().st_mtime
        except OSError:  # deleted meanwhile
            continue
    return times
