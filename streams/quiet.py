"""Quiet hours, as a reader evaluates them: between two times of day where the person is."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import lru_cache
from importlib.resources import files
from zoneinfo import ZoneInfo

import msgspec

from governor.zones import known

__all__ = ["Quiet", "quiet_until"]

_SECOND = timedelta(seconds=1)


class Quiet(msgspec.Struct, frozen=True):
    """Hours in which ads that match rest; where `begin` is after `end`, over midnight."""

    name: str
    begin: str = msgspec.field(name="from")
    end: str = msgspec.field(name="to")
    match: dict[str, list[str]] = {}


def quiet_until(hours: Quiet, at: float, zone: str, default: str) -> float | None:
    """When the quiet hours end that hold at ``at``, in epoch seconds; None when none do.

    Args:
        hours: when it is quiet.
        at: epoch seconds.
        zone: IANA name; the default's hours hold where it is unknown or empty.
        default: IANA name of the policy's zone.
    """
    place = _zone(zone) or _zone(default) or UTC
    local = datetime.fromtimestamp(at, place)
    begin, end = time.fromisoformat(hours.begin), time.fromisoformat(hours.end)
    now = local.time()
    if begin <= end:
        if not begin <= now < end:
            return None
        day = local.date()
    else:
        if end <= now < begin:
            return None
        day = local.date() + timedelta(days=now >= begin)
    return _instant(datetime.combine(day, end), place)


def _instant(local: datetime, place: tzinfo) -> float:
    """The first valid instant at or after a local time, the earlier one where it comes twice."""
    found = local.replace(tzinfo=place).astimezone(UTC)
    if found.astimezone(place).replace(tzinfo=None) == local:
        return found.timestamp()
    # Clocks skip it: its instant by the offset before the gap lies after the gap's beginning.
    low, high = local.replace(tzinfo=place, fold=1).astimezone(UTC), found
    after = high.astimezone(place).utcoffset()
    while high - low > _SECOND:
        middle = low + (high - low) // 2
        if middle.astimezone(place).utcoffset() == after:
            high = middle
        else:
            low = middle
    return float(round(high.timestamp()))


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo | None:
    """A zone of the pinned package, never of the system, whose data may be another year's."""
    if not known(name):
        return None
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)
