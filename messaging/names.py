"""Names: what queues, topics and topic patterns may be called."""

import re

from .exceptions import InvalidName

NAME = re.compile(r"[A-Za-z0-9_.-]{1,80}", re.ASCII)
WORD = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def check_queue_name(name: object) -> str:
    """Return the name of a queue, or raise InvalidName."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InvalidName(
            f"Invalid queue name {shown(name)}: use 1 to 80 ASCII letters, digits, '_', '-' "
            f"and '.' (pattern {NAME.pattern})."
        )
    return name


def check_topic_name(name: object) -> str:
    """Return the name of a topic, or raise InvalidName."""
    if not isinstance(name, str) or not NAME.fullmatch(name) or not all(name.split(".")):
        raise InvalidName(
            f"Invalid topic name {shown(name)}: use 1 to 80 ASCII letters, digits, '_' and '-' in "
            f"words separated by single dots, such as 'orders.placed' (pattern {NAME.pattern})."
        )
    return name


def check_pattern(pattern: object) -> str:
    """Return a topic pattern, or raise InvalidName.

    ``*`` stands for one word, ``#`` for any number of them, also none (AMQP topic exchanges).
    """
    if (
        not isinstance(pattern, str)
        or not 1 <= len(pattern) <= 80
        or not all(word in ("*", "#") or WORD.fullmatch(word) for word in pattern.split("."))
    ):
        raise InvalidName(
            f"Invalid topic pattern {shown(pattern)}: use words of ASCII letters, digits, '_' and "
            f"'-' separated by single dots, where '*' stands for one word and '#' for any number; "
            f"80 characters at most."
        )
    return pattern


def pattern_matches(pattern: str, topic: str) -> bool:
    """Tell whether a checked pattern matches a topic name.

    The SQL function ``messaging_pattern_regex`` says the same for the rows.
    """
    # Where in the pattern one can be after each word. A regular expression with several `#` would
    # try every way to share the words out among them.
    wanted = pattern.split(".")
    reached = _past_any_number(wanted, {0})
    for word in topic.split("."):
        steps = {
            position + (wanted[position] != "#")
            for position in reached
            if position < len(wanted) and wanted[position] in ("#", "*", word)
        }
        reached = _past_any_number(wanted, steps)
    return len(wanted) in reached


def _past_any_number(wanted: list[str], reached: set[int]) -> set[int]:
    """Add the positions behind each ``#``, which may stand for no word at all."""
    for position, word in enumerate(wanted):
        if word == "#" and position in reached:
            reached.add(position + 1)
    return reached


def shown(value: object) -> str:
    """Return a short, safe representation of a rejected value."""
    try:
        text = ascii(value)
    except ValueError:  # an integer too long to print
        return f"<{type(value).__name__} too long to show>"
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text):,} characters)"
