"""Ticks: when schedules are due, over changes of the clocks, leap years and missed times."""

import datetime
from itertools import islice

import pytest

from messaging import InvalidOption
from messaging.ticks import Ticks, check_cron, check_every, check_ticks, in_words, upcoming

BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"


def utc(text):
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)


def after(cron, moment, count=3, zone="UTC", every=None):
    """Return the next ticks in UTC, as text without the day's zeros."""
    ticks = Ticks(cron, every, zone)
    return [f"{tick:%Y-%m-%d %H:%M:%S}" for tick in islice(ticks.after(utc(moment)), count)]


class TestClockChanges:
    @pytest.mark.parametrize(
        ("zone", "cron", "moment", "expected"),
        [
            # 02:00 to 03:00 does not exist: due at the change.
            (BERLIN, "30 2 * * *", "2026-03-28 12:00", ["2026-03-29 01:00", "2026-03-30 00:30"]),
            (NEW_YORK, "30 2 * * *", "2026-03-07 12:00", ["2026-03-08 07:00", "2026-03-09 06:30"]),
            # 02:00 to 03:00 comes twice: due the first time.
            (BERLIN, "30 2 * * *", "2026-10-24 12:00", ["2026-10-25 00:30", "2026-10-26 01:30"]),
            (NEW_YORK, "30 1 * * *", "2026-10-31 12:00", ["2026-11-01 05:30", "2026-11-02 06:30"]),
            # From within the hour that comes twice.
            (BERLIN, "30 2 * * *", "2026-10-25 00:30", ["2026-10-26 01:30", "2026-10-27 01:30"]),
            (BERLIN, "30 2 * * *", "2026-10-25 01:10", ["2026-10-26 01:30", "2026-10-27 01:30"]),
            # What runs every hour goes on by real time.
            (BERLIN, "0 * * * *", "2026-10-24 23:30", ["2026-10-25 00:00", "2026-10-25 01:00"]),
            (BERLIN, "0 * * * *", "2026-03-29 00:30", ["2026-03-29 01:00", "2026-03-29 02:00"]),
            # The hour of the day stays, whatever the clocks do.
            (BERLIN, "0 6 * * *", "2026-10-24 12:00", ["2026-10-25 05:00", "2026-10-26 05:00"]),
            (NEW_YORK, "0 6 * * *", "2026-03-06 12:00", ["2026-03-07 11:00", "2026-03-08 10:00"]),
        ],
    )
    def test_each_day_has_its_tick_once(self, zone, cron, moment, expected):
        assert after(cron, moment, 2, zone) == [f"{each}:00" for each in expected]

    @pytest.mark.parametrize("zone", [BERLIN, NEW_YORK])
    @pytest.mark.parametrize("cron", ["30 2 * * *", "30 1 * * *", "15 3 * * *"])
    def test_a_year_has_365_daily_ticks_wherever_one_begins_to_look(self, zone, cron):
        begin, end = utc("2026-01-01 12:00"), utc("2027-01-01 12:00")
        moment, found = begin, []
        while moment < end:
            moment = next(Ticks(cron, None, zone).after(moment))
            found.append(moment)
        assert len([tick for tick in found if tick < end]) == 365
        # The same ones from the end.
        kept, more = Ticks(cron, None, zone).missed(found[0], found[-1], 1_000)
        assert (kept, more) == (found, False)

    def test_what_was_missed_is_found_from_within_the_hour_that_comes_twice(self):
        ticks = Ticks("30 2 * * *", None, BERLIN)
        kept, _ = ticks.missed(utc("2026-10-24 00:30"), utc("2026-10-25 01:10"), 10)
        assert kept == [utc("2026-10-24 00:30"), utc("2026-10-25 00:30")]


