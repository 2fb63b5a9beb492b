"""Rests that follow from what a person did with an ad, and from what they did not do."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.counting import SEEN
from governor.entries import (
    ENGAGEMENT,
    EXPOSURE,
    OTHER,
    UNMEASURABLE,
    VIEWABLE,
    ad_of,
    kind_of,
    shadowed,
    ticks_of,
    type_of,
)
from governor.rules import ByRule, Ordered, RuleArrays, Scalar, Span
from governor.scopes import LABELLED, SENSITIVE, UNSEEN, Ads, Col, Want, agrees, merged_ad
from governor.scratch import Found, Row, ScratchArrays, Slot, Streak

__all__ = ["exposure_of", "mark_seen", "react", "tire_of_ignored"]

ANSWERED = 2
"""Mark of an exposure that an engagement answers."""

_AD_BITS = np.uint64(24)
_NOTHING = np.uint64(0)
_UNMEASURABLE = np.uint64(UNMEASURABLE)
_NOW, _BARE, _TYPE, _ALLOWED = Row.NOW, Row.BARE, Row.TYPE, Row.ALLOWED
_IGNORED, _FATIGUE, _REACTION, _END = Span.IGNORED, Span.FATIGUE, Span.REACTION, Span.END
_WINDOW, _NUMBER = Ordered.WINDOW, Ordered.NUMBER
_LIMIT, _WITHIN, _LEVELS, _SEEN_ONLY = ByRule.LIMIT, ByRule.WITHIN, ByRule.LEVELS, ByRule.SEEN
_MULTIPLIER = Scalar.MULTIPLIER
_FLAGS, _CUSTOM, _SLOTS = Col.FLAGS, Col.TYPE, Col.SLOTS
_ROUND = Slot.ROUND
_STREAK_ROUND, _COUNT, _LEVEL = Streak.ROUND, Streak.COUNT, Streak.LEVEL
_STREAK = Streak.SIZE
_BEGIN, _REST_END, _REST = Streak.BEGIN, Streak.END, Streak.REST
_LABEL, _RULE, _FROM, _UNTIL = Found.LABEL, Found.RULE, Found.FROM, Found.UNTIL
_FIRST, _SECOND, _SLOT, _THIRD = Found.FIRST, Found.SECOND, Found.SLOT, Found.THIRD
_MERGED_AD = Want.MERGED_AD


@compiled
def mark_seen(entry: NDArray[np.uint64], scratch: ScratchArrays) -> None:
    """Mark the exposures that were seen: themselves, or in another event of theirs that counts."""
    bare = scratch.row[_BARE]
    for i in range(bare):
        scratch.mark[i] = 0
    for j in range(bare):
        if kind_of(entry[j, 0]) != EXPOSURE or type_of(entry[j, 0]) != VIEWABLE:
            continue
        if not shadowed(entry[j, 0]):
            scratch.mark[j] = SEEN
        elif not _contradicted(entry, bare, j):
            shown = exposure_of(entry, bare, j)
            if shown >= 0:
                scratch.mark[shown] = SEEN


@compiled
def _contradicted(entry: NDArray[np.uint64], bare: int, j: int) -> bool:
    """Whether a smaller exposure has the same event id."""
    for i in range(j + 1, bare):
        if kind_of(entry[i, 0]) == EXPOSURE and entry[i, 1] == entry[j, 1]:
            return True
    return False


@compiled
def exposure_of(entry: NDArray[np.uint64], bare: int, j: int) -> int:
    """The live exposure with the impression id of entry ``j``, or -1."""
    wanted = entry[j, 2] >> _AD_BITS
    if wanted == _NOTHING:
        return -1
    for i in range(bare):
        live = kind_of(entry[i, 0]) == EXPOSURE and not shadowed(entry[i, 0])
        if live and entry[i, 2] >> _AD_BITS == wanted:
            return i
    return -1


@compiled
def react(
    entry: NDArray[np.uint64], rules: RuleArrays, ads: Ads, scratch: ScratchArrays, found: int
) -> int:
    """Find reactions to types of engagement in force; how many throttles there are with them.

    -1 where an ad is missing, see ``scratch.want``.
    """
    it = scratch.row
    span = rules.spans[it[_TYPE]]
    scratch.round[0] += 1
    for j in range(it[_BARE]):
        if kind_of(entry[j, 0]) != ENGAGEMENT or shadowed(entry[j, 0]):
            continue
        ad = ad_of(entry[j, 2])
        kind = type_of(entry[j, 0])
        if kind == OTHER:
            kind = ads.ad[ad, _CUSTOM]
        merged = -2
        for selector in range(span[_REACTION], span[_END]):
            if rules.wanted[selector] != kind:
                continue
            if merged == -2:
                merged = _whole_ad(entry, ads, scratch, j)
                if merged < 0:
                    return -1
            slot = ads.ad[merged, _SLOTS + selector]
            if slot < 0 or scratch.slot[slot, _ROUND] == scratch.round[0]:
                continue
            scratch.slot[slot, _ROUND] = scratch.round[0]
            for rule in range(rules.first[selector], rules.first[selector + 1]):
                number = rules.ordered[rule, _NUMBER]
                rest = rules.ordered[rule, _WINDOW]
                if ads.ad[merged, _FLAGS] & SENSITIVE:
                    rest = rest * rules.scalars[_MULTIPLIER] // 100
                ts = ticks_of(entry[j, 0])
                if ts + rest > it[_NOW] and (it[_ALLOWED] >> number) & 1:
                    one = scratch.found[found]
                    one[_LABEL], one[_RULE] = ads.slot_label[slot], number
                    one[_FROM], one[_UNTIL] = ts, ts + rest
                    one[_FIRST], one[_SECOND], one[_SLOT] = ts, rest, slot
                    found += 1
    return found


@compiled
def _whole_ad(entry: NDArray[np.uint64], ads: Ads, scratch: ScratchArrays, j: int) -> int:
    """The ad of an engagement, with its exposure's labels where it names none; -1 if missing."""
    own = ad_of(entry[j, 2])
    shown = exposure_of(entry, scratch.row[_BARE], j)
    if shown < 0:
        return own
    merged = merged_ad(ads, own, ad_of(entry[shown, 2]))
    if merged < 0:
        scratch.want[0], scratch.want[1], scratch.want[2] = _MERGED_AD, own, ad_of(entry[shown, 2])
    return merged


