"""Days, ISO weeks and months by their definition, found by looking at the clock."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from governor.oracle.events import SECOND

__all__ = ["period"]


def period(zone: str, calendar: str, now: int) -> tuple[int, int]:
    """The period that holds ``now``: its first tick, and that of the next one."""
    day = datetime.fromtimestamp(now // SECOND, _clock(zone)).date()
    # Where a clock is set back over midnight, a day that has begun may still show the day before.
    while _begins(zone, day + timedelta(1)) <= now:
        day += timedelta(1)
    first = day
    if calendar == "week":
        first = day - timedelta(day.weekday())
    if calendar == "month":
        first = day.replace(day=1)
    following = {
        "day": first + timedelta(1),
        "week": first + timedelta(7),
        "month": (first + timedelta(31)).replace(day=1),
    }[calendar]
    return _begins(zone, first), _begins(zone, following)


@cache
def _begins(zone: str, day: date) -> int:
    """The first instant whose local date is that day, or later where there is no such instant.

    Clocks are set by whole minutes, so it is enough to look at every minute.
    """
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    at = int(midnight.timestamp()) - 27 * 3600
    while datetime.fromtimestamp(at, _clock(zone)).date() < day:
        at += 60
    return at * SECOND


@cache
def _clock(zone: str) -> ZoneInfo:
    with (files("tzdata") / "zoneinfo").joinpath(*zone.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=zone)
