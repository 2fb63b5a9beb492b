"""Which exposures were answered, by definition."""

from __future__ import annotations

from governor.oracle.events import Entry
from governor.oracle.rows import Row, matches
from governor.policy import Policy

__all__ = ["answers", "settled", "window"]

DAY = 86_400_000_000
KNOWN = ("click", "dwell", "visit", "conversion")
NEGATIVE = ("hide", "complaint")


def window(exposure: Entry, kind: str, policy: Policy) -> int:
    """How long after an exposure an engagement of a type still answers it, in ticks."""
    if kind in NEGATIVE:
        return 0
    for item in policy.attribution:
        if matches(item.match, exposure.labels) and (not item.type or kind in item.type):
            return item.window
    return DAY


def answers(row: Row, policy: Policy) -> dict[Entry, int]:
    """When each exposure that counts was first answered; those that were not are left out."""
    first: dict[Entry, int] = {}
    for e in (each for each in row.engaged if each.type not in NEGATIVE):
        exposure = _answered(e, row, policy)
        if exposure is not None:
            first[exposure] = min(e.ts, first.get(exposure, e.ts))
    return first


def _answered(e: Entry, row: Row, policy: Policy) -> Entry | None:
    """The exposure that an engagement answers: the one it names, else the last touch."""
    named = [x for x in row.shown if x.impression_id and x.impression_id == e.impression_id]
    if named:
        return named[0] if e.ts - named[0].ts < window(named[0], e.type, policy) else None
    for x in row.shown:
        agree = e.labels and all(x.labels.get(key) == value for key, value in e.labels.items())
        if agree and 0 <= e.ts - x.ts < window(x, e.type, policy):
            return x
    return None


def settled(exposure: Entry, policy: Policy, at: int) -> bool:
    """Whether it is known by a time what became of an exposure: no window of it is open."""
    custom = [kind for item in policy.attribution for kind in item.type]
    return all(exposure.ts + window(exposure, kind, policy) <= at for kind in (*KNOWN, "", *custom))
