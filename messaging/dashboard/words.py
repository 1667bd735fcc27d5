"""Words: figures as people read them."""

from ..metrics import Count

MINUTE, HOUR, DAY = 60, 3_600, 86_400


def count(number: Count | None) -> str:
    """Return `1,284`, `10,000+` when there are more, or a dash when nobody could count."""
    if number is None:
        return "–"
    return f"{number.number:,}" + ("" if number.is_exact else "+")


def rate(per_second: float) -> str:
    """Return `1,284`, `12.3`, `4.0` or `0`."""
    return f"{per_second:.1f}" if 0 < per_second < 100 else f"{per_second:,.0f}"


def percent(share: float) -> str:
    """Return `2.1 %`."""
    return f"{share * 100:.0f} %" if share >= 0.1 else f"{share * 100:.1f} %"


def span(seconds: float | None) -> str:
    """Return `0.2 s`, `48 s`, `4 m`, `2 h 14 m` or `3 d 2 h`; a dash for None."""
    if seconds is None:
        return "–"
    seconds = max(0.0, seconds)  # clocks differ, and nothing lasts less than no time
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < MINUTE:
        return f"{seconds:.0f} s"
    if seconds < HOUR:
        return f"{seconds // MINUTE:.0f} m"
    if seconds < DAY:
        return _two(seconds, HOUR, "h", MINUTE, "m")
    return _two(seconds, DAY, "d", HOUR, "h")


def long_span(seconds: float) -> str:
    """Return `4 minutes`, for a sentence."""
    for length, name in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"), (1, "second")):
        if seconds >= length:
            number = int(seconds // length)
            return f"{number} {name}{'' if number == 1 else 's'}"
    return "a moment"


def counted(number: int, thing: str, things: str = "") -> str:
    """Return `1 message` or `1,284 messages`."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def _two(seconds: float, large: int, large_unit: str, small: int, small_unit: str) -> str:
    rest = int(seconds % large // small)
    whole = f"{int(seconds // large):,} {large_unit}"
    return f"{whole} {rest} {small_unit}" if rest else whole