class TestDays:
    def test_29_february_comes_every_four_years(self):
        assert after("0 0 29 2 *", "2026-01-01 00:00", 2) == [
            "2028-02-29 00:00:00",
            "2032-02-29 00:00:00",
        ]

    @pytest.mark.parametrize("cron", ["0 0 30 2 *", "0 0 31 4,6 *", "0 0 31 2 *"])
    def test_a_day_that_no_month_has_is_refused(self, cron):
        with pytest.raises(InvalidOption, match="no month has"):
            check_cron(cron)

    @pytest.mark.parametrize(
        "cron", ["", "* * * *", "0 * * * * *", "60 * * * *", "* 24 * * *", "a b c d e", 5, "@daily"]
    )
    def test_what_is_no_expression_of_five_fields_is_refused(self, cron):
        with pytest.raises(InvalidOption, match="cron"):
            check_cron(cron)

    def test_spaces_do_not_matter(self):
        assert check_cron("  0   6 * * mon-fri ") == "0 6 * * mon-fri"


class TestIntervals:
    def test_each_tick_is_an_interval_after_the_last(self):
        assert after("", "2026-03-29 00:00", 2, BERLIN, 90.0) == [
            "2026-03-29 00:01:30",
            "2026-03-29 00:03:00",
        ]

    @pytest.mark.parametrize(
        ("every", "seconds"),
        [(1, 1), (0.5 + 1, 1.5), (datetime.timedelta(days=1), 86_400), (31_622_400, 31_622_400)],
    )
    def test_from_a_second_to_a_year(self, every, seconds):
        assert check_every(every) == seconds

    @pytest.mark.parametrize("every", [0, 0.99, -1, 31_622_401, float("nan"), "60", True])
    def test_less_or_more_is_refused(self, every):
        with pytest.raises(InvalidOption, match=r"every=.*31,622,400"):
            check_every(every)


class TestMissed:
    def test_of_many_the_last_ones_are_kept(self):
        ticks = Ticks("* * * * *", None, "UTC")
        kept, more = ticks.missed(utc("2026-01-01 00:00"), utc("2026-12-31 23:59:30"), 3)
        assert [f"{tick:%H:%M}" for tick in kept] == ["23:57", "23:58", "23:59"]
        assert more

    def test_of_many_intervals_the_last_ones_are_kept(self):
        ticks = Ticks("", 10.0, "UTC")
        kept, more = ticks.missed(utc("2026-01-01 00:00"), utc("2026-01-01 01:00:05"), 2)
        assert [f"{tick:%H:%M:%S}" for tick in kept] == ["00:59:50", "01:00:00"]
        assert more

    @pytest.mark.parametrize(("cron", "every"), [("* * * * *", None), ("", 60.0)])
    def test_one_that_is_due_now_is_kept(self, cron, every):
        moment = utc("2026-01-01 00:00")
        assert Ticks(cron, every, "UTC").missed(moment, moment, 10) == ([moment], False)


def test_one_of_both_is_needed_and_a_known_time_zone():
    for cron, every in [(None, None), ("* * * * *", 5)]:
        with pytest.raises(InvalidOption, match="not both"):
            check_ticks(cron, every, "UTC")
    for zone in ["Mars/Olympus", "", "../etc/passwd", None, 5]:
        with pytest.raises(InvalidOption, match="time_zone"):
            check_ticks("* * * * *", None, zone)


def test_it_is_said_in_words():
    assert in_words(Ticks("0 6 * * MON-FRI", None, BERLIN)) == (
        "At 06:00 on Monday through Friday (Europe/Berlin)"
    )
    assert in_words(Ticks("", 90.0, "UTC")) == "Every 0:01:30"


def test_the_next_runs_are_in_the_schedules_time_zone():
    runs = upcoming(Ticks("0 6 * * *", None, BERLIN), utc("2026-07-01 00:00"), 2)
    assert [run.isoformat() for run in runs] == [
        "2026-07-01T06:00:00+02:00",
        "2026-07-02T06:00:00+02:00",
    ]
