"""Whether anything holds an ad back from a person at a given time: what a reader of decisions sees.

A reader looks up the person's decisions, which were evaluated at the newest event of their row,
and obeys those in force on the ad's labels at the time of the bid. `held_back` answers the same
from the row itself, for whoever has the ledger at hand and no topic in between: replays and
simulations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.ads import FIELDS
from governor.compiled import compiled
from governor.entries import RETARGETING
from governor.evaluation import evaluate
from governor.fatigue.tiring import SHARES, softness
from governor.fatigue.worn import Worn
from governor.hashing import mix
from governor.labels import Labels
from governor.rows import Rows, length_of
from governor.rules import CONTROL_REASONS, FATIGUE, ByRule, RuleArrays, Scalar
from governor.scopes import ALWAYS, RETARGETING_LABEL, Ads, Col, Scopes
from governor.scratch import Found, ScratchArrays

__all__ = [
    "DONE", "FULL", "MISSING", "NARROW", "SHARES", "UNHEARD", "Governing", "Heard", "Spoken",
    "held_back",
]  # fmt: skip

MISSING, NARROW, UNHEARD = -1, -2, -3
"""What `held_back` cannot go on without: what ``scratch.want`` says; more room for throttles; to
know whether a control's label is one of the ad's."""

DONE, FULL = 0, 1
"""What a loop over events that asks it returns besides: it is through; rows must grow."""

_RULE, _LABEL, _FROM, _UNTIL, _SLOT = Found.RULE, Found.LABEL, Found.FROM, Found.UNTIL, Found.SLOT
_RULES, _SELECTOR, _SHADOW = Scalar.RULES, ByRule.SELECTOR, ByRule.SHADOW
_KIND, _THIRD, _FATIGUE = ByRule.KIND, Found.THIRD, FATIGUE
_FLAGS, _SLOTS = Col.FLAGS, Col.SLOTS
_MORE = len(CONTROL_REASONS)
_ONE, _FREE = np.uint64(1), np.uint64(0)
_LABEL_BITS = np.uint64(32)


class Heard(NamedTuple):
    """Whether labels are of ads: an open table of pairs, zero is free."""

    pair: NDArray[np.uint64]
    answer: NDArray[np.int8]


class Governing(NamedTuple):
    """A ledger and what governs it, for compiled code."""

    table: Rows
    ad_hash: NDArray[np.uint64]
    rules: RuleArrays
    ads: Ads
    worn: Worn
    scratch: ScratchArrays
    heard: Heard
    horizon: int
    row_limit: int


@dataclass
class Spoken:
    """What is known of controls' labels and ads; it grows as `held_back` asks.

    A rule's throttle is told by the ad's slot. A control's label is a text, and few ads ever meet
    one, so that each pair is worked out when it comes up.
    """

    heard: Heard = field(default_factory=lambda: _pairs(64))
    _known: int = 0

    def hear(self, label: int, ad: int, labels: Labels, scopes: Scopes) -> None:
        """Note whether a label, by its number, is one of an ad's."""
        self._known += 1
        if 2 * self._known > len(self.heard.pair):
            old, self.heard = self.heard, _pairs(2 * len(self.heard.pair))
            for i in np.flatnonzero(old.pair):
                _note(self.heard, old.pair[i], int(old.answer[i]))
        text = scopes.label_names[label]
        own = labels.labels_of(ad)
        order = [*FIELDS, *sorted(set(own) - set(FIELDS))]
        parts = ["user", *(f"{key}:{own[key]}" for key in order if key in own)]
        # From compiled code it comes as a Python integer, whose hash would be a signed one's.
        _note(self.heard, np.uint64(_pair(label, ad)), int(_speaks_of(text, parts)))


def _pairs(size: int) -> Heard:
    return Heard(np.zeros(size, np.uint64), np.zeros(size, np.int8))


def _speaks_of(label: str, parts: list[str]) -> bool:
    """Whether a label, perhaps a combination, is made of these parts."""
    return any(
        label == part
        or (label.startswith(f"{part} x ") and _speaks_of(label[len(part) + 3 :], parts))
        for part in parts
    )


@compiled
def held_back(
    governing: Governing,
    row: int,
    ts: int,
    what: int,
    ad: int,
    luck: int,
    by: NDArray[np.uint64],
) -> int:
    """What holds an ad back from the owner of a row at ``ts``, which may be later than the row.

    Args:
        what: kind, type and flags of the exposure that is asked for.
        luck: from 0 to `SHARES` - 1; where there is a share to bid at, so many of these bid.
        by: ``by[0]`` gets the bits of the rules in force, ``by[1]`` of those in shadow.

    Returns:
        The bits of the controls in force, in the order of `rules.CONTROL_REASONS`, or one of
        MISSING, NARROW and UNHEARD (``scratch.want`` then holds the label and the ad).
    """
    table, rules = governing.table, governing.rules
    ads, scratch = governing.ads, governing.scratch
    by[0], by[1] = _FREE, _FREE
    if row < 0 or ads.ad[ad, _FLAGS] & ALWAYS:
        return 0
    count = rules.scalars[_RULES]
    if (length_of(table.header[row, 0]) + 1) * (count + _MORE) > len(scratch.found):
        return NARROW
    found = evaluate(table, row, rules, ads, governing.worn, scratch)
    if found < 0:
        return MISSING
    controls = 0
    for k in range(found):
        one = scratch.found[k]
        if one[_FROM] > ts or one[_UNTIL] <= ts:
            continue
        rule = one[_RULE]
        if rule < count:
            if ads.ad[ad, _SLOTS + rules.rule[rule, _SELECTOR]] != one[_SLOT]:
                continue
            if rules.rule[rule, _KIND] != _FATIGUE or luck >= softness(one[_THIRD]):
                by[1 if rules.rule[rule, _SHADOW] else 0] |= _ONE << np.uint64(rule)
            continue
        speaks = what & RETARGETING if one[_LABEL] == RETARGETING_LABEL else -1
        if speaks < 0:
            speaks = _answer(governing.heard, _pair(one[_LABEL], ad))
            if speaks < 0:
                scratch.want[0], scratch.want[1] = one[_LABEL], ad
                return UNHEARD
        if speaks:
            controls |= 1 << (rule - count)
    return controls


@compiled
def _pair(label: int, ad: int) -> np.uint64:
    return ((np.uint64(label) << _LABEL_BITS) | np.uint64(ad)) + _ONE


@compiled
def _answer(heard: Heard, pair: np.uint64) -> int:
    """1 where the label is of the ad, 0 where it is not, -1 where nobody has said."""
    mask = np.uint64(len(heard.pair) - 1)
    at = mix(pair, _ONE) & mask
    while heard.pair[at] != _FREE:
        if heard.pair[at] == pair:
            return int(heard.answer[at])
        at = (at + _ONE) & mask
    return -1


@compiled
def _note(heard: Heard, pair: np.uint64, answer: int) -> None:
    mask = np.uint64(len(heard.pair) - 1)
    at = mix(pair, _ONE) & mask
    while heard.pair[at] != _FREE:
        at = (at + _ONE) & mask
    heard.pair[at] = pair
    heard.answer[at] = answer
