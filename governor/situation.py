"""What holds of a whole row at its newest event, before any rule is asked.

Whose row it is, in which zone, whether consent was refused, where in the lifecycle the person
stands, in which arm of an experiment, and so which rules are asked at all.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled, inlined, integer
from governor.entries import (
    COMPLAINT,
    CONVERSION,
    ENGAGEMENT,
    GRANT,
    HIDDEN,
    REFUSAL,
    ZONE,
    ad_of,
    fact_of,
    facts_from,
    kind_of,
    newest_of,
    shadowed,
    ticks_of,
    type_of,
)
from governor.rows import Rows, id_size, id_start, length_of, run_of
from governor.rules import ByRule, RuleArrays, Scalar
from governor.scopes import Ads, Col
from governor.scratch import Row, ScratchArrays
from governor.siphash import siphash

__all__ = ["FOREVER", "HOLDOUT", "UNGOVERNED", "id_type_of", "look", "period_of", "refused_at"]

FOREVER = 1 << 62
"""Later than every time, in ticks."""

PROSPECT, ENGAGED, CUSTOMER, LAPSED = 0, 1, 2, 3
HOLDOUT, UNGOVERNED = 1, 2
"""Arms: soft rules do not act; no rule acts."""

BUCKETS = 10_000


_NOW, _BARE, _LENGTH, _TYPE, _ZONE = Row.NOW, Row.BARE, Row.LENGTH, Row.TYPE, Row.ZONE
_REFUSED, _REFUSED_AT, _STATE, _STATE_END = Row.REFUSED, Row.REFUSED_AT, Row.STATE, Row.STATE_END
_NEXT_STATE, _ARM, _ALLOWED = Row.NEXT_STATE, Row.ARM, Row.ALLOWED
_REQUIRED, _LIFECYCLE, _RULES = Scalar.REQUIRED, Scalar.LIFECYCLE, Scalar.RULES
_CUSTOMER_FOR, _ENGAGED_FOR = Scalar.CUSTOMER, Scalar.ENGAGED
_HOLDOUT_BUCKETS, _UNGOVERNED_BUCKETS = Scalar.HOLDOUT, Scalar.UNGOVERNED
_HOLDOUT_TYPE = Scalar.HOLDOUT_TYPE
_STATES, _SOFT = ByRule.STATES, ByRule.SOFT
_AD_ZONE = Col.ZONE
_BUCKETS = np.uint64(BUCKETS)


@inlined
def look(table: Rows, row: int, rules: RuleArrays, ads: Ads, scratch: ScratchArrays) -> None:
    """Fill ``scratch.row`` in for a row that is not empty."""
    length = length_of(table.header[row, 0])
    entry = table.arena[run_of(table.header[row, 0]) :]
    it = scratch.row
    it[_LENGTH] = length
    it[_BARE] = facts_from(entry, length)
    it[_NOW] = newest_of(entry, length)
    it[_ZONE] = 0
    at = fact_of(entry, length, ZONE)
    if at >= 0 and ads.ad[ad_of(entry[at, 2]), _AD_ZONE] >= 0:
        it[_ZONE] = ads.ad[ad_of(entry[at, 2]), _AD_ZONE]
    it[_REFUSED_AT] = refused_at(entry, length, rules.scalars[_REQUIRED])
    it[_REFUSED] = it[_REFUSED_AT] >= -1
    start, size = id_start(table.header[row, 1]), id_size(table.header[row, 1])
    it[_TYPE] = id_type_of(table.ids, start, size, rules)
    it[_ALLOWED] = -1
    it[_ARM] = 0
    if rules.scalars[_UNGOVERNED_BUCKETS] > 0 and it[_TYPE] == rules.scalars[_HOLDOUT_TYPE]:
        it[_ARM] = _arm(table.ids, start, size, rules)
    if rules.scalars[_LIFECYCLE]:
        _stand(entry, rules, it)
    if it[_ARM] > 0 or rules.scalars[_LIFECYCLE]:
        it[_ALLOWED] = 0
        for number in range(rules.scalars[_RULES]):
            held_out = it[_ARM] == UNGOVERNED or (it[_ARM] == HOLDOUT and rules.rule[number, _SOFT])
            stands = not rules.scalars[_LIFECYCLE] or rules.rule[number, _STATES] >> it[_STATE] & 1
            if stands and not held_out:
                it[_ALLOWED] |= 1 << number


@compiled
def refused_at(entry: NDArray[np.uint64], length: int, required: int) -> int:
    """When consent was refused, if it is: -1 for never granted where it must be, -2 if not."""
    refusal, grant = fact_of(entry, length, REFUSAL), fact_of(entry, length, GRANT)
    if refusal < 0:
        return -1 if grant < 0 and required else -2
    if grant >= 0:
        later = ticks_of(entry[grant, 0]) - ticks_of(entry[refusal, 0])
        if later > 0 or (later == 0 and entry[grant, 1] > entry[refusal, 1]):
            return -2
    return ticks_of(entry[refusal, 0])


@compiled
def id_type_of(ids: NDArray[np.uint8], start: int, size: int, rules: RuleArrays) -> int:
    """The index of the id's type; that of types without rules where none speaks of it."""
    end = 0
    while end < size and ids[start + end] != 0:
        end += 1
    if end == size:
        return 0
    types = len(rules.type_start) - 1
    for kind in range(types):
        first = rules.type_start[kind]
        if rules.type_start[kind + 1] - first == end:
            same = True
            for i in range(end):
                if rules.type_text[first + i] != ids[start + i]:
                    same = False
            if same:
                return kind
    return types