@compiled
def tire_of_ignored(
    entry: NDArray[np.uint64], rules: RuleArrays, ads: Ads, scratch: ScratchArrays, found: int
) -> int:
    """Find rests after exposures in a row that nobody answered; how many throttles there are."""
    it = scratch.row
    span = rules.spans[it[_TYPE]]
    for selector in range(span[_IGNORED], span[_FATIGUE]):
        rule = rules.first[selector]
        number = rules.ordered[rule, _NUMBER]
        if not (it[_ALLOWED] >> number) & 1:
            continue
        scratch.round[0] += 1
        _mark_answered(entry, ads, scratch, rules.rule[number, _WITHIN])
        for i in range(it[_BARE] - 1, -1, -1):
            if _measurable(entry, rules, ads, scratch, number, i):
                slot = ads.ad[ad_of(entry[i, 2]), _SLOTS + selector]
                if slot >= 0:
                    _follow(entry, rules, ads, scratch, rule, slot, i)
        for i in range(it[_BARE]):
            if kind_of(entry[i, 0]) != EXPOSURE:
                continue
            slot = ads.ad[ad_of(entry[i, 2]), _SLOTS + selector]
            if slot < 0 or scratch.streak[slot, _STREAK_ROUND] != scratch.round[0]:
                continue
            scratch.streak[slot, _STREAK_ROUND] = 0
            streak = scratch.streak[slot]
            if streak[_REST] > 0 and streak[_REST_END] > it[_NOW]:
                one = scratch.found[found]
                one[_LABEL], one[_RULE] = ads.slot_label[slot], number
                one[_FROM], one[_UNTIL] = streak[_BEGIN], streak[_REST_END]
                one[_FIRST], one[_SECOND] = streak[_COUNT], streak[_REST]
                one[_SLOT], one[_THIRD] = slot, streak[_LEVEL]
                found += 1
    return found


