"""Which events of a log belong together: exposures told twice, and what engagements answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governor.compiled import allocating, compiled
from governor.entries import ENGAGEMENT, EXPOSURE
from governor.hashing import mix
from governor.policy import load
from governor.replay.log import Log
from governor.rules import compile_rules
from governor.scopes import LABELLED, Ads, Col, Scopes, agrees

__all__ = ["AGAIN", "NOTHING", "Links", "link"]

NOTHING, AGAIN = -1, -2
"""An engagement that answers no exposure of the log; one that is another's twin."""

STEPS = 1024
"""How many of a person's exposures back an engagement by labels is looked for: as many as a row
can hold."""

_EXPOSURE, _ENGAGEMENT = EXPOSURE, ENGAGEMENT
_NOTHING, _AGAIN, _STEPS = NOTHING, AGAIN, STEPS
_FLAGS = Col.FLAGS
_EXPOSURE_BITS = np.uint64((1 << 40) - 1)
_ZERO, _ONE = np.uint64(0), np.uint64(1)


@dataclass(frozen=True, slots=True)
class Links:
    """By event of a log."""

    unit: NDArray[np.int32]
    """Of an exposure the first event that tells of it, itself mostly; of others -1."""
    answers: NDArray[np.int32]
    """Of an engagement the exposure that it answers, NOTHING or AGAIN; of others NOTHING."""


def link(log: Log, within: int) -> Links:
    """Find what belongs together, by impression id, else by last touch.

    As the ledger does it: the exposure with the engagement's impression id, whichever comes
    first; without one in the log, the person's newest exposure not after it, with all the labels
    that the engagement names, less than ``within`` ticks before it.
    """
    first = log.first
    scopes = Scopes(compile_rules(load(_ANY), horizon=1 << 50))
    for number, name in enumerate(log.labels.ad_names):
        scopes.reserve(number)
        scopes.enter(number, log.labels.labels_of(number) if name else {})
    n = len(first)
    unit, answers = np.full(n, -1, np.int32), np.full(n, NOTHING, np.int32)
    slots = 1 << max(4, int(2 * n).bit_length())
    _link(
        log.who[first],
        log.ts[first],
        log.what[first],
        log.event[first],
        log.exposure[first],
        log.ad[first],
        scopes.ads,
        within,
        np.full(log.people, -1, np.int32),
        np.full(slots, -1, np.int32),
        unit,
        answers,
    )
    return Links(unit, answers)


_ANY = "rules: [{name: any, cap: 1, per: user, window: 1h}]"


@allocating
def _link(
    who: NDArray[np.int32],
    ts: NDArray[np.int64],
    what: NDArray[np.int16],
    event: NDArray[np.uint64],
    exposure: NDArray[np.uint64],
    ad: NDArray[np.int32],
    ads: Ads,
    within: int,
    last: NDArray[np.int32],
    slots: NDArray[np.int32],
    unit: NDArray[np.int32],
    answers: NDArray[np.int32],
) -> None:
    for i in range(len(ts)):
        kind = what[i] & 3
        if kind == _EXPOSURE:
            unit[i] = _entered(slots, who, what, exposure[i] & _EXPOSURE_BITS, exposure, i)
        elif kind == _ENGAGEMENT and _entered(slots, who, what, event[i], event, i) != i:
            answers[i] = _AGAIN
    before = np.full(len(ts), -1, np.int32)  # the person's exposure before this one
    for i in range(len(ts)):
        kind = what[i] & 3
        if kind == _EXPOSURE and unit[i] == i:
            before[i] = last[who[i]]
            last[who[i]] = i
        elif kind == _ENGAGEMENT and answers[i] != _AGAIN:
            if exposure[i] != _ZERO:
                answers[i] = _shown(slots, who, what, exposure[i] & _EXPOSURE_BITS, exposure, i)
            if answers[i] == _NOTHING and ads.ad[ad[i], _FLAGS] & LABELLED:
                at, steps = last[who[i]], 0
                while at >= 0 and ts[at] > ts[i] - within and steps < _STEPS:
                    if agrees(ads, ad[i], ad[at]):
                        answers[i] = at
                        break
                    at = before[at]
                    steps += 1


@compiled
def _entered(
    slots: NDArray[np.int32],
    who: NDArray[np.int32],
    what: NDArray[np.int16],
    word: np.uint64,
    words: NDArray[np.uint64],
    i: int,
) -> int:
    """The first event of the same person and kind with the same word, perhaps this one."""
    mask = np.uint64(len(slots) - 1)
    at = mix(word, np.uint64(who[i]) + _ONE) & mask
    while slots[at] >= 0:
        if _same(who, what, word, words, i, slots[at]):
            return int(slots[at])
        at = (at + _ONE) & mask
    slots[at] = i
    return i


@compiled
def _same(
    who: NDArray[np.int32],
    what: NDArray[np.int16],
    word: np.uint64,
    words: NDArray[np.uint64],
    i: int,
    j: int,
) -> bool:
    if who[i] != who[j] or what[i] & 3 != what[j] & 3:
        return False
    if what[i] & 3 == _EXPOSURE:
        return bool((words[j] & _EXPOSURE_BITS) == word)
    return bool(words[j] == word)


@compiled
def _shown(
    slots: NDArray[np.int32],
    who: NDArray[np.int32],
    what: NDArray[np.int16],
    word: np.uint64,
    exposure: NDArray[np.uint64],
    i: int,
) -> int:
    """The exposure of the same person with this id, or -1."""
    mask = np.uint64(len(slots) - 1)
    at = mix(word, np.uint64(who[i]) + _ONE) & mask
    while slots[at] >= 0:
        j = slots[at]
        if who[j] == who[i] and what[j] & 3 == _EXPOSURE and exposure[j] & _EXPOSURE_BITS == word:
            return int(j)
        at = (at + _ONE) & mask
    return -1
