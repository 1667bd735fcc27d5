"""Read numbers of the command line."""

from argparse import ArgumentTypeError


def row_id(text: str) -> int:
    """Return an id that the database can hold."""
    if not (text.isascii() and text.isdecimal() and len(text) < 20 and 0 < int(text) < 2**63):
        raise ArgumentTypeError(f"{text[:40]!r} is no id; use 1 to {2**63 - 1}")
    return int(text)
