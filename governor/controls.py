"""What a person or an operator has said: opt-out, hide, and consent refused."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.entries import (
    CONTROL,
    EXPOSURE,
    HIDE,
    LESS_OFTEN,
    OPT_IN,
    OPT_OUT,
    RETARGETING,
    ad_of,
    kind_of,
    shadowed,
    ticks_of,
    type_of,
)
from governor.rules import RuleArrays, Scalar
from governor.scopes import RETARGETING_LABEL, UNASKED, Ads, Col, Want
from governor.scratch import Found, Row, ScratchArrays
from governor.situation import FOREVER

__all__ = ["ask_labels", "refuse", "say"]

_NOTHING = np.uint64(0)
_RETARGETING = np.uint64(RETARGETING)
_NOW, _BARE, _REFUSED_AT = Row.NOW, Row.BARE, Row.REFUSED_AT
_HIDE_FOR, _RULES = Scalar.HIDE, Scalar.RULES
_LESS_OFTEN_FOR = Scalar.LESS_OFTEN
_AD_CONTROL, _CAMPAIGN = Col.CONTROL, Col.CAMPAIGN
_LABEL, _RULE, _FROM, _UNTIL = Found.LABEL, Found.RULE, Found.FROM, Found.UNTIL
_FIRST, _SLOT = Found.FIRST, Found.SLOT
_CONTROL_LABEL, _CAMPAIGN_LABEL = Want.CONTROL_LABEL, Want.CAMPAIGN_LABEL
_OPTED, _HIDDEN, _REFUSED = 0, 1, 2
"""In the order of `rules.CONTROL_REASONS`."""


@compiled
def ask_labels(entry: NDArray[np.uint64], ads: Ads, scratch: ScratchArrays) -> int:
    """How many requests to see less the row holds; -1 where a label is missing."""
    requests = 0
    for i in range(scratch.row[_BARE]):
        if kind_of(entry[i, 0]) == CONTROL:
            if ads.ad[ad_of(entry[i, 2]), _AD_CONTROL] == UNASKED:
                scratch.want[0], scratch.want[1] = _CONTROL_LABEL, ad_of(entry[i, 2])
                return -1
            requests += type_of(entry[i, 0]) == LESS_OFTEN
    return requests


@compiled
def say(
    entry: NDArray[np.uint64], rules: RuleArrays, ads: Ads, scratch: ScratchArrays, found: int
) -> int:
    """Find opt-outs and hidings in force; how many throttles there are with them."""
    now, rule = scratch.row[_NOW], rules.scalars[_RULES]
    for i in range(scratch.row[_BARE]):
        if kind_of(entry[i, 0]) != CONTROL or shadowed(entry[i, 0]):
            continue
        kind, ts = type_of(entry[i, 0]), ticks_of(entry[i, 0])
        label = ads.ad[ad_of(entry[i, 2]), _AD_CONTROL]
        if kind == OPT_OUT and _is_last(entry, ads, i, label):
            found = _note(scratch, found, label, rule + _OPTED, ts, FOREVER)
        if kind == HIDE and ts + rules.scalars[_HIDE_FOR] > now and _is_last(entry, ads, i, label):
            found = _note(scratch, found, label, rule + _HIDDEN, ts, ts + rules.scalars[_HIDE_FOR])
    return found


@compiled
def _is_last(entry: NDArray[np.uint64], ads: Ads, i: int, label: int) -> bool:
    """Whether nothing newer of the same sort was said about the label."""
    hide = type_of(entry[i, 0]) == HIDE
    for j in range(i):
        if kind_of(entry[j, 0]) != CONTROL or shadowed(entry[j, 0]):
            continue
        kind = type_of(entry[j, 0])
        same = kind == HIDE if hide else kind in (OPT_OUT, OPT_IN)
        if same and ads.ad[ad_of(entry[j, 2]), _AD_CONTROL] == label:
            return False
    return True


@compiled
def refuse(
    entry: NDArray[np.uint64], rules: RuleArrays, ads: Ads, scratch: ScratchArrays, found: int
) -> int:
    """Throttle all retargeting, for consent is refused; how many throttles there are, or -1."""
    rule = rules.scalars[_RULES] + _REFUSED
    since = scratch.row[_REFUSED_AT]
    if since < 0:
        since = _oldest(entry, scratch)
    before = found
    found = _note(scratch, found, RETARGETING_LABEL, rule, since, FOREVER)
    for i in range(scratch.row[_BARE]):
        if kind_of(entry[i, 0]) != EXPOSURE or shadowed(entry[i, 0]):
            continue
        if (entry[i, 0] & _RETARGETING) == _NOTHING:
            continue
        label = ads.ad[ad_of(entry[i, 2]), _CAMPAIGN]
        if label == UNASKED:
            scratch.want[0], scratch.want[1] = _CAMPAIGN_LABEL, ad_of(entry[i, 2])
            return -1
        known = label < 0
        for k in range(before, found):
            known = known or scratch.found[k, _LABEL] == label
        if not known:
            found = _note(scratch, found, label, rule, since, FOREVER)
    for k in range(before, found):
        scratch.found[k, _FIRST] = scratch.row[_REFUSED_AT]
    return found


@compiled
def _oldest(entry: NDArray[np.uint64], scratch: ScratchArrays) -> int:
    """The time of the row's oldest exposure; without one, of its oldest entry."""
    for i in range(scratch.row[_BARE] - 1, -1, -1):
        if kind_of(entry[i, 0]) == EXPOSURE:
            return ticks_of(entry[i, 0])
    return ticks_of(entry[max(0, scratch.row[_BARE] - 1), 0])


@compiled
def _note(scratch: ScratchArrays, found: int, label: int, rule: int, start: int, until: int) -> int:
    one = scratch.found[found]
    one[_LABEL], one[_RULE], one[_FROM], one[_UNTIL] = label, rule, start, until
    one[_FIRST], one[_SLOT] = start, -1
    return found + 1
