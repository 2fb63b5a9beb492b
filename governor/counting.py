"""Caps and spacings: exposures counted back from the newest.

`count` asks all of them in one walk. A cap on whose label the person asked to see less is asked
apart (`soften`), because it changes with time: requests expire one by one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled, inlined
from governor.entries import (
    CONTROL,
    EXPOSURE,
    LESS_OFTEN,
    ad_of,
    kind_of,
    shadowed,
    ticks_of,
    type_of,
)
from governor.rules import CAP, ByRule, Ordered, RuleArrays, Scalar, Span
from governor.scopes import SENSITIVE, Ads, Col
from governor.scratch import Found, Row, ScratchArrays, Slot, move
from governor.situation import period_of

__all__ = ["SEEN", "count", "exposures_in", "soften"]

SEEN = 1
"""Mark of an exposure that was seen."""

_ROUND, _WEIGHT, _NEWEST, _NEXT = Slot.ROUND, Slot.WEIGHT, Slot.NEWEST, Slot.NEXT
_COUNTED, _VIEWED, _COUNTING_END, _LONGEST = Span.COUNTED, Span.VIEWED, Span.IGNORED, Span.LONGEST
_THRESHOLD, _WINDOW, _CALENDAR = Ordered.THRESHOLD, Ordered.WINDOW, Ordered.CALENDAR
_NUMBER, _SPACING = Ordered.NUMBER, Ordered.SPACING
_AD_WEIGHT, _FLAGS, _CONTROL, _SLOTS = Col.WEIGHT, Col.FLAGS, Col.CONTROL, Col.SLOTS
_NOW, _BARE, _TYPE, _ALLOWED = Row.NOW, Row.BARE, Row.TYPE, Row.ALLOWED
_MULTIPLIER, _HORIZON, _LESS_OFTEN_FOR = Scalar.MULTIPLIER, Scalar.HORIZON, Scalar.LESS_OFTEN
_LABEL, _RULE, _FROM, _UNTIL = Found.LABEL, Found.RULE, Found.FROM, Found.UNTIL
_FIRST, _SECOND, _SLOT = Found.FIRST, Found.SECOND, Found.SLOT
_KIND, _LIMIT = ByRule.KIND, ByRule.LIMIT
_ORDERED_CAP = CAP


@inlined
def count(entry: NDArray[np.uint64], rules: RuleArrays, ads: Ads, scratch: ScratchArrays) -> int:
    """Find the caps and spacings in force; return how many."""
    it = scratch.row
    span = rules.spans[it[_TYPE]]
    first, viewed, end = span[_COUNTED], span[_VIEWED], span[_COUNTING_END]
    oldest = it[_NOW] - span[_LONGEST]
    this_round = scratch.round[0]
    found = 0
    for i in range(it[_BARE]):
        ts = ticks_of(entry[i, 0])
        if ts <= oldest:
            break
        if kind_of(entry[i, 0]) != EXPOSURE or shadowed(entry[i, 0]):
            continue
        ad = ad_of(entry[i, 2])
        weight = ads.ad[ad, _AD_WEIGHT]
        last = end if viewed == end or scratch.mark[i] & SEEN else viewed
        for selector in range(first, last):
            slot = ads.ad[ad, _SLOTS + selector]
            if slot < 0:
                continue
            if scratch.slot[slot, _ROUND] != this_round:
                scratch.slot[slot, _ROUND] = this_round
                scratch.slot[slot, _WEIGHT] = 0
                scratch.slot[slot, _NEWEST] = ts
                scratch.slot[slot, _NEXT] = rules.first[selector]
            scratch.slot[slot, _WEIGHT] += weight
            rule = scratch.slot[slot, _NEXT]
            while (
                rule < rules.first[selector + 1]
                and scratch.slot[slot, _WEIGHT] >= rules.ordered[rule, _THRESHOLD]
            ):
                if _reached(rules, ads, scratch, found, rule, slot, ts, ad):
                    found += 1
                rule += 1
                scratch.slot[slot, _NEXT] = rule
    return found


@inlined
def _reached(
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    found: int,
    rule: int,
    slot: int,
    ts: int,
    ad: int,
) -> bool:
    """Note a rule whose threshold the exposure at ``ts`` completes, if it is in force."""
    it = scratch.row
    number = rules.ordered[rule, _NUMBER]
    window = rules.ordered[rule, _WINDOW]
    calendar = rules.ordered[rule, _CALENDAR]
    if not (it[_ALLOWED] >> number) & 1:
        return False
    if calendar:
        period_of(ads, scratch, calendar)
        if ts < scratch.period[calendar - 1, 1]:
            return False
        until = scratch.period[calendar - 1, 2]
    else:
        if rules.ordered[rule, _SPACING] and ads.ad[ad, _FLAGS] & SENSITIVE:
            window = window * rules.scalars[_MULTIPLIER] // 100
        until = ts + window
        if until <= it[_NOW]:
            return False
    one = scratch.found[found]
    one[_LABEL] = ads.slot_label[slot]
    one[_RULE] = number
    one[_FROM] = scratch.slot[slot, _NEWEST]
    one[_UNTIL] = until
    one[_FIRST] = rules.rule[number, _LIMIT]
    one[_SECOND] = window
    one[_SLOT] = slot
    return True


@compiled
def soften(
    entry: NDArray[np.uint64], rules: RuleArrays, ads: Ads, scratch: ScratchArrays, found: int
) -> int:
    """Ask anew the caps on labels of which the person asked to see less; how many are in force."""
    it = scratch.row
    span = rules.spans[it[_TYPE]]
    kept = 0
    for k in range(found):
        cap = rules.rule[scratch.found[k, _RULE], _KIND] == _ORDERED_CAP
        label = ads.label_plain[scratch.found[k, _LABEL]]
        if not (cap and _requests(entry, rules, ads, scratch, label, it[_NOW]) > 0):
            move(scratch.found, k, kept)
            kept += 1
    scratch.round[0] += 1
    for i in range(it[_BARE]):
        if kind_of(entry[i, 0]) != EXPOSURE or shadowed(entry[i, 0]):
            continue
        ad = ad_of(entry[i, 2])
        for selector in range(span[_COUNTED], span[_COUNTING_END]):
            slot = ads.ad[ad, _SLOTS + selector]
            if slot < 0 or scratch.slot[slot, _ROUND] == scratch.round[0]:
                continue
            scratch.slot[slot, _ROUND] = scratch.round[0]
            label = ads.label_plain[ads.slot_label[slot]]
            if _requests(entry, rules, ads, scratch, label, it[_NOW]) > 0:
                kept = _soften_slot(entry, rules, ads, scratch, kept, selector, slot)
    return kept


@compiled
def _soften_slot(
    entry: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    found: int,
    selector: int,
    slot: int,
) -> int:
    """The caps of one label value under its requests; return how many are found now."""
    it = scratch.row
    viewed = selector >= rules.spans[it[_TYPE], _VIEWED]
    n, weight = 0, 0
    for i in range(it[_BARE]):
        counts = kind_of(entry[i, 0]) == EXPOSURE and not shadowed(entry[i, 0])
        ad = ad_of(entry[i, 2])
        if not counts or ads.ad[ad, _SLOTS + selector] != slot:
            continue
        if viewed and not scratch.mark[i] & SEEN:
            continue
        weight += ads.ad[ad, _AD_WEIGHT]
        scratch.ticks[n], scratch.weight[n] = ticks_of(entry[i, 0]), weight
        n += 1
    for rule in range(rules.first[selector], rules.first[selector + 1]):
        number = rules.ordered[rule, _NUMBER]
        allowed = (it[_ALLOWED] >> number) & 1
        if n == 0 or rules.ordered[rule, _SPACING] or not allowed:
            continue
        label = ads.label_plain[ads.slot_label[slot]]
        until = it[_NOW]
        waiting = True
        while waiting:
            requests = _requests(entry, rules, ads, scratch, label, until)
            under = _until(rules, ads, scratch, rule, n, requests)
            expiry = _next_expiry(entry, rules, ads, scratch, label, until)
            if under <= until:
                waiting = False
            elif requests == 0 or under <= expiry:
                until = under
                waiting = False
            else:
                until = expiry
        if until > it[_NOW]:
            requests = _requests(entry, rules, ads, scratch, label, it[_NOW])
            one = scratch.found[found]
            one[_LABEL] = ads.slot_label[slot]
            one[_RULE] = number
            one[_FROM] = scratch.ticks[0]
            one[_UNTIL] = until
            one[_FIRST] = _softened_limit(rules.rule[number, _LIMIT], requests)
            one[_SECOND] = _softened_window(rules, rule, requests)
            one[_SLOT] = slot
            found += 1
    return found


@compiled
def _until(
    rules: RuleArrays, ads: Ads, scratch: ScratchArrays, rule: int, n: int, requests: int
) -> int:
    """When a cap under so many requests ends, for the exposures in ``scratch``; -1 for none."""
    number, calendar = rules.ordered[rule, _NUMBER], rules.ordered[rule, _CALENDAR]
    limit = _softened_limit(rules.rule[number, _LIMIT], requests)
    for k in range(n):
        if scratch.weight[k] >= 100 * limit:
            if not calendar:
                return int(scratch.ticks[k] + _softened_window(rules, rule, requests))
            period_of(ads, scratch, calendar)
            inside = scratch.ticks[k] >= scratch.period[calendar - 1, 1]
            return int(scratch.period[calendar - 1, 2]) if inside else -1
    return -1


@compiled
def _softened_limit(limit: int, requests: int) -> int:
    """Halved once for each request, but not below one."""
    while requests > 0 and limit > 1:
        limit //= 2
        requests -= 1
    return limit


@compiled
def _softened_window(rules: RuleArrays, rule: int, requests: int) -> int:
    """Doubled once for each request that the limit could not take, within the horizon."""
    limit = rules.rule[rules.ordered[rule, _NUMBER], _LIMIT]
    while requests > 0 and limit > 1:
        limit //= 2
        requests -= 1
    window = rules.ordered[rule, _WINDOW]
    while requests > 0 and window < rules.scalars[_HORIZON]:
        window *= 2
        requests -= 1
    return int(min(window, max(rules.scalars[_HORIZON], rules.ordered[rule, _WINDOW])))


@compiled
def _requests(
    entry: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    label: int,
    at: int,
) -> int:
    """Requests to see less of a label that hold at a time."""
    requests = 0
    for i in range(scratch.row[_BARE]):
        if _asks(entry[i], ads, label):
            requests += ticks_of(entry[i, 0]) + rules.scalars[_LESS_OFTEN_FOR] > at
    return requests


@compiled
def _next_expiry(
    entry: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    label: int,
    at: int,
) -> int:
    """When the next of the requests that hold at a time expires; they are not none."""
    oldest = at
    for i in range(scratch.row[_BARE]):
        if _asks(entry[i], ads, label):
            expiry = ticks_of(entry[i, 0]) + rules.scalars[_LESS_OFTEN_FOR]
            if expiry > at:
                oldest = expiry  # newest first, so the last one seen is the first to expire
    return oldest


@compiled
def _asks(entry: NDArray[np.uint64], ads: Ads, label: int) -> bool:
    """Whether an entry is a request to see less of a label."""
    if kind_of(entry[0]) != CONTROL or type_of(entry[0]) != LESS_OFTEN or shadowed(entry[0]):
        return False
    return bool(ads.ad[ad_of(entry[2]), _CONTROL] == label)


@compiled
def exposures_in(
    entry: NDArray[np.uint64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    selector: int,
    slot: int,
    oldest: int,
) -> int:
    """Counting exposures of a label value later than ``oldest``."""
    viewed = selector >= rules.spans[scratch.row[_TYPE], _VIEWED]
    exposures = 0
    for i in range(scratch.row[_BARE]):
        if ticks_of(entry[i, 0]) <= oldest:
            break
        if kind_of(entry[i, 0]) != EXPOSURE or shadowed(entry[i, 0]):
            continue
        if ads.ad[ad_of(entry[i, 2]), _SLOTS + selector] == slot:
            exposures += not viewed or bool(scratch.mark[i] & SEEN)
    return exposures
