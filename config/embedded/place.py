"""Say where the checkout's servers keep their data, and let one process start them at a time."""

import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
DATA = CHECKOUT / ".data"


def data_folder() -> Path:
    """Return the folder that git ignores, made when it is missing."""
    # Others may pass through, not look: as root, the servers run under an account of their own.
    DATA.mkdir(mode=0o711, exist_ok=True)
    return DATA


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the checkout's lock of that name; the kernel releases it however the holder ends."""
    with (data_folder() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def kept_secret(name: str, size: int = 32) -> str:
    """Return the secret of that name: `size` random bytes as text, for its owner alone to read."""
    path = data_folder() / name
    try:
        return path.read_text()
    except FileNotFoundError:
        pass
    secret = secrets.token_urlsafe(size)
    draft = path.with_name(f"{name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(secret)
    try:
        # A link, not a rename: of two processes that draw at once the first wins, for both.
        os.link(draft, path)
    except FileExistsError:
        return path.read_text()
    finally:
        draft.unlink()
    return secret


def kept_port(name: str) -> int:
    """Return the server's port: the one it had before while that is free, otherwise another."""
    path = data_folder() / f"{name}.port"
    wanted = int(path.read_text()) if path.exists() else 0
    with socket.socket() as probe:
        # As the servers do: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    path.write_text(str(port))
    return port
