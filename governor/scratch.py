"""Working memory of the compiled loops, kept between calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.entries import WORDS
from governor.prefetch import AHEAD
from governor.rows import CAPACITIES
from governor.rules import CALENDARS

__all__ = [
    "RING", "Course", "Found", "Row", "Scratch", "ScratchArrays", "Slot", "Streak", "Wear", "move",
]  # fmt: skip


class Slot:
    """Columns of `ScratchArrays.slot`: one label value under one selector, in one row."""

    ROUND = 0  # the evaluation that wrote the others
    WEIGHT = 1  # of the entries seen so far
    NEWEST = 2  # time of the first one seen
    NEXT = 3  # the selector's next rule that they have not reached
    SIZE = 4


class Streak:
    """Columns of `ScratchArrays.streak`: exposures in a row without an answer."""

    ROUND = 0
    COUNT = 1
    BEGIN = 2  # of the rest that the last of them led to, FOREVER without one
    END = 3
    REST = 4  # its ticks
    LEVEL = 5
    SIZE = 6


class Course:
    """Columns of `ScratchArrays.course`: a label value's exposures, for a rule of fatigue."""

    ROUND = 0
    DEPTH = 1  # how many there are
    NEWEST = 2  # entry
    OLDEST = 3
    CURVE = 4  # row of the tables; -1 where it may not be used
    STREAK = 5  # rests in a row that were followed by no answer
    LAST = 6  # time of the last one taken in
    TOGETHER = 7  # how many were taken in at that time
    STRATUM = 8
    SIZE = 9


class Wear:
    """Columns of `ScratchArrays.wear`, beside those of `Course`."""

    WORN = 0  # the wear of those before `Course.LAST`, as of then
    ENGAGED = 1
    EXPECTED = 2
    SIZE = 3


class Found:
    """Columns of `ScratchArrays.found`: a rule or a control in force on a label."""

    LABEL = 0
    RULE = 1  # number; of controls, behind those of the rules
    FROM = 2
    UNTIL = 3
    FIRST = 4  # what the evidence says: effective limit; time of an engagement or control; streak
    SECOND = 5  # effective window or rest
    SLOT = 6  # under the rule's selector; -1 for controls
    THIRD = 7  # level; depth and share of a fatigue, see `fatigue.tiring`
    SIZE = 8


class Row:
    """What the numbers in `ScratchArrays.row` are."""

    NOW = 0
    BARE = 1  # entries that are no facts
    LENGTH = 2
    TYPE = 3  # the id's type, a row of `RuleArrays.spans`
    ZONE = 4  # a row of `Ads.period_start`
    REFUSED = 5  # whether consent is refused
    REFUSED_AT = 6  # when, -1 where it never was granted and must be
    STATE = 7
    STATE_END = 8  # when it ends without a new event; FOREVER
    NEXT_STATE = 9
    ARM = 10
    ALLOWED = 11  # bits of the rules that are asked, by number
    SIZE = 12


_FOUND = Found.SIZE

RING = 4 * AHEAD
"""Elements of a ring, a power of two."""


class ScratchArrays(NamedTuple):
    """The arrays. Those by entry are as long as the longest row can be."""

    round: NDArray[np.int64]
    slot: NDArray[np.int64]
    streak: NDArray[np.int64]
    course: NDArray[np.int64]
    wear: NDArray[np.float64]
    found: NDArray[np.int64]
    mark: NDArray[np.uint8]  # by entry
    ticks: NDArray[np.int64]  # by entry
    weight: NDArray[np.int64]  # by entry
    answer: NDArray[np.int64]  # by entry: see `fatigue.settlement.join`
    ad: NDArray[np.int64]  # by entry
    entry: NDArray[np.uint64]  # one on its way into a row
    hash: NDArray[np.uint64]  # by event, a ring: of the ids of those that come next
    hint: NDArray[np.int64]  # by event, a ring: their rows as far as a look at the index tells
    want: NDArray[np.int64]  # what is missing: a `scopes.Want`, and two ads
    period: NDArray[np.int64]  # (3, 3): zone, begin and end of the last period asked for
    row: NDArray[np.int64]  # what holds of the row being evaluated, see `Row`


@dataclass
class Scratch:
    """Holds the working memory and lets it grow."""

    arrays: ScratchArrays = field(default_factory=lambda: _arrays(64, 64))

    def sized(self, *, slots: int, found: int = 0) -> ScratchArrays:
        """The arrays, with room for so many slots and throttles."""
        now = self.arrays
        if len(now.slot) < slots or len(now.found) < found:
            self.arrays = _arrays(
                len(now.slot) if len(now.slot) >= slots else 2 * slots,
                len(now.found) if len(now.found) >= found else 2 * found,
            )
        return self.arrays


def _arrays(slots: int, found: int) -> ScratchArrays:
    entries = int(CAPACITIES[-1])
    return ScratchArrays(
        round=np.zeros(1, np.int64),
        slot=np.zeros((slots, Slot.SIZE), np.int64),
        streak=np.zeros((slots, Streak.SIZE), np.int64),
        course=np.zeros((slots, Course.SIZE), np.int64),
        wear=np.zeros((slots, Wear.SIZE)),
        found=np.zeros((found, Found.SIZE), np.int64),
        mark=np.zeros(entries, np.uint8),
        ticks=np.zeros(entries, np.int64),
        weight=np.zeros(entries, np.int64),
        answer=np.zeros(entries, np.int64),
        ad=np.zeros(entries, np.int64),
        entry=np.zeros(WORDS, np.uint64),
        hash=np.zeros(RING, np.uint64),
        hint=np.zeros(RING, np.int64),
        want=np.zeros(3, np.int64),
        period=np.full((len(CALENDARS), 3), -1, np.int64),
        row=np.zeros(Row.SIZE, np.int64),
    )


@compiled
def move(found: NDArray[np.int64], one: int, to: int) -> None:
    """Copy what was found as number ``one`` to another place."""
    for column in range(_FOUND):
        found[to, column] = found[one, column]
