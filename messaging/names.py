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
    words = pattern.split(".") if isinstance(pattern, str) else []
    if not (1 <= len(str(pattern)) <= 80) or not all(
        word in ("*", "#") or WORD.fullmatch(word) for word in words
    ):
        raise InvalidName(
            f"Invalid topic pattern {shown(pattern)}: use words of ASCII letters, digits, '_' and "
            f"'-' separated by single dots, where '*' stands for one word and '#' for any number; "
            f"80 characters at most."
        )
    return str(pattern)


def pattern_regex(pattern: str) -> str:
    """Return the regular expression that matches ``"." + topic`` for a checked pattern.

    The SQL function ``messaging_pattern_regex`` does the same for the rows.
    """
    parts = {"#": r"(\.[^.]+)*", "*": r"\.[^.]+"}
    return "^" + "".join(parts.get(w, r"\." + w) for w in pattern.split(".")) + "$"


def pattern_matches(pattern: str, topic: str) -> bool:
    """Tell whether a topic pattern matches a topic name."""
    return re.fullmatch(pattern_regex(pattern), "." + topic) is not None


def shown(value: object) -> str:
    """Return a short, safe representation of a rejected value."""
    try:
        text = ascii(value)
    except ValueError:  # an integer too long to print
        return f"<{type(value).__name__} too long to show>"
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text):,} characters)"
