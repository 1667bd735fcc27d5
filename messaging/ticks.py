"""Ticks: when a schedule is due, by its cron expression in its time zone, or by its interval.

A time that a clock change skips is due when the clocks have changed, and one that comes twice is
due once, as in Debian's cron; what runs every so many minutes goes on by real time.
"""

import datetime
import zoneinfo
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from cronsim import CronSim, CronSimError

from .exceptions import InvalidOption

UTC = datetime.UTC
# From a second to a leap year.
EVERY = (1.0, 366 * 86_400.0)
SAMPLE = datetime.datetime(2000, 1, 1, tzinfo=UTC)


class Ticks(NamedTuple):
    """What says when a schedule is due: a cron expression, or ``every`` so many seconds."""

    cron: str
    every: float | None
    time_zone: str

    def after(self, moment: datetime.datetime) -> Iterator[datetime.datetime]:
        """Yield the ticks after a moment, in UTC; of an interval, counted from it."""
        if self.every is not None:
            step = datetime.timedelta(seconds=self.every)
            tick = moment.astimezone(UTC)
            while True:
                tick += step
                yield tick
        zone = zoneinfo.ZoneInfo(self.time_zone)
        for tick in CronSim(self.cron, moment.astimezone(zone)):
            # In the hour that comes twice cronsim may begin with what is over.
            if tick.astimezone(UTC) > moment:
                yield tick.astimezone(UTC)

    def shown(self, tick: datetime.datetime) -> datetime.datetime:
        """Return a tick in the time zone of its schedule."""
        return tick.astimezone(zoneinfo.ZoneInfo(self.time_zone))

    def missed(
        self, first: datetime.datetime, now: datetime.datetime, limit: int
    ) -> tuple[list[datetime.datetime], bool]:
        """Return the last ticks from ``first`` to ``now``, in order, and whether there were more.

        ``first`` is a tick itself.
        """
        if self.every is not None:
            step = datetime.timedelta(seconds=self.every)
            count = (now - first) // step
            kept = range(max(0, count - limit + 1), count + 1)
            return [first + number * step for number in kept], len(kept) <= count
        zone = zoneinfo.ZoneInfo(self.time_zone)
        # From the end, so that a minute's schedule that has rested for a year costs no more.
        # Begin behind the hour that may come twice.
        latest = now + datetime.timedelta(hours=3)
        found: list[datetime.datetime] = []
        for each in CronSim(self.cron, latest.astimezone(zone), reverse=True):
            tick = each.astimezone(UTC)
            if tick < first or len(found) > limit:
                break
            if tick <= now:
                found.append(tick)
        found = found or [first]
        return sorted(found[:limit]), len(found) > limit


def check_ticks(cron: object, every: object, time_zone: object) -> Ticks:
    """Return when a schedule is due, or raise InvalidOption with what to use."""
    if (not cron) == (every is None):
        raise InvalidOption(
            "cron" if cron else "every", cron or every, "give a cron expression or every=, not both"
        )
    zone = check_time_zone(time_zone)
    if cron:
        return Ticks(check_cron(cron), None, zone)
    return Ticks("", check_every(every), zone)


def check_cron(cron: object) -> str:
    """Return a cron expression of five fields that is due some day, or raise InvalidOption."""
    if not isinstance(cron, str) or len(cron) > 100 or len(cron.split()) != 5:
        raise InvalidOption(
            "cron",
            cron,
            "use five fields: minute, hour, day of month, month, day of week, such as "
            "'0 6 * * MON-FRI'",
        )
    try:
        next(CronSim(cron, SAMPLE))
    except CronSimError as error:
        reason = f"{str(error).lower()}, or a day that no month has"
        raise InvalidOption("cron", cron, reason) from error
    except (StopIteration, AssertionError) as error:
        raise InvalidOption("cron", cron, "there is no such day in 50 years") from error
    return " ".join(cron.split())


def check_every(every: object) -> float:
    """Return an interval in seconds, or raise InvalidOption with the range."""
    seconds = every.total_seconds() if isinstance(every, datetime.timedelta) else every
    lowest, highest = EVERY
    if (
        isinstance(seconds, bool)
        or not isinstance(seconds, int | float)
        or not lowest <= seconds <= highest
    ):
        raise InvalidOption("every", every, f"use {lowest:g} to {highest:,.0f} seconds (a year)")
    return float(seconds)


def check_time_zone(name: object) -> str:
    """Return the name of a time zone, or raise InvalidOption."""
    try:
        return zoneinfo.ZoneInfo(name).key  # type: ignore[arg-type]
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, TypeError, OSError) as error:
        raise InvalidOption(
            "time_zone", name, "use the name of a time zone, such as 'Europe/Berlin'"
        ) from error


def in_words(ticks: Ticks) -> str:
    """Say when a schedule is due."""
    if ticks.every is not None:
        return f"Every {datetime.timedelta(seconds=ticks.every)}"
    words: str = CronSim(ticks.cron, SAMPLE).explain()
    return f"{words} ({ticks.time_zone})"


def upcoming(ticks: Ticks, after: datetime.datetime, count: int) -> list[datetime.datetime]:
    """Return the next ticks after a moment, in the schedule's time zone."""
    return [ticks.shown(tick) for tick in islice(ticks.after(after), count)]
