"""The decision record of a row: what is in force, as JSON."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled, inlined
from governor.counting import exposures_in
from governor.fatigue.tiring import SHARES, softness
from governor.jsontext import (
    literal,
    put,
    put_escaped,
    put_integer,
    put_ten_thousandths,
    put_ticks,
)
from governor.rows import Rows, id_size, id_start, run_of
from governor.rules import (
    FATIGUE,
    IGNORED,
    REACTION,
    ByRule,
    RuleArrays,
    RuleTexts,
    Scalar,
)
from governor.scopes import Ads
from governor.scratch import Found, Row, ScratchArrays
from governor.situation import FOREVER, HOLDOUT, period_of

__all__ = ["encode", "size_bound"]

_LABEL, _RULE, _FROM, _UNTIL = Found.LABEL, Found.RULE, Found.FROM, Found.UNTIL
_FIRST, _SECOND, _THIRD, _SLOT = Found.FIRST, Found.SECOND, Found.THIRD, Found.SLOT
_FOUND = Found.SIZE
_KIND, _SHADOW, _CALENDAR = ByRule.KIND, ByRule.SHADOW, ByRule.CALENDAR
_SELECTOR = ByRule.SELECTOR
_NOW, _ARM = Row.NOW, Row.ARM
_RULES = Scalar.RULES

_ID = literal('{"id":"')
_ID_TYPE = literal('","id_type":"')
_IN_HOLDOUT = literal('","arm":"holdout')
_IN_UNGOVERNED = literal('","arm":"ungoverned')
_THROTTLES = literal('","throttles":[')
_OPEN = literal('{"label":"')
_STATE = literal(',"state":"throttled","factor":0,"from":')
_SOFT_STATE = literal(',"state":"softened","factor":0.')
_FROM_TEXT = literal(',"from":')
_SHADOW_STATE = literal(',"state":"shadow","factor":1,"from":')
_UNTIL_TEXT = literal(',"until":')
_REASONS = literal(',"remaining":0,"reasons":[')
_EVIDENCE = literal('],"evidence":{')
_WINDOW = literal(',"window":')
_EXPOSURES = literal(',"exposures":')
_REST = literal(',"rest":')
_LEVEL = literal(',"level":')
_PROBABILITY = literal(',"probability":')
_DEPTH = literal(',"depth":')
_CURVES = literal(',"curves":')
_CLOSE = literal("}}")
_COMMA = literal(",")
_BRACE = literal("}")
_NULL = literal("null")


@inlined
def size_bound(
    table: Rows,
    row: int,
    texts: RuleTexts,
    ads: Ads,
    scratch: ScratchArrays,
    found: int,
) -> int:
    """No record of these throttles is longer, its key included."""
    size = 256 + 7 * id_size(table.header[row, 1]) + len(texts.tail)
    for k in range(found):
        label, rule = scratch.found[k, _LABEL], scratch.found[k, _RULE]
        size += 320 + ads.label_start[label + 1] - ads.label_start[label]
        size += 2 * (texts.start[rule + 1] - texts.start[rule]) + len(texts.curves)
    return size


@inlined
def encode(
    out: NDArray[np.uint8],
    at: int,
    table: Rows,
    row: int,
    rules: RuleArrays,
    texts: RuleTexts,
    ads: Ads,
    scratch: ScratchArrays,
    found: int,
    decided_at: int,
) -> int:
    """Write the decision record; return where it ends."""
    _sort(rules, scratch, found)
    at = _put_id(out, at, table, row)
    if scratch.row[_ARM] > 0:
        arm = _IN_HOLDOUT if scratch.row[_ARM] == HOLDOUT else _IN_UNGOVERNED
        at = put(out, at, arm, 0, len(arm))
    at = put(out, at, _THROTTLES, 0, len(_THROTTLES))
    entry = table.arena[run_of(table.header[row, 0]) :]
    first = 0
    while first < found:
        end = first + 1
        while end < found and _same(rules, scratch, first, end):
            end += 1
        if first > 0:
            at = put(out, at, _COMMA, 0, 1)
        at = _put_throttle(out, at, entry, rules, texts, ads, scratch, first, end)
        first = end
    at = put(out, at, texts.tail, 0, len(texts.tail))
    at = put_ticks(out, at, decided_at)
    return put(out, at, _BRACE, 0, 1)


@inlined
def _put_id(out: NDArray[np.uint8], at: int, table: Rows, row: int) -> int:
    start, size = id_start(table.header[row, 1]), id_size(table.header[row, 1])
    kind = 0
    while kind < size and table.ids[start + kind] != 0:
        kind += 1
    at = put(out, at, _ID, 0, len(_ID))
    if kind == size:
        return put_escaped(out, at, table.ids, start, size)
    at = put_escaped(out, at, table.ids, start + kind + 1, size - kind - 1)
    at = put(out, at, _ID_TYPE, 0, len(_ID_TYPE))
    return put_escaped(out, at, table.ids, start, kind)


@compiled
def _is_shadow(rules: RuleArrays, rule: int) -> bool:
    return bool(rule < rules.scalars[_RULES] and rules.rule[rule, _SHADOW])


@compiled
def _softness(rules: RuleArrays, scratch: ScratchArrays, k: int) -> int:
    """The share to bid at of one that only softens, in parts of `SHARES`; 0 for a rest."""
    rule = scratch.found[k, _RULE]
    if rule >= rules.scalars[_RULES] or rules.rule[rule, _KIND] != FATIGUE:
        return 0
    return 0 if _is_shadow(rules, rule) else int(softness(scratch.found[k, _THIRD]))


@compiled
def _same(rules: RuleArrays, scratch: ScratchArrays, a: int, b: int) -> bool:
    """Whether two found belong to one throttle: of one label and one state."""
    if scratch.found[a, _LABEL] != scratch.found[b, _LABEL]:
        return False
    if (_softness(rules, scratch, a) > 0) != (_softness(rules, scratch, b) > 0):
        return False
    return _is_shadow(rules, scratch.found[a, _RULE]) == _is_shadow(rules, scratch.found[b, _RULE])


@compiled
def _place(rules: RuleArrays, scratch: ScratchArrays, k: int) -> int:
    """Where a found one stands in the record: by label, state, controls first, then rules."""
    label, rule = scratch.found[k, _LABEL], scratch.found[k, _RULE]
    order = rule - rules.scalars[_RULES]
    if order < 0:
        order += 128
    soft = _softness(rules, scratch, k) > 0
    return int((label << 10) + (_is_shadow(rules, rule) << 9) + (soft << 8) + order)


@inlined
def _sort(rules: RuleArrays, scratch: ScratchArrays, found: int) -> None:
    """By label, state and reason. They are few, and nearly in order."""
    for k in range(1, found):
        place = _place(rules, scratch, k)
        j = k
        while j > 0 and _place(rules, scratch, j - 1) > place:
            for column in range(_FOUND):
                held = scratch.found[j, column]
                scratch.found[j, column] = scratch.found[j - 1, column]
                scratch.found[j - 1, column] = held
            j -= 1


@inlined
def _put_throttle(
    out: NDArray[np.uint8],
    at: int,
    entry: NDArray[np.uint64],
    rules: RuleArrays,
    texts: RuleTexts,
    ads: Ads,
    scratch: ScratchArrays,
    first: int,
    end: int,
) -> int:
    """One throttle: what was found from ``first`` to ``end``."""
    label = scratch.found[first, _LABEL]
    since, until = scratch.found[first, _FROM], scratch.found[first, _UNTIL]
    for k in range(first + 1, end):
        since = min(since, scratch.found[k, _FROM])
        until = max(until, scratch.found[k, _UNTIL])
    at = put(out, at, _OPEN, 0, len(_OPEN))
    start = ads.label_start[label]
    at = put(out, at, ads.label_text, start, ads.label_start[label + 1] - start)
    at = _put_state(out, at, rules, scratch, first, end)
    at = put_ticks(out, at, since)
    at = _put_until(out, at, until)
    at = put(out, at, _REASONS, 0, len(_REASONS))
    for k in range(first, end):
        if k > first:
            at = put(out, at, _COMMA, 0, 1)
        rule = scratch.found[k, _RULE]
        at = put(out, at, texts.text, texts.start[rule], texts.name_end[rule] - texts.start[rule])
    at = put(out, at, _EVIDENCE, 0, len(_EVIDENCE))
    for k in range(first, end):
        if k > first:
            at = put(out, at, _COMMA, 0, 1)
        at = _put_evidence(out, at, entry, rules, texts, ads, scratch, k)
    return put(out, at, _CLOSE, 0, len(_CLOSE))


@inlined
def _put_state(
    out: NDArray[np.uint8],
    at: int,
    rules: RuleArrays,
    scratch: ScratchArrays,
    first: int,
    end: int,
) -> int:
    """State and factor: the least share of those that soften, nothing of those that rest."""
    share = SHARES
    for k in range(first, end):
        share = min(share, _softness(rules, scratch, k))
    if share > 0:
        at = put(out, at, _SOFT_STATE, 0, len(_SOFT_STATE))
        at = put_integer(out, at, share)
        return put(out, at, _FROM_TEXT, 0, len(_FROM_TEXT))
    state = _SHADOW_STATE if _is_shadow(rules, scratch.found[first, _RULE]) else _STATE
    return put(out, at, state, 0, len(state))


@inlined
def _put_until(out: NDArray[np.uint8], at: int, until: int) -> int:
    at = put(out, at, _UNTIL_TEXT, 0, len(_UNTIL_TEXT))
    if until >= FOREVER:
        return put(out, at, _NULL, 0, len(_NULL))
    return put_ticks(out, at, until)


@inlined
def _put_evidence(
    out: NDArray[np.uint8],
    at: int,
    entry: NDArray[np.uint64],
    rules: RuleArrays,
    texts: RuleTexts,
    ads: Ads,
    scratch: ScratchArrays,
    k: int,
) -> int:
    """The name of a rule or control, and the numbers that show why it is in force."""
    one = scratch.found[k]
    rule = one[_RULE]
    at = put(out, at, texts.text, texts.start[rule], texts.start[rule + 1] - texts.start[rule])
    if rule >= rules.scalars[_RULES]:
        if one[_FIRST] < 0:
            at = put(out, at, _NULL, 0, len(_NULL))
        else:
            at = put_ticks(out, at, one[_FIRST])
        if one[_UNTIL] < FOREVER:
            at = _put_until(out, at, one[_UNTIL])
    elif rules.rule[rule, _KIND] == REACTION:
        at = put_ticks(out, at, one[_FIRST])
        at = put(out, at, _REST, 0, len(_REST))
        at = put_ticks(out, at, one[_SECOND])
    elif rules.rule[rule, _KIND] == FATIGUE:
        at = put_ten_thousandths(out, at, one[_FIRST])
        at = put(out, at, _PROBABILITY, 0, len(_PROBABILITY))
        at = put_ten_thousandths(out, at, one[_SECOND])
        at = put(out, at, _DEPTH, 0, len(_DEPTH))
        at = put_integer(out, at, one[_THIRD] // (SHARES + 1))
        at = put(out, at, _CURVES, 0, len(_CURVES))
        at = put(out, at, texts.curves, 0, len(texts.curves))
    elif rules.rule[rule, _KIND] == IGNORED:
        at = put_integer(out, at, one[_FIRST])
        at = put(out, at, _LEVEL, 0, len(_LEVEL))
        at = put_integer(out, at, one[_THIRD])
        at = put(out, at, _REST, 0, len(_REST))
        at = put_ticks(out, at, one[_SECOND])
    else:
        at = put_integer(out, at, one[_FIRST])
        oldest = scratch.row[_NOW] - one[_SECOND]
        calendar = rules.rule[rule, _CALENDAR]
        if calendar:
            period_of(ads, scratch, calendar)
            oldest = scratch.period[calendar - 1, 1] - 1
        else:
            at = put(out, at, _WINDOW, 0, len(_WINDOW))
            at = put_ticks(out, at, one[_SECOND])
        selector = rules.rule[rule, _SELECTOR]
        exposures = exposures_in(entry, rules, ads, scratch, selector, one[_SLOT], oldest)
        at = put(out, at, _EXPOSURES, 0, len(_EXPOSURES))
        at = put_integer(out, at, exposures)
        at = _put_until(out, at, one[_UNTIL])
    return put(out, at, _BRACE, 0, 1)
