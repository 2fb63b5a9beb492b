"""A look at all rows of a partition, for metrics: who is held back, who is near a limit, and how
the rows lie in memory.

Headers are read of every row; entries only of some rows spread over all of them, as that costs a
microsecond a row and more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled, integer
from governor.entries import EXPOSURE, ad_of, kind_of, shadowed, ticks_of
from governor.evaluation import HOLDS
from governor.reactions import mark_seen
from governor.rows import CAPACITIES, USED, Rows, State, class_of, flags_of, length_of, run_of
from governor.rules import Ordered, RuleArrays, Span
from governor.scopes import Ads, Col
from governor.scratch import Row, ScratchArrays, Slot
from governor.situation import look

__all__ = ["Survey", "survey"]

_ROWS, _USERS, _NEWEST = State.ROWS, State.USERS, State.NEWEST
_ROUND, _WEIGHT = Slot.ROUND, Slot.WEIGHT
_THRESHOLD, _WINDOW, _CALENDAR = Ordered.THRESHOLD, Ordered.WINDOW, Ordered.CALENDAR
_SPACING, _NUMBER = Ordered.SPACING, Ordered.NUMBER
_COUNTED, _VIEWED, _COUNTING_END = Span.COUNTED, Span.VIEWED, Span.IGNORED
_AD_WEIGHT, _SLOTS = Col.WEIGHT, Col.SLOTS
_BARE, _TYPE, _ALLOWED = Row.BARE, Row.TYPE, Row.ALLOWED
_HOLDS = np.uint64(HOLDS)
_USED = USED
_ONE_EXPOSURE = 100
_SEEN = 1
_NOTHING = np.uint64(0)


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found."""

    held_back: int
    """Rows whose decision, as last taken, holds something back at the partition's newest event."""
    held_back_entries: int
    """Entries of these rows."""
    near: int
    """Rows among those examined of which one more exposure reaches a rolling cap."""
    examined: int
    rows: NDArray[np.int64]
    """By size class, in the order of `CAPACITIES`."""


def survey(table: Rows, rules: RuleArrays, ads: Ads, scratch: ScratchArrays, limit: int) -> Survey:
    """Look at all rows, and at the entries of ``limit`` of them; changes nothing."""
    by_class = np.zeros(len(CAPACITIES), np.int64)
    users = max(1, int(table.state[_USERS]))
    step = max(1, -(-users // max(1, limit)))
    held, entries, near, examined = _look_at_all(table, rules, ads, scratch, step, by_class)
    return Survey(int(held), int(entries), int(near), int(examined), by_class)


@compiled
def _look_at_all(
    table: Rows,
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    step: int,
    by_class: NDArray[np.int64],
) -> tuple[int, int, int, int]:
    held, entries, near, examined, seen = 0, 0, 0, 0, 0
    newest = table.state[_NEWEST]
    for row in range(table.state[_ROWS]):
        if not flags_of(table.header[row, 1]) & _USED:
            continue
        header0 = table.header[row, 0]
        by_class[class_of(header0)] += 1
        holds = (table.header[row, 2] & _HOLDS) != _NOTHING
        if holds and integer(table.header[row, 3]) > newest:
            held += 1
            entries += length_of(header0)
        if seen % step == 0 and length_of(header0) > 0:
            examined += 1
            near += _is_near(table, row, rules, ads, scratch)
        seen += 1
    return held, entries, near, examined


@compiled
def _is_near(table: Rows, row: int, rules: RuleArrays, ads: Ads, scratch: ScratchArrays) -> bool:
    """Whether one more exposure reaches a rolling cap that now is not reached."""
    entry = table.arena[run_of(table.header[row, 0]) :]
    look(table, row, rules, ads, scratch)
    it = scratch.row
    span = rules.spans[it[_TYPE]]
    first, viewed, end = span[_COUNTED], span[_VIEWED], span[_COUNTING_END]
    if viewed < end:
        mark_seen(entry, scratch)
    now = table.state[_NEWEST]
    for selector in range(first, end):
        for rule in range(rules.first[selector], rules.first[selector + 1]):
            one = rules.ordered[rule]
            asked = it[_ALLOWED] >> one[_NUMBER] & 1
            if not asked or one[_SPACING] or one[_CALENDAR] or one[_THRESHOLD] <= _ONE_EXPOSURE:
                continue
            scratch.round[0] += 1
            if _is_near_rule(entry, ads, scratch, selector, selector >= viewed, one, now):
                return True
    return False


@compiled
def _is_near_rule(
    entry: NDArray[np.uint64],
    ads: Ads,
    scratch: ScratchArrays,
    selector: int,
    viewed: bool,
    rule: NDArray[np.int64],
    now: int,
) -> bool:
    near = 0
    for i in range(scratch.row[_BARE]):
        if ticks_of(entry[i, 0]) <= now - rule[_WINDOW]:
            break
        if kind_of(entry[i, 0]) != EXPOSURE or shadowed(entry[i, 0]):
            continue
        if viewed and not scratch.mark[i] & _SEEN:
            continue
        ad = ad_of(entry[i, 2])
        slot = ads.ad[ad, _SLOTS + selector]
        if slot < 0:
            continue
        if scratch.slot[slot, _ROUND] != scratch.round[0]:
            scratch.slot[slot, _ROUND], scratch.slot[slot, _WEIGHT] = scratch.round[0], 0
        before = rule[_THRESHOLD] - scratch.slot[slot, _WEIGHT]
        scratch.slot[slot, _WEIGHT] += ads.ad[ad, _AD_WEIGHT]
        after = rule[_THRESHOLD] - scratch.slot[slot, _WEIGHT]
        near += int(0 < after <= _ONE_EXPOSURE) - int(0 < before <= _ONE_EXPOSURE)
    return near > 0
