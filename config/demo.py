"""Start the whole shop on this machine and stop it together: `python -m config.demo`."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from types import FrameType

# Before the settings are read: the demo runs as a site would, not as a developer's server.
os.environ.setdefault("DEBUG", "0")
# Failures are part of the show, and shown on the pages: hundreds of lines would bury the rest.
os.environ.setdefault("LOG_LEVEL", "ERROR")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import django
from django.conf import settings
from django.core.management import call_command
from django.db import connection

from .embedded import postgres
from .embedded.place import CHECKOUT, kept_secret

ADMIN = "admin"
FIRST_PORT = 8000
GRACE = 40  # seconds; workers give their handlers 30
PATIENCE = 60  # seconds for the first page
FIGURES_EVERY = 10  # seconds


asked_to_stop = threading.Event()
asked_again = threading.Event()
first_asked = 0.0


class Part:
    """A process of the demo with everything that it starts, its lines shown under its name."""

    def __init__(self, name: str, *command: str) -> None:
        self.name = name
        # A session of its own: Ctrl-C reaches the demo alone, which then stops its parts in order.
        self.process = subprocess.Popen(  # noqa: S603 (our own commands)
            [sys.executable, *command],
            cwd=CHECKOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        threading.Thread(target=self._show, daemon=True).start()

    def _show(self) -> None:
        for line in self.process.stdout or ():
            say(self.name, line.rstrip())

    def ask_to_stop(self) -> None:
        """Let the process finish what it does."""
        if self.process.poll() is None:
            self.process.terminate()

    def end(self, deadline: float) -> None:
        """Wait for the process, then end whatever is left of it and of its children."""
        while self.process.poll() is None and time.monotonic() < deadline:
            if asked_again.wait(0.05):
                break
        if self.process.poll() is None:
            say(self.name, "is killed, because it did not stop in time")
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def say(name: str, line: str) -> None:
    """Show one line under the name of the part that it comes from."""
    # A closed terminal must not keep the demo from stopping its parts.
    with suppress(OSError):
        print(f"{name:>8} | {line}", flush=True)


def main() -> int:
    """Prepare, start, watch and stop; return the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _note_signal)
    parts: list[Part] = []
    try:
        password = prepare()
        port = free_port()
        start(parts, port)
        show_addresses(port, password)
        return watch(parts)
    finally:
        stop(parts)


def _note_signal(number: int, frame: FrameType | None) -> None:
    # Noted, not raised: an exception between the start of a part and its place in the list of
    # parts would leave that part running.
    # Within a second it is the same wish, which `make` has passed on besides the terminal.
    global first_asked
    if not asked_to_stop.is_set():
        first_asked = time.monotonic()
        asked_to_stop.set()
    elif time.monotonic() - first_asked > 1:
        asked_again.set()


def prepare() -> str:
    """Bring the database, the static files and the admin user up to date; return the password."""
    say("demo", "Preparing the database")
    django.setup()
    call_command("migrate", verbosity=0)
    call_command("collectstatic", interactive=False, verbosity=0)

    from django.contrib.auth import get_user_model

    users = get_user_model()._default_manager
    password = kept_secret("admin.password", size=9)
    if not users.filter(username=ADMIN).exists():
        users.create_superuser(ADMIN, "admin@example.com", password)
    # The parts are about to be forked off, and must not share a connection with the demo.
    connection.close()
    return password


def free_port() -> int:
    """Return the first port from `PORT` on that nobody listens on."""
    first = int(os.environ.get("PORT", FIRST_PORT))
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise SystemExit(
        f"No free port from {first} to {first + 99}. Name another: PORT=9000 make demo"
    )


def start(parts: list[Part], port: int) -> None:
    """Start the parts of the demo, and wait for the first page."""
    address = ["--bind", "127.0.0.1", "--port", str(port), "--verbosity", "0"]
    parts.append(Part("web", "-m", "daphne", *address, "config.asgi:application"))
    parts.append(Part("workers", "manage.py", "runworker", "--processes", "2"))
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and parts[0].process.poll() is None:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        if asked_to_stop.wait(0.1):
            return
    # Half an hour, with about fifteen orders a second in its busiest months, and some that fail.
    parts.append(Part("replay", "manage.py", "replay_orders", "--speed", "30000x", "--chaos"))


def show_addresses(port: int, password: str) -> None:
    """Print where to look, and how to get in."""
    site = f"http://127.0.0.1:{port}"
    print(
        f"\n  Shop        {site}/"
        f"\n  Messaging   {site}/messaging/"
        f"\n  Admin       {site}/admin/"
        f"\n  Log in as   {ADMIN} with the password {password}"
        "\n\n  Ctrl-C stops everything and keeps the data.\n",
        flush=True,
    )


def watch(parts: list[Part]) -> int:
    """Show how the orders come along until a part ends that should not; return the exit status."""
    shown = ""
    next_figures = time.monotonic()
    while not asked_to_stop.wait(0.2):
        for part in list(parts):
            status = part.process.poll()
            if status == 0 and part.name == "replay":
                say("replay", "All orders are placed; place your own in the shop")
                parts.remove(part)
            elif status is not None:
                say("demo", f"{part.name} ended with {status}, so everything stops")
                return 1
        if time.monotonic() >= next_figures:
            figures = order_figures()
            if figures != shown:
                say("orders", figures)
            shown = figures
            # Often until the first one is through, for whoever waits for it.
            next_figures = time.monotonic() + (FIGURES_EVERY if "processed" in figures else 0.5)
    return 0


def order_figures() -> str:
    """Count the orders by status: `12 placed, 2,004 processed`."""
    from django.db.models import Count

    from orders.models import Order

    counted = Order.objects.values_list("status").annotate(Count("pk")).order_by("status")
    return ", ".join(f"{count:,} {status}" for status, count in counted) or "none so far"


def stop(parts: list[Part]) -> None:
    """Stop the parts, then the database when nobody else uses it."""
    say("demo", "Stopping")
    for part in reversed(parts):
        part.ask_to_stop()
    deadline = time.monotonic() + GRACE
    for part in reversed(parts):
        part.end(deadline)
    if settings.DATABASES["default"]["ENGINE"] == "config.embedded":
        connection.close()
        stop_database()
    say("demo", "Stopped")


def stop_database() -> None:
    """Stop the checkout's database unless another process of the checkout is connected to it."""
    deadline = time.monotonic() + 3
    # The server notices a moment later that the parts are gone.
    while postgres.in_use():
        if time.monotonic() > deadline:
            say("demo", "The database stays up for its other users; `make stop` stops it")
            return
        time.sleep(0.05)
    postgres.stop()


if __name__ == "__main__":
    sys.exit(main())
