"""Durations as text: ``60s``, ``12h``, ``1d``."""

from __future__ import annotations

import re
from typing import Final

from governor.policy.mistakes import shown

__all__ = ["DAY", "MINUTE", "SECOND", "UNITS", "duration", "written"]

UNITS: Final = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
"""Ticks by unit."""

SECOND: Final = UNITS["s"]
MINUTE: Final = UNITS["m"]
DAY: Final = UNITS["d"]


def duration(value: object) -> int:
    """The ticks of a text such as ``60s``, ``1.5h`` or ``2w``; exact, never negative.

    Raises ``ValueError`` with a message that begins with the value and names the remedy.
    """
    said = shown(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{said} is not a duration: write one such as 60s, 12h or 1d")
    text = str(value).strip()
    if text.startswith("-"):
        raise ValueError(f"{said} is negative: write a duration such as 60s, 12h or 1d")
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        choices = f"{text}s, {text}m, {text}h, {text}d or {text}w"
        raise ValueError(f"{said} has no unit: write {choices}")
    match = re.fullmatch(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?(ms|[smhdw])", text)
    if match is None or text != value:
        likely = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *(ms|[smhdw])[a-z]*", text.lower())
        example = "".join(likely.groups()) if likely else "60s, 12h or 1d"
        raise ValueError(
            f"{said} is not a duration: write a number and one unit (ms, s, m, h, d or w) "
            f"without a space, such as {example}"
        )
    whole, fraction, unit = match[1], match[2] or "", match[3]
    scale: int = 10 ** len(fraction)
    ticks, rest = divmod(int(whole + fraction) * UNITS[unit], scale)
    if rest:
        raise ValueError(f"{said} is finer than a microsecond: write fewer decimals")
    return ticks


def written(ticks: int) -> str:
    """``ticks`` as the shortest duration text that ``duration`` reads back as the same."""
    for unit in ("d", "h", "m", "s", "ms"):
        if ticks % UNITS[unit] == 0 and (ticks or unit == "s"):
            return f"{ticks // UNITS[unit]}{unit}"
    return f"{ticks // 1000}.{ticks % 1000:03}".rstrip("0") + "ms"
