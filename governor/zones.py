"""Days, ISO weeks and months of the IANA time zones, as instants.

A period begins at the first instant whose local date is its first day: at local midnight, at the
first instant after it where a clock that is set forward skips midnight, and at the earlier one
where midnight comes twice. The data is that of the ``tzdata`` package, whose version is pinned,
and never the system's: two workers must not disagree about when a day began.
"""

from __future__ import annotations

from datetime import date, datetime
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final, Literal
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from governor.ticks import SECOND

__all__ = ["Calendar", "boundaries", "known", "nearest", "period"]

Calendar = Literal["day", "week", "month"]

_DAY: Final = 86_400
_FIRST: Final = date(1970, 1, 1).toordinal() - 32
_LAST: Final = date(2112, 3, 1).toordinal()
"""Beyond the longest period before and after every time that an entry can have."""

_EPOCH: Final = date(1970, 1, 1).toordinal()
_STEP: Final = 7 * _DAY
"""Offsets are looked at every week: no zone has moved and come back between two looks."""


@cache
def names() -> frozenset[str]:
    """All time zones that there are."""
    return frozenset((files("tzdata") / "zones").read_text("utf-8").split())


def known(zone: str) -> bool:
    """Whether this is the name of a time zone."""
    return zone in names()


def nearest(zone: str) -> str | None:
    """The name that was probably meant, if any looks like it."""
    by_lower = {name.lower(): name for name in sorted(names())}
    by_lower |= {name.lower().rpartition("/")[2]: name for name in sorted(names())} | by_lower
    likely = get_close_matches(zone[:64].lower().replace(" ", "_"), by_lower, 1, 0.75)
    return by_lower[likely[0]] if likely else None


@lru_cache(maxsize=2048)
def boundaries(zone: str, calendar: Calendar) -> NDArray[np.int64]:
    """When each period of a zone begins, in ticks, in order; from 1970 to 2112.

    A day that a zone skipped altogether begins when the next one does.
    """
    days: NDArray[np.int64] = _days(zone)
    dates = range(_FIRST, _LAST)
    if calendar == "day":
        return days
    if calendar == "week":
        first = next(i for i, each in enumerate(dates) if date.fromordinal(each).weekday() == 0)
        weeks: NDArray[np.int64] = days[first::7]
        return weeks
    begins = [i for i, each in enumerate(dates) if date.fromordinal(each).day == 1]
    months: NDArray[np.int64] = days[np.array(begins)]
    return months


def period(zone: str, calendar: Calendar, now: int) -> tuple[int, int]:
    """The period that holds the instant ``now``: its first tick, and that of the next one."""
    begins = boundaries(zone, calendar)
    after = int(np.searchsorted(begins, now, side="right"))
    return int(begins[after - 1]), int(begins[after])


@lru_cache(maxsize=1024)
def _days(zone: str) -> NDArray[np.int64]:
    ends, offsets = _offsets(zone)
    midnight = (np.arange(_FIRST, _LAST, dtype=np.int64) - _EPOCH) * _DAY
    # A clock shows midnight, or more than it, for the first time in the first stretch between two
    # changes at whose end it has passed midnight: at midnight itself, or as the stretch begins.
    passed = np.maximum.accumulate(ends + offsets)
    stretch = np.searchsorted(passed, midnight, side="right")
    starts = np.concatenate(([np.iinfo(np.int64).min // 2], ends[:-1]))
    begins: NDArray[np.int64] = np.maximum(midnight - offsets[stretch], starts[stretch]) * SECOND
    begins.setflags(write=False)
    return begins


def _offsets(zone: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stretches of one offset from UTC: when each ends, and the offset; in seconds."""
    with (files("tzdata") / "zoneinfo").joinpath(*zone.split("/")).open("rb") as data:
        clock = ZoneInfo.from_file(data, key=zone)

    def offset(at: int) -> int:
        local = datetime.fromtimestamp(at, clock).utcoffset()
        assert local is not None
        return local.days * _DAY + local.seconds

    ends, offsets = [], []
    at = (_FIRST - _EPOCH - 2) * _DAY
    last = (_LAST - _EPOCH + 2) * _DAY
    before = offset(at)
    while at < last:
        after = offset(at + _STEP)
        while before != after:
            same, changed = at, at + _STEP
            while changed - same > 1:
                middle = (same + changed) // 2
                if offset(middle) == before:
                    same = middle
                else:
                    changed = middle
            ends.append(changed)
            offsets.append(before)
            at, before = changed, offset(changed)
            if at + _STEP > last:
                break
            after = offset(at + _STEP)
        at += _STEP
    return np.array([*ends, np.iinfo(np.int64).max // 2]), np.array([*offsets, before])
