"""Times in words, in UTC: dates, or of simulated people, whose clock begins at 0, days."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

__all__ = ["named"]

_DAY: Final = 86_400.0
_COUNTED: Final = 365 * _DAY
"""Before 1971 no ad was shown on a network: such times are of simulated people."""


def named(at: float, form: str) -> str:
    """A time (epoch seconds) as ``form`` (of `datetime.strftime`) says a date, or as ``day 3``,
    with the time of day where ``form`` has it."""
    told = datetime.fromtimestamp(at, UTC)
    if not 0 <= at < _COUNTED:
        return told.strftime(form)
    clock = f" {told:%H:%M}" if "%H" in form else ""
    return f"day {int(at // _DAY) + 1}{clock}" if "%d" in form else told.strftime(form)
