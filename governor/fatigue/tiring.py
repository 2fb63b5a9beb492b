"""The rule ``fatigue`` on one row: is the person tired of a label, and when no longer?

Of each label value, its exposures from the oldest on: how worn the ad was each time
(`governor.fatigue.response`), what was expected of each, what came. The curve is that of the newest
exposure's ad. Everything is as of the row's newest event; what is then still open counts by the
share of engagements that have come by its age.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled, inlined
from governor.counting import SEEN
from governor.entries import (
    CUT,
    EXPOSURE,
    UNMEASURABLE,
    ad_of,
    fact_of,
    kind_of,
    shadowed,
    ticks_of,
)
from governor.fatigue.exposures import DAY, LOOK_BACK
from governor.fatigue.response import (
    SHORTEST_REST,
    log_factor,
    respond,
    seen_share,
    stratum_of,
    threshold,
)
from governor.fatigue.settlement import UNANSWERED, join, settles_at
from governor.fatigue.worn import Asked, Worn
from governor.rules import ByRule, Ordered, RuleArrays, Scalar, Span
from governor.scopes import ALWAYS, SENSITIVE, UNSEEN, Ads, Col
from governor.scratch import Course, Found, Row, ScratchArrays, Wear

__all__ = ["SHARES", "softness", "tire"]

SHARES = 10
"""A share to bid at is a whole number of these parts."""

SCALE = 10_000
"""Parts of one in which evidence tells expected engagement and probability."""

MOST_DOUBLINGS = 20

_DAY, _LOOK_BACK, _SHORTEST = DAY, LOOK_BACK, SHORTEST_REST
_NOW, _BARE, _LENGTH = Row.NOW, Row.BARE, Row.LENGTH
_TYPE, _ALLOWED, _REFUSED = Row.TYPE, Row.ALLOWED, Row.REFUSED
_FATIGUE, _REACTION = Span.FATIGUE, Span.REACTION
_NUMBER, _SEEN_ONLY = Ordered.NUMBER, ByRule.SEEN
_MULTIPLIER, _HORIZON = Scalar.MULTIPLIER, Scalar.HORIZON
_FLAGS, _SLOTS = Col.FLAGS, Col.SLOTS
_ROUND, _DEPTH, _NEWEST, _OLDEST = Course.ROUND, Course.DEPTH, Course.NEWEST, Course.OLDEST
_CURVE, _STREAK, _LAST, _TOGETHER = Course.CURVE, Course.STREAK, Course.LAST, Course.TOGETHER
_STRATUM = Course.STRATUM
_WORN, _ENGAGED, _EXPECTED = Wear.WORN, Wear.ENGAGED, Wear.EXPECTED
_FLOOR, _PROBABILITY, _FULL = Asked.FLOOR, Asked.PROBABILITY, Asked.FULL
_LABEL, _RULE, _FROM, _UNTIL = Found.LABEL, Found.RULE, Found.FROM, Found.UNTIL
_FIRST, _SECOND, _SLOT, _THIRD = Found.FIRST, Found.SECOND, Found.SLOT, Found.THIRD
_UNMEASURABLE, _NOTHING = np.uint64(UNMEASURABLE), np.uint64(0)


@compiled
def tire(
    entry: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    worn: Worn,
    scratch: ScratchArrays,
    found: int,
) -> int:
    """Find rests for fatigue; how many throttles there are with them."""
    it = scratch.row
    span = rules.spans[it[_TYPE]]
    joined = False
    for selector in range(span[_FATIGUE], span[_REACTION]):
        rule = rules.first[selector]
        number = rules.ordered[rule, _NUMBER]
        if not (it[_ALLOWED] >> number) & 1:
            continue
        if not _gather(entry, rules, ads, worn, scratch, selector, number):
            continue
        if not joined:
            join(entry, ads, scratch)
            joined = True
        since = _observed_since(entry, rules, worn, scratch)
        for i in range(it[_BARE] - 1, -1, -1):
            slot = _course_of(entry, rules, ads, scratch, selector, number, i)
            if slot >= 0 and scratch.course[slot, _CURVE] >= 0:
                if scratch.course[slot, _OLDEST] == i:
                    _begin(entry, ads, worn, scratch, selector, slot, i, since)
                _follow(entry, ads, worn, scratch, number, slot, i)
        for i in range(it[_BARE]):
            slot = _course_of(entry, rules, ads, scratch, selector, number, i)
            newest = slot >= 0 and scratch.course[slot, _NEWEST] == i
            if newest and scratch.course[slot, _CURVE] >= 0:
                found = _conclude(entry, rules, ads, worn, scratch, number, slot, found)
    return found


@inlined
def _course_of(
    entry: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    selector: int,
    number: int,
    i: int,
) -> int:
    """The slot of an entry that is an exposure which counts for a rule, or -1."""
    if kind_of(entry[i, 0]) != EXPOSURE or shadowed(entry[i, 0]):
        return -1
    if rules.rule[number, _SEEN_ONLY] and not scratch.mark[i] & SEEN:
        return -1
    return int(ads.ad[ad_of(entry[i, 2]), _SLOTS + selector])


@inlined
def _gather(
    entry: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    worn: Worn,
    scratch: ScratchArrays,
    selector: int,
    number: int,
) -> bool:
    """Note depth, oldest and newest exposure of each label value, and the curve that it goes by
    (-1 where none may be used); whether any has one."""
    scratch.round[0] += 1
    any_curve = False
    for i in range(scratch.row[_BARE]):
        slot = _course_of(entry, rules, ads, scratch, selector, number, i)
        if slot < 0:
            continue
        course = scratch.course[slot]
        if course[_ROUND] != scratch.round[0]:
            curve = worn.curve[ad_of(entry[i, 2]), selector]
            course[_ROUND], course[_DEPTH], course[_NEWEST] = scratch.round[0], 0, i
            course[_CURVE] = curve if worn.tables.usable[curve] else -1
            any_curve = any_curve or bool(worn.tables.usable[curve])
        course[_OLDEST] = i
        course[_DEPTH] += 1
    return any_curve


@compiled
def _observed_since(
    entry: NDArray[np.uint64], rules: RuleArrays, worn: Worn, scratch: ScratchArrays
) -> int:
    """From when on everything that was shown to the person is in the row."""
    since = max(worn.since[0], scratch.row[_NOW] - rules.scalars[_HORIZON])
    cut = fact_of(entry, scratch.row[_LENGTH], CUT)
    return int(max(since, ticks_of(entry[cut, 0]))) if cut >= 0 else int(since)


@inlined
def _begin(
    entry: NDArray[np.uint64],
    ads: Ads,
    worn: Worn,
    scratch: ScratchArrays,
    selector: int,
    slot: int,
    first: int,
    since: int,
) -> None:
    """Nothing has been seen of a label before its exposure ``first``; how active is the person?"""
    course, wear = scratch.course[slot], scratch.wear[slot]
    ts = ticks_of(entry[first, 0])
    wear[_WORN], wear[_ENGAGED], wear[_EXPECTED] = 0.0, 0.0, 0.0
    course[_STREAK], course[_LAST], course[_TOGETHER] = 0, ts, 0
    course[_STRATUM] = 0
    known = min(ts - since, _LOOK_BACK)
    if known < _DAY:
        return
    others = 0
    for i in range(first + 1, scratch.row[_BARE]):
        shown = ticks_of(entry[i, 0])
        if shown < ts - _LOOK_BACK:
            break
        counts = kind_of(entry[i, 0]) == EXPOSURE and not shadowed(entry[i, 0])
        ad = ad_of(entry[i, 2])
        if counts and shown < ts and not ads.ad[ad, _FLAGS] & ALWAYS:
            others += ads.ad[ad, _SLOTS + selector] != slot
    edges = worn.tables.edges[course[_CURVE]]
    course[_STRATUM] = stratum_of(others / (known / _DAY), edges)


@inlined
def _follow(
    entry: NDArray[np.uint64],
    ads: Ads,
    worn: Worn,
    scratch: ScratchArrays,
    number: int,
    slot: int,
    i: int,
) -> None:
    """Take the next exposure of a label value in."""
    course, wear, tables = scratch.course[slot], scratch.wear[slot], worn.tables
    curve = course[_CURVE]
    ts = ticks_of(entry[i, 0])
    elapsed = ts - course[_LAST]
    if elapsed > 0:
        wear[_WORN] = _faded(wear[_WORN] + course[_TOGETHER], elapsed, tables.recovery[curve])
        course[_LAST], course[_TOGETHER] = ts, 0
    course[_TOGETHER] += 1
    flags = ads.ad[ad_of(entry[i, 2]), _FLAGS]
    dark = (entry[i, 0] & _UNMEASURABLE) != _NOTHING or flags & UNSEEN
    if dark or scratch.row[_REFUSED]:
        return
    left = math.exp(log_factor(wear[_WORN], curve, tables))
    answered = scratch.answer[i] != UNANSWERED
    if answered:
        course[_STREAK] = 0
    elif i != course[_OLDEST] and elapsed >= _SHORTEST << min(course[_STREAK], MOST_DOUBLINGS):
        shape = tables.shape[curve]
        mean = left * (shape + wear[_ENGAGED]) / (shape + wear[_EXPECTED])
        floor = threshold(worn.asked[number, _FLOOR], course[_STRATUM], curve, tables)
        course[_STREAK] += mean < floor
    known = 1.0
    if not answered and settles_at(entry, ads, i) > scratch.row[_NOW]:
        known = seen_share(scratch.row[_NOW] - ts, tables.ages, tables.seen)
    wear[_EXPECTED] += known * tables.base[curve, course[_STRATUM]] * left
    wear[_ENGAGED] += answered


@inlined
def _faded(wear: float, elapsed: int, recovery: int) -> float:
    """What is left of a wear."""
    return wear if recovery == 0 else wear * 2.0 ** (-elapsed / recovery)


@compiled
def _conclude(
    entry: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    worn: Worn,
    scratch: ScratchArrays,
    number: int,
    slot: int,
    found: int,
) -> int:
    """Note a rest, or a share to bid at, of one label value, if there is one; how many there are
    then."""
    course, wear, asked = scratch.course[slot], scratch.wear[slot], worn.asked[number]
    together = wear[_WORN] + course[_TOGETHER]
    curve, streak = course[_CURVE], course[_STREAK]
    floor = threshold(asked[_FLOOR], course[_STRATUM], curve, worn.tables)
    full = threshold(asked[_FULL], course[_STRATUM], curve, worn.tables)
    shape = worn.tables.shape[curve]
    mean = math.exp(log_factor(together, curve, worn.tables)) * (shape + wear[_ENGAGED])
    if mean / (shape + wear[_EXPECTED]) > 1.001 * max(floor, full):
        return found
    one = respond(
        together, wear[_ENGAGED], wear[_EXPECTED], streak, floor, asked[_PROBABILITY], curve,
        worn.tables,
    )  # fmt: skip
    rest, soft = one.rest, 0
    if not one.tired and full > 0.0:
        softly = respond(
            together, wear[_ENGAGED], wear[_EXPECTED], streak, full, asked[_PROBABILITY], curve,
            worn.tables,
        )  # fmt: skip
        rest = softly.rest
        soft = int(SHARES * (one.expected - floor) / (full - floor) + 0.5)
        soft = max(1, min(SHARES - 1, soft))
    if ads.ad[ad_of(entry[course[_NEWEST], 2]), _FLAGS] & SENSITIVE:
        rest = rest * rules.scalars[_MULTIPLIER] // 100
    ts = ticks_of(entry[course[_NEWEST], 0])
    until = ts + min(rest, rules.scalars[_HORIZON])
    if rest == 0 or until <= scratch.row[_NOW]:
        return found
    what = scratch.found[found]
    what[_LABEL], what[_RULE] = ads.slot_label[slot], number
    what[_FROM], what[_UNTIL], what[_SLOT] = ts, until, slot
    what[_FIRST] = int(SCALE * one.expected + 0.5)
    what[_SECOND] = int(SCALE * one.below + 0.5)
    what[_THIRD] = course[_DEPTH] * (SHARES + 1) + soft
    return found + 1


@compiled
def softness(third: int) -> int:
    """Of `Found.THIRD` of a fatigue: the share to bid at in parts of `SHARES`, 0 to rest."""
    return third % (SHARES + 1)