@compiled
def _arm(ids: NDArray[np.uint8], start: int, size: int, rules: RuleArrays) -> int:
    """HOLDOUT, UNGOVERNED or 0, by a hash of the id's value."""
    value = start
    for i in range(size):
        if ids[start + i] == 0:
            value = start + i + 1
    hashed = siphash(rules.salt[0], rules.salt[1], ids, value, start + size - value)
    bucket = integer(hashed % _BUCKETS)
    if bucket < rules.scalars[_HOLDOUT_BUCKETS]:
        return HOLDOUT
    return UNGOVERNED if bucket < rules.scalars[_UNGOVERNED_BUCKETS] else 0


@compiled
def _stand(entry: NDArray[np.uint64], rules: RuleArrays, it: NDArray[np.int64]) -> None:
    """Where in the lifecycle the person stands, until when without a new event, and what then."""
    now = it[_NOW]
    converted, engaged = -1, -1
    for i in range(it[_BARE]):
        if kind_of(entry[i, 0]) != ENGAGEMENT or shadowed(entry[i, 0]):
            continue
        kind = type_of(entry[i, 0])
        if kind == CONVERSION:
            converted = max(converted, ticks_of(entry[i, 0]))
        if kind != HIDDEN and kind != COMPLAINT:
            engaged = max(engaged, ticks_of(entry[i, 0]))
    it[_STATE], it[_STATE_END], it[_NEXT_STATE] = PROSPECT, FOREVER, PROSPECT
    if converted >= 0:
        it[_STATE] = LAPSED
        if converted > now - rules.scalars[_CUSTOMER_FOR]:
            it[_STATE], it[_NEXT_STATE] = CUSTOMER, LAPSED
            it[_STATE_END] = converted + rules.scalars[_CUSTOMER_FOR]
    elif engaged > now - rules.scalars[_ENGAGED_FOR] and engaged >= 0:
        it[_STATE], it[_STATE_END] = ENGAGED, engaged + rules.scalars[_ENGAGED_FOR]


@compiled
def period_of(ads: Ads, scratch: ScratchArrays, calendar: int) -> None:
    """Have ``scratch.period[calendar - 1]`` hold the period of the row's zone that holds now."""
    zone, now = scratch.row[_ZONE], scratch.row[_NOW]
    last = scratch.period[calendar - 1]
    if last[0] == zone and last[1] <= now < last[2]:
        return
    first, end = ads.period_start[zone, calendar - 1], ads.period_start[zone, calendar]
    after = first + np.searchsorted(ads.period[first:end], now, side="right")
    last[0], last[1], last[2] = zone, ads.period[after - 1], ads.period[after]
