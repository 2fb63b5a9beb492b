"""Quiet hours, as a reader evaluates them: between two times of day where the person is."""

from __future__ import annotations

import math
from datetime import UTC, datetime, time, tzinfo
from functools import lru_cache
from importlib.resources import files
from zoneinfo import ZoneInfo

import msgspec

from governor.zones import known

__all__ = ["Quiet", "quiet_until"]

_DAY = 86_400


class Quiet(msgspec.Struct, frozen=True):
    """Hours in which ads that match rest; where `begin` is after `end`, over midnight."""

    name: str
    begin: str = msgspec.field(name="from")
    end: str = msgspec.field(name="to")
    match: dict[str, list[str]] = {}


def quiet_until(hours: Quiet, at: float, zone: str, default: str) -> float | None:
    """When the quiet hours end that hold at ``at``, in epoch seconds; None when none do.

    They hold while the person's clock shows a time between the two, also where it is set back and
    shows it twice; a clock that is set ends them where it leaves or skips what is left of them.

    Args:
        hours: when it is quiet.
        at: epoch seconds.
        zone: IANA name; the default's hours hold where it is unknown or empty.
        default: IANA name of the policy's zone.
    """
    place = _zone(zone) or _zone(default) or UTC
    begin, end = (_seconds(time.fromisoformat(each)) for each in (hours.begin, hours.end))
    offset = _offset(at, place)
    now = (at + offset) % _DAY
    if not (begin <= now < end if begin <= end else now >= begin or now < end):
        return None
    midnight = (at + offset) // _DAY * _DAY
    until = midnight + end + (_DAY if end <= now else 0) - offset
    if _offset(until, place) == offset:
        return until
    change = _change(math.floor(at), math.ceil(until), place)
    return quiet_until(hours, change, zone, default) or change


def _seconds(of_day: time) -> int:
    return of_day.hour * 3600 + of_day.minute * 60


def _offset(at: float, place: tzinfo) -> int:
    """How far a zone's clocks are ahead of UTC at a time, in seconds."""
    offset = datetime.fromtimestamp(at, place).utcoffset()
    return 0 if offset is None else round(offset.total_seconds())


def _change(low: int, high: int, place: tzinfo) -> float:
    """When a zone's clocks are set, between two times of which the later has another offset."""
    before = _offset(low, place)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(middle, place) == before else (low, middle)
    return float(high)


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo | None:
    """A zone of the pinned package, never of the system, whose data may be another year's."""
    if not known(name):
        return None
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)
