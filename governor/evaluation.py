"""Which rules and controls are in force on which labels of a row, from when until when.

Everything is evaluated at the newest event of the row, so an answer depends on the row alone and
not on when it was asked. Most rows hold exposures only, and most policies only count them: then
`evaluate` is one walk (`governor.counting`). What else there is stands in `governor.reactions`
and `governor.controls`.
"""

from __future__ import annotations

import numpy as np

from governor.compiled import compiled, inlined
from governor.controls import ask_labels, refuse, say
from governor.counting import count, soften
from governor.fatigue.tiring import softness, tire
from governor.fatigue.worn import Worn
from governor.hashing import mix
from governor.labels import Labels
from governor.reactions import mark_seen, react, tire_of_ignored
from governor.rows import OTHERS, Rows, flags_of, length_of, run_of
from governor.rules import FATIGUE, ByRule, RuleArrays, Scalar, Span
from governor.scopes import Ads, Scopes, Want
from governor.scratch import Found, Row, ScratchArrays, move
from governor.situation import look

__all__ = ["HOLDS", "digest_of", "evaluate", "last_until", "supply"]

HOLDS = 2
"""The bit of a digest that says whether anything is held back, and not only a shadow of it."""

_TYPE, _REFUSED = Row.TYPE, Row.REFUSED
_NOW, _STATE_END, _NEXT_STATE = Row.NOW, Row.STATE_END, Row.NEXT_STATE
_VIEWED, _IGNORED = Span.VIEWED, Span.IGNORED
_FATIGUE, _REACTION = Span.FATIGUE, Span.REACTION
_LIFECYCLE, _RULES = Scalar.LIFECYCLE, Scalar.RULES
_KIND, _STATES, _SHADOW = ByRule.KIND, ByRule.STATES, ByRule.SHADOW
_LABEL, _RULE, _FROM, _UNTIL = Found.LABEL, Found.RULE, Found.FROM, Found.UNTIL
_THIRD = Found.THIRD
_NONE, _ONE, _TWO = np.uint64(0), np.uint64(1), np.uint64(2)
_HOLDS = np.uint64(HOLDS)


@inlined
def evaluate(
    table: Rows, row: int, rules: RuleArrays, ads: Ads, worn: Worn, scratch: ScratchArrays
) -> int:
    """Find what is in force on a row; return how much, or -1 where something must be supplied."""
    length = length_of(table.header[row, 0])
    if length == 0:
        return 0
    entry = table.arena[run_of(table.header[row, 0]) :]
    look(table, row, rules, ads, scratch)
    span = rules.spans[scratch.row[_TYPE]]
    ignoring = span[_IGNORED] < span[_FATIGUE]
    tiring = span[_FATIGUE] < span[_REACTION]
    if span[_VIEWED] < span[_IGNORED] or ignoring or tiring:
        mark_seen(entry, scratch)
    scratch.round[0] += 1
    found = count(entry, rules, ads, scratch)
    if ignoring:
        found = tire_of_ignored(entry, rules, ads, scratch, found)
    if tiring:
        found = tire(entry, rules, ads, worn, scratch, found)
    if flags_of(table.header[row, 1]) & OTHERS:
        requests = ask_labels(entry, ads, scratch)
        if requests < 0:
            return -1
        if requests > 0:
            found = soften(entry, rules, ads, scratch, found)
        found = react(entry, rules, ads, scratch, found)
        if found < 0:
            return -1
        found = say(entry, rules, ads, scratch, found)
    if scratch.row[_REFUSED]:
        found = refuse(entry, rules, ads, scratch, found)
    if rules.scalars[_LIFECYCLE] and found > 0:
        found = _cut(rules, scratch, found)
    return found


@compiled
def _cut(rules: RuleArrays, scratch: ScratchArrays, found: int) -> int:
    """End throttles with the lifecycle state that they ask for; how many are left."""
    end, following = scratch.row[_STATE_END], scratch.row[_NEXT_STATE]
    kept = 0
    for k in range(found):
        rule = scratch.found[k, _RULE]
        if rule < rules.scalars[_RULES] and not rules.rule[rule, _STATES] >> following & 1:
            scratch.found[k, _UNTIL] = min(scratch.found[k, _UNTIL], end)
        if scratch.found[k, _UNTIL] > max(scratch.row[_NOW], scratch.found[k, _FROM]):
            move(scratch.found, k, kept)
            kept += 1
    return kept


def supply(labels: Labels, scopes: Scopes, scratch: ScratchArrays) -> None:
    """Work out what `evaluate` has missed; it is then to be called again."""
    want, first, second = (int(number) for number in scratch.want)
    if want == Want.CONTROL_LABEL:
        scopes.ask_control(first, labels.labels_of(first))
    elif want == Want.CAMPAIGN_LABEL:
        scopes.ask_campaign(first, labels.labels_of(first))
    else:
        scopes.pair(first, second, labels.merged(first, second))


@inlined
def digest_of(rules: RuleArrays, ads: Ads, scratch: ScratchArrays, found: int) -> np.uint64:
    """A hash of the throttles found, in whatever order; zero for none."""
    if found == 0:
        return _NONE
    total, holds = _NONE, _NONE
    for k in range(found):
        one = scratch.found[k]
        what = mix(ads.label_hash[one[_LABEL]], rules.hash[one[_RULE]])
        if one[_RULE] < rules.scalars[_RULES] and rules.rule[one[_RULE], _SHADOW]:
            what ^= _TWO
        else:
            holds = _HOLDS
        if one[_RULE] < rules.scalars[_RULES] and rules.rule[one[_RULE], _KIND] == FATIGUE:
            what = mix(what, np.uint64(softness(one[_THIRD])))
        total += mix(what, mix(np.uint64(one[_FROM]), np.uint64(one[_UNTIL])))
    return (total & ~_HOLDS) | holds | _ONE


@inlined
def last_until(scratch: ScratchArrays, found: int) -> int:
    """When the last of the throttles found ends; 0 for none."""
    last = 0
    for k in range(found):
        last = max(last, scratch.found[k, _UNTIL])
    return last
