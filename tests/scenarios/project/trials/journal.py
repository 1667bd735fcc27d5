"""Journal: what processes note beside their transactions, one whole line each, in one file."""

import os
import time
from functools import cache


@cache
def _file() -> int:
    return os.open(os.environ["TRIALS_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(what: str, message: int, attempt: int) -> None:
    """Append a line, which outlives this process and its transaction."""
    line = f"{time.monotonic_ns()} {os.getpid()} {what} {message} {attempt}\n"
    os.write(_file(), line.encode())
