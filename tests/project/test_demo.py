"""`make demo`: one command starts the shop, and one Ctrl-C leaves nothing behind."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
PARTS = ["config", "messaging", "orders", "static", "templates", "manage.py"]
DEADLINE = 90  # seconds


class Demo:
    """A running demo, in a session of its own as in a terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {**os.environ, "PORT": "8800"}
        environment.pop("DATABASE_URL", None)
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "config.demo"],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.output = ""
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.output += line

    def wait_for(self, pattern: str) -> str:
        """Wait until the demo has printed what matches, and return its first group."""
        wait_until(lambda: bool(re.search(pattern, self.output)), lambda: self.output)
        found = re.search(pattern, self.output)
        assert found
        return found.group(1)

    def interrupt(self, number: signal.Signals) -> int:
        """Send the signal to the whole group, as a terminal does, and return the exit status."""
        os.killpg(self.process.pid, number)
        # Make passes on what it gets, so that the demo gets some signals twice.
        self.process.send_signal(number)
        status = self.process.wait(DEADLINE)
        self.reader.join(DEADLINE)
        assert "is killed" not in self.output
        return status

    def processes(self) -> list[psutil.Process]:
        """Return what runs in the demo's folder."""
        return [process for process in psutil.process_iter() if self._is_here(process)]

    def _is_here(self, process: psutil.Process) -> bool:
        try:
            return str(self.folder) in " ".join([process.cwd(), *process.cmdline()])
        except psutil.Error:
            return False


def wait_until(condition: Callable[[], bool], report: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, report()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout without data."""
    folder = tmp_path_factory.mktemp("demo")
    for part in PARTS:
        copy = shutil.copytree if (CHECKOUT / part).is_dir() else shutil.copy
        copy(CHECKOUT / part, folder / part)
    return folder


@pytest.fixture
def start(folder: Path) -> Iterator[Callable[[], Demo]]:
    """Start a demo that is stopped when the test ends, however it ends."""
    started: list[Demo] = []

    def start_demo() -> Demo:
        started.append(Demo(folder))
        return started[-1]

    yield start_demo
    for demo in started:
        for process in demo.processes():
            process.kill()


def page(address: str) -> str:
    with urllib.request.urlopen(address, timeout=20) as response:  # noqa: S310 (our own server)
        assert response.status == 200
        return str(response.read().decode())


def test_the_demo_processes_orders_serves_its_pages_and_leaves_no_process(
    start: Callable[[], Demo],
) -> None:
    demo = start()
    shop = demo.wait_for(r"Shop\s+(\S+)")
    password = demo.wait_for(r"with the password (\S+)")
    demo.wait_for(r"orders \| .*?(\d+) processed")

    assert "csrfmiddlewaretoken" in page(shop)
    assert "csrfmiddlewaretoken" in page(demo.wait_for(r"Admin\s+(\S+)"))
    assert "csrfmiddlewaretoken" in page(demo.wait_for(r"Messaging\s+(\S+)"))
    assert demo.interrupt(signal.SIGINT) == 0, demo.output
    wait_until(lambda: not demo.processes(), demo.processes)

    again = start()
    assert again.wait_for(r"with the password (\S+)") == password
    kept = int(again.wait_for(r"orders \| .*?([\d,]+) processed").replace(",", ""))
    assert kept >= 1
    assert again.interrupt(signal.SIGTERM) == 0, again.output
    wait_until(lambda: not again.processes(), again.processes)


def test_the_demo_stops_when_its_terminal_is_closed(start: Callable[[], Demo]) -> None:
    demo = start()
    demo.wait_for(r"Shop\s+(\S+)")
    assert demo.interrupt(signal.SIGHUP) == 0, demo.output
    wait_until(lambda: not demo.processes(), demo.processes)


def test_the_demo_says_which_part_has_died_and_stops(start: Callable[[], Demo]) -> None:
    demo = start()
    demo.wait_for(r"Shop\s+(\S+)")
    web = next(process for process in demo.processes() if "daphne" in process.cmdline())
    web.kill()
    assert demo.process.wait(DEADLINE) == 1
    demo.reader.join(DEADLINE)
    assert "web ended with -9, so everything stops" in demo.output
    wait_until(lambda: not demo.processes(), demo.processes)
