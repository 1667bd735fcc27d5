"""Journal: what the scenarios' processes noted beside their transactions."""

import os
from pathlib import Path
from typing import NamedTuple


class Line(NamedTuple):
    """What a process noted, and when; nanoseconds of the clock that all processes share."""

    at: int
    process: int
    what: str
    message: int
    attempt: int


def read(journal: Path) -> list[Line]:
    """Return all lines, in the order in which they were written."""
    if not journal.exists():
        return []
    return [
        Line(int(at), int(process), what, int(message), int(attempt))
        for at, process, what, message, attempt in map(str.split, journal.read_text().splitlines())
    ]


def last_process(journal: Path) -> int | None:
    """Return which process wrote the last line; one that is being written is not read."""
    with journal.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - 200))
        whole, _, _ = file.read().rpartition(b"\n")
    return int(whole.splitlines()[-1].split()[1]) if whole else None
