"""What a row keeps, a function of the set of its events.

Of each kind what is later than the newest event less the history horizon; of that the newest
``row_limit``, and besides them what a rule or a control may still ask about, however crowded the
row is:

- exposures: of every label value of a rule, the newest that its answer can depend on;
- engagements: the newest of each type and label value that a reaction asks about, and the newest
  conversion;
- controls: whatever the horizon, the newest opt-out or opt-in of each label, and the newest
  hiding and requests to see less that are in force.

Of each kind no more than `HARD_LIMIT`. While consent is refused no engagement is kept, and none
from before a refusal. Keeping the newest of each of several classes does not depend on the order
in which entries come: what was let go can never again be among them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.entries import (
    CONTROL,
    CONVERSION,
    CUT,
    ENGAGEMENT,
    EXPOSURE,
    FACT,
    GRANT,
    HIDE,
    LESS_OFTEN,
    OPT_IN,
    OPT_OUT,
    OTHER,
    REFUSAL,
    TYPE_SHIFT,
    WORDS,
    ad_of,
    any_shadowed,
    cast_shadows,
    fact_of,
    facts_from,
    kind_of,
    newest_of,
    shadowed,
    ticks_of,
    time_word,
    type_of,
)
from governor.rules import RuleArrays, Scalar, Span
from governor.scopes import Ads, Col
from governor.scratch import ScratchArrays, Slot
from governor.situation import refused_at

__all__ = ["HARD_LIMIT", "REQUESTS", "held_by_controls", "prune", "prune_exposures"]

HARD_LIMIT = 1024
"""Entries of one kind that a row holds at most, whatever asks for them."""

REQUESTS = 64
"""Requests to see less of one label that a row remembers: more change nothing."""

_DROP, _KEEP, _OVERFLOW = 0, 1, 2
_ROUND, _SEEN = Slot.ROUND, Slot.WEIGHT
_COUNTED, _REACTION, _END = Span.COUNTED, Span.REACTION, Span.END
_CUSTOM, _SLOTS = Col.TYPE, Col.SLOTS
_HIDE_FOR, _LESS_OFTEN_FOR, _REQUIRED = Scalar.HIDE, Scalar.LESS_OFTEN, Scalar.REQUIRED
_NONE = np.uint64(0)
_CUT_WHAT = FACT | CUT << TYPE_SHIFT


@compiled
def prune(
    entry: NDArray[np.uint64],
    length: int,
    id_type: int,
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    horizon: int,
    row_limit: int,
) -> int:
    """Let go of what a row does not keep; return how many entries are left.

    ``scratch.mark[i]`` says of the former entry i whether it was kept (1), let go (0), or let go
    for want of room (2); of those the newest is remembered as the row's CUT.
    """
    bare = facts_from(entry, length)
    now = _refuse(entry, length, rules, scratch)
    oldest = now - horizon
    exposures, engagements = 0, 0
    for i in range(bare):
        if scratch.mark[i] == _KEEP and kind_of(entry[i, 0]) != CONTROL:
            if ticks_of(entry[i, 0]) <= oldest:
                scratch.mark[i] = _DROP
            elif kind_of(entry[i, 0]) == EXPOSURE:
                exposures += 1
            else:
                engagements += 1
    span = rules.spans[id_type]
    if exposures > row_limit:
        _keep_exposures(entry, bare, span, rules, ads, scratch, row_limit)
    if engagements > row_limit:
        _keep_engagements(entry, bare, span, rules, ads, scratch, row_limit)
    _keep_controls(entry, bare, rules, scratch, now, oldest, row_limit)
    cut = -1
    for i in range(bare):
        if scratch.mark[i] == _OVERFLOW:
            cut = max(cut, ticks_of(entry[i, 0]))
    return _compact(entry, length, bare, scratch, oldest, cut)


@compiled
def prune_exposures(
    entry: NDArray[np.uint64],
    length: int,
    id_type: int,
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    horizon: int,
    row_limit: int,
) -> tuple[int, int]:
    """`prune` in one walk, of a row of exposures and facts alone: how many entries are left, and
    how many were let go for want of room.

    Rows of those who see the most are full, and nearly all that happens to them is one exposure
    more.
    """
    bare = facts_from(entry, length)
    oldest = newest_of(entry, length) - horizon
    live = bare
    while live > 0 and ticks_of(entry[live - 1, 0]) <= oldest:
        live -= 1
        scratch.mark[live] = _DROP
    span = rules.spans[id_type]
    first, end = span[_COUNTED], span[_REACTION]
    scratch.round[0] += 1
    crowded = live > row_limit
    kept, cut, seen = 0, -1, _NONE
    for i in range(live):
        needed = crowded and _needed(ad_of(entry[i, 2]), -1, first, end, rules, ads, scratch)
        if (needed or i < row_limit) and kept < HARD_LIMIT:
            scratch.mark[i] = _KEEP
            if kept < i:
                for word in range(WORDS):
                    entry[kept, word] = entry[i, word]
            seen |= entry[kept, 0]
            kept += 1
        else:
            scratch.mark[i] = _OVERFLOW
            cut = max(cut, ticks_of(entry[i, 0]))
    if kept < bare and shadowed(seen):
        cast_shadows(entry, kept)
    return _with_facts(entry, length, bare, kept, oldest, cut), live - kept


@compiled
def _refuse(
    entry: NDArray[np.uint64], length: int, rules: RuleArrays, scratch: ScratchArrays
) -> int:
    """Mark all to keep but engagements without consent; return the newest time that is left."""
    refused = refused_at(entry, length, rules.scalars[_REQUIRED]) >= -1
    refusal = fact_of(entry, length, REFUSAL)
    until = ticks_of(entry[refusal, 0]) if refusal >= 0 else -1
    now = 0
    for i in range(length):
        scratch.mark[i] = _KEEP
        if kind_of(entry[i, 0]) == ENGAGEMENT and (refused or ticks_of(entry[i, 0]) <= until):
            scratch.mark[i] = _DROP
        else:
            now = max(now, ticks_of(entry[i, 0]))
    return now


@compiled
def _keep_exposures(
    entry: NDArray[np.uint64],
    bare: int,
    span: NDArray[np.int64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    row_limit: int,
) -> None:
    scratch.round[0] += 1
    rank, kept = 0, 0
    for i in range(bare):
        if kind_of(entry[i, 0]) != EXPOSURE or scratch.mark[i] != _KEEP:
            continue
        needed = _needed(
            ad_of(entry[i, 2]), -1, span[_COUNTED], span[_REACTION], rules, ads, scratch
        )
        if (needed or rank < row_limit) and kept < HARD_LIMIT:
            kept += 1
        else:
            scratch.mark[i] = _OVERFLOW
        rank += 1


@compiled
def _keep_engagements(
    entry: NDArray[np.uint64],
    bare: int,
    span: NDArray[np.int64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    row_limit: int,
) -> None:
    scratch.round[0] += 1
    rank, kept = 0, 0
    converted = False
    for i in range(bare):
        if kind_of(entry[i, 0]) != ENGAGEMENT or scratch.mark[i] != _KEEP:
            continue
        ad, kind = ad_of(entry[i, 2]), type_of(entry[i, 0])
        wanted = ads.ad[ad, _CUSTOM] if kind == OTHER else kind
        needed = _needed(ad, wanted, span[_REACTION], span[_END], rules, ads, scratch)
        needed = needed or (kind == CONVERSION and not converted)
        converted = converted or kind == CONVERSION
        if (needed or rank < row_limit) and kept < HARD_LIMIT:
            kept += 1
        else:
            scratch.mark[i] = _OVERFLOW
        rank += 1


@compiled
def _needed(
    ad: int,
    wanted: int,
    first: int,
    end: int,
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
) -> bool:
    """Whether one of these selectors asks about the next older entry of an ad; counts it."""
    needed = False
    for selector in range(first, end):
        slot = ads.ad[ad, _SLOTS + selector]
        if slot < 0 or rules.wanted[selector] != wanted:
            continue
        if scratch.slot[slot, _ROUND] != scratch.round[0]:
            scratch.slot[slot, _ROUND] = scratch.round[0]
            scratch.slot[slot, _SEEN] = 0
        needed = needed or scratch.slot[slot, _SEEN] < rules.need[selector]
        scratch.slot[slot, _SEEN] += 1
    return needed


@compiled
def _keep_controls(
    entry: NDArray[np.uint64],
    bare: int,
    rules: RuleArrays,
    scratch: ScratchArrays,
    now: int,
    oldest: int,
    row_limit: int,
) -> None:
    rank, kept = 0, 0
    for i in range(bare):
        if kind_of(entry[i, 0]) != CONTROL:
            continue
        ts = ticks_of(entry[i, 0])
        recent = ts > oldest
        if not ((recent and rank < row_limit) or _lasts(entry, rules, i, now)):
            scratch.mark[i] = _OVERFLOW if recent else _DROP
        elif kept == HARD_LIMIT:
            scratch.mark[i] = _OVERFLOW
        else:
            kept += 1
        rank += recent


@compiled
def _lasts(entry: NDArray[np.uint64], rules: RuleArrays, i: int, at: int) -> bool:
    """Whether a control is needed whatever the horizon, at a time."""
    kind, ts = type_of(entry[i, 0]), ticks_of(entry[i, 0])
    if kind == HIDE:
        return ts + rules.scalars[_HIDE_FOR] > at and _newer_alike(entry, i) == 0
    if kind == LESS_OFTEN:
        return ts + rules.scalars[_LESS_OFTEN_FOR] > at and _newer_alike(entry, i) < REQUESTS
    return kind in (OPT_OUT, OPT_IN) and _newer_alike(entry, i) == 0


@compiled
def _newer_alike(entry: NDArray[np.uint64], i: int) -> int:
    """Newer controls of the same sort on the same label."""
    kind = type_of(entry[i, 0])
    newer = 0
    for j in range(i):
        if kind_of(entry[j, 0]) == CONTROL and ad_of(entry[j, 2]) == ad_of(entry[i, 2]):
            other = type_of(entry[j, 0])
            newer += other == kind or (kind in (OPT_OUT, OPT_IN) and other in (OPT_OUT, OPT_IN))
    return newer


@compiled
def held_by_controls(entry: NDArray[np.uint64], length: int, rules: RuleArrays, at: int) -> bool:
    """Whether something that the person said is in force at a time, so that the row must stay."""
    if refused_at(entry, length, 0) >= 0:
        return True
    for i in range(length):
        speaks = kind_of(entry[i, 0]) == CONTROL and not shadowed(entry[i, 0])
        if speaks and type_of(entry[i, 0]) != OPT_IN and _lasts(entry, rules, i, at):
            return True
    return False


@compiled
def _compact(
    entry: NDArray[np.uint64],
    length: int,
    bare: int,
    scratch: ScratchArrays,
    oldest: int,
    cut: int,
) -> int:
    """Close the gaps and cast shadows anew; return how many entries are left."""
    kept = 0
    for i in range(bare):
        if scratch.mark[i] == _KEEP:
            for word in range(WORDS):
                entry[kept, word] = entry[i, word]
            kept += 1
    if kept < bare and any_shadowed(entry, kept):
        cast_shadows(entry, kept)
    return _with_facts(entry, length, bare, kept, oldest, cut)


@compiled
def _with_facts(
    entry: NDArray[np.uint64], length: int, bare: int, kept: int, oldest: int, cut: int
) -> int:
    """Put what lasts of the facts from ``bare`` on behind what was kept, and note the cut; return
    how many entries there are."""
    last = kept
    for i in range(bare, length):
        kind = type_of(entry[i, 0])
        ts = ticks_of(entry[i, 0])
        if kind == CUT:
            cut = max(cut, ts)
        elif kind in (GRANT, REFUSAL) or ts > oldest:
            for word in range(WORDS):
                entry[last, word] = entry[i, word]
            last += 1
    if cut > max(oldest, -1):  # near the epoch the horizon reaches behind all time
        entry[last, 0], entry[last, 1], entry[last, 2] = time_word(cut, _CUT_WHAT), _NONE, _NONE
        last += 1
    return last