@compiled
def _measurable(
    entry: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    number: int,
    i: int,
) -> bool:
    """Whether an entry is an exposure that counts for this rule, and could have been answered."""
    if kind_of(entry[i, 0]) != EXPOSURE or shadowed(entry[i, 0]):
        return False
    if (entry[i, 0] & _UNMEASURABLE) != _NOTHING or ads.ad[ad_of(entry[i, 2]), _FLAGS] & UNSEEN:
        return False
    return not rules.rule[number, _SEEN_ONLY] or bool(scratch.mark[i] & SEEN)


@compiled
def _follow(
    entry: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    rule: int,
    slot: int,
    i: int,
) -> None:
    """Take the next exposure of a label value into its streak."""
    streak = scratch.streak[slot]
    if streak[_STREAK_ROUND] != scratch.round[0]:
        for column in range(_STREAK):
            streak[column] = 0
        streak[_STREAK_ROUND] = scratch.round[0]
    ts = ticks_of(entry[i, 0])
    if scratch.mark[i] & ANSWERED:
        streak[_COUNT], streak[_REST] = 0, 0
        return
    if streak[_REST] > 0 and streak[_BEGIN] <= ts < streak[_REST_END]:
        return  # shown against the rest: says nothing about the person
    number = rules.ordered[rule, _NUMBER]
    streak[_COUNT] += 1
    if streak[_COUNT] % rules.rule[number, _LIMIT] == 0:
        level = min(streak[_COUNT] // rules.rule[number, _LIMIT], rules.rule[number, _LEVELS])
        rest = rules.ordered[rule, _WINDOW] << (level - 1)
        if ads.ad[ad_of(entry[i, 2]), _FLAGS] & SENSITIVE:
            rest = rest * rules.scalars[_MULTIPLIER] // 100
        streak[_LEVEL], streak[_REST] = level, rest
        streak[_BEGIN] = ts + rules.rule[number, _WITHIN]
        streak[_REST_END] = streak[_BEGIN] + rest


@compiled
def _mark_answered(
    entry: NDArray[np.uint64], ads: Ads, scratch: ScratchArrays, within: int
) -> None:
    """Mark the exposures that an engagement answers: the one it names, or the last it can mean."""
    bare = scratch.row[_BARE]
    for i in range(bare):
        scratch.mark[i] &= SEEN
    for j in range(bare):
        if kind_of(entry[j, 0]) != ENGAGEMENT or shadowed(entry[j, 0]):
            continue
        shown = exposure_of(entry, bare, j)
        if shown < 0 and ads.ad[ad_of(entry[j, 2]), _FLAGS] & LABELLED:
            shown = _last_touch(entry, ads, bare, j, within)
        if shown >= 0:
            scratch.mark[shown] |= ANSWERED


@compiled
def _last_touch(entry: NDArray[np.uint64], ads: Ads, bare: int, j: int, within: int) -> int:
    """The newest exposure with the engagement's labels, no later than it and not too old; or -1."""
    ts = ticks_of(entry[j, 0])
    for i in range(bare):
        shown = ticks_of(entry[i, 0])
        if shown <= ts - within:
            return -1
        if shown > ts or kind_of(entry[i, 0]) != EXPOSURE or shadowed(entry[i, 0]):
            continue
        if agrees(ads, ad_of(entry[j, 2]), ad_of(entry[i, 2])):
            return i
    return -1
