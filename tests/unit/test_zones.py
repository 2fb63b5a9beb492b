"""When days, weeks and months begin, where clocks are set and at what hour."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest

from governor import zones
from governor.oracle.calendars import period as slow_period
from governor.zones import Calendar, boundaries, period

SECOND = 1_000_000


def at(text: str) -> int:
    """The tick of a time of day in UTC, such as ``2025-03-30 00:59:59``."""
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * SECOND)


def written(tick: int) -> str:
    """To the minute."""
    return f"{datetime.fromtimestamp(tick / SECOND, UTC):%Y-%m-%d %H:%M}"


@pytest.mark.parametrize(
    ("zone", "calendar", "now", "begins", "ends"),
    [
        ("UTC", "day", "2025-06-15 12:00", "2025-06-15 00:00", "2025-06-16 00:00"),
        # Berlin sets its clocks at night: a day of 23 hours, and one of 25.
        ("Europe/Berlin", "day", "2025-03-30 12:00", "2025-03-29 23:00", "2025-03-30 22:00"),
        ("Europe/Berlin", "day", "2025-10-26 12:00", "2025-10-25 22:00", "2025-10-26 23:00"),
        # In Sao Paulo there was no midnight on 4 November 2018: the day began at one.
        ("America/Sao_Paulo", "day", "2018-11-04 12:00", "2018-11-04 03:00", "2018-11-05 02:00"),
        # In Havana midnight comes twice on 2 November 2025: the day begins at the earlier one.
        ("America/Havana", "day", "2025-11-02 12:00", "2025-11-02 04:00", "2025-11-03 05:00"),
        # Samoa had no 30 December 2011: the 29th was followed by the 31st.
        ("Pacific/Apia", "day", "2011-12-30 09:00", "2011-12-29 10:00", "2011-12-30 10:00"),
        ("Pacific/Apia", "day", "2011-12-30 10:00", "2011-12-30 10:00", "2011-12-31 10:00"),
        # Half an hour, and offsets that are no whole hours.
        ("Australia/Lord_Howe", "day", "2025-10-05 00:00", "2025-10-04 13:30", "2025-10-05 13:00"),
        ("Asia/Kathmandu", "day", "2025-06-15 18:14", "2025-06-14 18:15", "2025-06-15 18:15"),
        # ISO weeks begin on Monday, also over the turn of the year.
        ("Europe/Berlin", "week", "2025-01-01 12:00", "2024-12-29 23:00", "2025-01-05 23:00"),
        ("Europe/Berlin", "week", "2025-03-30 12:00", "2025-03-23 23:00", "2025-03-30 22:00"),
        ("Europe/Berlin", "month", "2025-03-31 21:59", "2025-02-28 23:00", "2025-03-31 22:00"),
        ("America/New_York", "month", "2024-02-29 12:00", "2024-02-01 05:00", "2024-03-01 05:00"),
    ],
)  # fmt: skip
def test_periods(zone: str, calendar: Calendar, now: str, begins: str, ends: str) -> None:
    found = period(zone, calendar, at(now))
    assert [written(each) for each in found] == [begins, ends]


def test_a_period_holds_its_first_tick_and_not_its_last() -> None:
    first, end = period("Europe/Berlin", "day", at("2025-06-15 12:00"))
    assert period("Europe/Berlin", "day", first) == (first, end)
    assert period("Europe/Berlin", "day", end - 1) == (first, end)
    assert period("Europe/Berlin", "day", end)[0] == end
    assert period("Europe/Berlin", "day", first - 1)[1] == first


@pytest.mark.parametrize(
    "zone",
    [
        "Europe/Berlin", "America/New_York", "America/Havana", "America/Sao_Paulo", "Asia/Beirut",
        "Africa/Cairo", "Africa/Casablanca", "Pacific/Apia", "Asia/Kathmandu", "Asia/Gaza",
        "Australia/Lord_Howe", "Antarctica/Troll", "America/Scoresbysund", "Pacific/Kwajalein",
    ],
)  # fmt: skip
def test_periods_are_what_looking_at_the_clock_minute_by_minute_gives(zone: str) -> None:
    chance = np.random.default_rng(5)
    first, last = at("1985-01-01 00:00"), at("2060-01-01 00:00")
    for now in chance.integers(first, last, 5).tolist():
        for calendar in ("day", "week", "month"):
            assert period(zone, calendar, now) == slow_period(zone, calendar, now), now
    for begins in boundaries(zone, "day")[14_000:14_050].tolist():
        assert period(zone, "day", begins) == slow_period(zone, "day", begins), begins


def test_every_zone_has_days_of_about_a_day() -> None:
    hour = 3600 * SECOND
    for zone in ("Europe/London", "America/Los_Angeles", "Asia/Tokyo", "Asia/Tehran"):
        days = np.diff(boundaries(zone, "day"))
        assert days.min() >= 22 * hour
        assert days.max() <= 26 * hour


def test_weeks_and_months_begin_with_one_of_their_days() -> None:
    days = set(boundaries("Europe/Berlin", "day").tolist())
    for calendar in ("week", "month"):
        begins = boundaries("Europe/Berlin", calendar).tolist()
        assert set(begins) <= days
        assert all(a < b for a, b in pairwise(begins))


def test_the_systems_time_zones_are_never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    before = zoneinfo.TZPATH
    zones.boundaries.cache_clear()
    monkeypatch.setattr(zoneinfo, "ZoneInfo", None)
    start, end = period("Asia/Tokyo", "day", at("2025-06-15 12:00"))
    assert end - start == timedelta(days=1) / timedelta(microseconds=1)
    assert before == zoneinfo.TZPATH


@pytest.mark.parametrize(
    ("word", "zone"),
    [
        ("europe/berlin", "Europe/Berlin"),
        ("Berlin", "Europe/Berlin"),
        ("new york", "America/New_York"),
        ("America/NewYork", "America/New_York"),
        ("nothing like it at all", None),
    ],
)
def test_what_was_probably_meant(word: str, zone: str | None) -> None:
    assert not zones.known(word)
    assert zones.nearest(word) == zone
