"""One entry of a row, packed into three 64-bit words.

    word 0   time in ticks (52 bits) | what happened (12 bits)
    word 1   hash of the event id
    word 2   hash of the exposure's id (40 bits) | ad (24 bits)

"What happened" holds the kind of entry (2 bits), its type within the kind (5 bits), the
retargeting flag, and the shadow bit, which is derived: an entry is *shadowed*, and counts for
nothing, when a smaller entry of the same kind stands for the same event or the same exposure.
The bits left over are zero. Time fits until the year 2112.

Entries have one total order, by time, then event hash, then content, so that a row is the same
whatever order its events came in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled, integer
from governor.hashing import mix

__all__ = [
    "CONTROL",
    "ENGAGEMENT",
    "EXPOSURE",
    "MAX_TIME",
    "RETARGETING",
    "WORDS",
    "ad_of",
    "any_shadowed",
    "cast_shadow",
    "cast_shadows",
    "content",
    "kind_of",
    "older",
    "shadowed",
    "ticks_of",
    "time_word",
    "twins",
]

WORDS = 3
EXPOSURE, ENGAGEMENT, CONTROL = 0, 1, 2
TYPE_SHIFT = 2
RETARGETING = 1 << 7
SHADOW = 1 << 8
MAX_TIME = (1 << 51) - 1
"""The latest time an entry can have, in ticks."""

_TIME_SHIFT = np.uint64(12)
_KIND = np.uint64(3)
_SHADOW = np.uint64(SHADOW)
_WHAT = np.uint64(0xFFF ^ SHADOW)
_AD = np.uint64((1 << 24) - 1)
_AD_BITS = np.uint64(24)
_NOTHING = np.uint64(0)


@compiled
def time_word(ticks: int, what: int) -> np.uint64:
    """Word 0 of an entry that is not shadowed."""
    return (np.uint64(ticks) << _TIME_SHIFT) | np.uint64(what)


@compiled
def ticks_of(word0: np.uint64) -> int:
    """The entry's time."""
    return integer(word0 >> _TIME_SHIFT)


@compiled
def kind_of(word0: np.uint64) -> int:
    """EXPOSURE, ENGAGEMENT or CONTROL."""
    return integer(word0 & _KIND)


@compiled
def shadowed(word0: np.uint64) -> bool:
    """Whether a smaller entry stands for the same event or exposure."""
    return bool((word0 & _SHADOW) != _NOTHING)


@compiled
def ad_of(word2: np.uint64) -> int:
    """The ad's number in its partition's `Labels`."""
    return integer(word2 & _AD)


@compiled
def content(word0: np.uint64, word2: np.uint64, ad_hash: NDArray[np.uint64]) -> np.uint64:
    """A hash of all that the entry says besides its time and event id."""
    return mix(ad_hash[ad_of(word2)], ((word2 >> _AD_BITS) << _TIME_SHIFT) | (word0 & _WHAT))


@compiled
def older(a: NDArray[np.uint64], b: NDArray[np.uint64], ad_hash: NDArray[np.uint64]) -> int:
    """1 when entry ``a`` is smaller than ``b``, -1 when it is larger, 0 when they are the same."""
    ticks_a, ticks_b = ticks_of(a[0]), ticks_of(b[0])
    if ticks_a != ticks_b:
        return 1 if ticks_a < ticks_b else -1
    if a[1] != b[1]:
        return 1 if a[1] < b[1] else -1
    content_a, content_b = content(a[0], a[2], ad_hash), content(b[0], b[2], ad_hash)
    if content_a != content_b:
        return 1 if content_a < content_b else -1
    return 0


@compiled
def twins(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> bool:
    """Whether two entries stand for the same event, or are events of the same exposure."""
    if kind_of(a[0]) != kind_of(b[0]):
        return False
    if a[1] == b[1]:
        return True
    return kind_of(a[0]) == EXPOSURE and bool((a[2] >> _AD_BITS) == (b[2] >> _AD_BITS))


@compiled
def cast_shadow(entry: NDArray[np.uint64], length: int, at: int) -> None:
    """Shadow the twins of the entry at ``at`` that are larger, and it by those smaller."""
    for i in range(length):
        if i != at and twins(entry[i], entry[at]):
            if i < at:
                entry[i, 0] |= _SHADOW
            else:
                entry[at, 0] |= _SHADOW


@compiled
def cast_shadows(entry: NDArray[np.uint64], length: int) -> None:
    """The shadows of a whole row anew: what lost its smaller twin counts now."""
    for i in range(length):
        entry[i, 0] &= ~_SHADOW
        for j in range(i + 1, length):
            if twins(entry[i], entry[j]):
                entry[i, 0] |= _SHADOW
                break


@compiled
def any_shadowed(entry: NDArray[np.uint64], length: int) -> bool:
    """Whether the row has an entry that counts for nothing."""
    for i in range(length):  # noqa: SIM110 - compiled, a loop is what it should be
        if shadowed(entry[i, 0]):
            return True
    return False
