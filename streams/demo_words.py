"""How the demo says things: in people's words, times in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

from governor.policy import Cap, Spacing
from governor.ticks import SECOND
from streams.demo_tally import Episode

__all__ = ["again", "clock", "days_between", "limit", "moment", "percent", "sentence", "span"]

_UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


def span(seconds: float) -> str:
    """``9 hours``: as much as matters, in the largest unit that counts at least two, or one."""
    for unit, size in _UNITS:
        if seconds >= 2 * size or seconds == size:
            count = round(seconds / size)
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    return "a moment"


def days_between(first: float, last: float) -> int:
    """Days of the calendar from one time to another, both included."""
    return int(last // 86400) - int(first // 86400) + 1


def clock(seconds: float) -> str:
    """``25 Feb 14:20``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%d %b %H:%M}".lstrip("0")


def moment(seconds: float) -> str:
    """``Sat 25 Feb 2023 14:20 UTC``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%a %d %b %Y %H:%M} UTC"


def percent(ratio: float) -> str:
    """``4.5%``."""
    return f"{100 * ratio:.1f}%"


def again(count: int) -> str:
    """``7th``."""
    last = "th" if count // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{count}{last}"


def limit(rule: Cap | Spacing) -> str:
    """``3 a day``, ``100 an hour``, ``5 in 3 days``; of a spacing ``1 in 2 minutes``."""
    window = span(rule.window / SECOND)
    count, _, unit = window.partition(" ")
    if count != "1":
        return f"{rule.limit} in {window}"
    return f"{rule.limit} {'an' if unit == 'hour' else 'a'} {unit}"


def sentence(episode: Episode) -> str:
    """One example, as one would tell it."""
    what = f"{episode.shown} articles"
    if episode.label != "user":
        what = f"article {episode.label.partition(':')[2]} {episode.shown} times"
    return (
        f"user {episode.user} saw {what} in {span(episode.last - episode.first)}; "
        f"the cap of {limit(episode.rule)} was reached on {clock(episode.reached)}; "
        f"free again on {clock(episode.until)}."
    )
