"""Event time: whole microseconds since the epoch, so that windows add up exactly.

JSON carries epoch seconds, with any number of decimals; an event's time is the tick nearest to
what is written. A float of today's epoch seconds resolves a quarter of a microsecond, so it tells
as long as there are at most six decimals; beyond that the text does (`governor.events`).
"""

from __future__ import annotations

__all__ = ["SECOND", "from_seconds", "seconds_text", "to_seconds"]

SECOND = 1_000_000
"""Ticks in one second."""


def from_seconds(seconds: float) -> int:
    """The nearest tick."""
    return round(seconds * SECOND)


def to_seconds(ticks: int) -> int | float:
    """Seconds, an ``int`` when they are whole."""
    whole, rest = divmod(ticks, SECOND)
    return whole if rest == 0 else ticks / SECOND


def seconds_text(ticks: int) -> str:
    """Seconds as the decision record writes them: up to six decimals, none needless."""
    whole, rest = divmod(ticks, SECOND)
    return str(whole) if rest == 0 else f"{whole}.{rest:06d}".rstrip("0")
