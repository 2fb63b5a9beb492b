"""One entry of a row, packed into three 64-bit words.

    word 0   time in ticks (52 bits) | what happened (12 bits)
    word 1   hash of the event id
    word 2   hash of the exposure's id (40 bits) | ad (24 bits)

"What happened" holds the kind of entry (2 bits), its type within the kind (5 bits), the
retargeting flag, the shadow bit, and whether an engagement could not have been seen. The shadow
bit is derived: an entry is *shadowed*, and counts for nothing, when a smaller entry of the same
kind stands for the same event or the same exposure. The bits left over are zero. Time fits until
the year 2112.

Entries have one total order, by time, then event hash, then content, so that a row is the same
whatever order its events came in. Exposures, engagements and controls stand newest first;
behind them the row's *facts*, of each type at most the newest: what several events say and only
the last of them decides (the time zone, a grant and a refusal of consent), and how far back the
row has been cut.
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
    "FACT",
    "FACTS",
    "INVALID",
    "MAX_TIME",
    "RETARGETING",
    "UNMEASURABLE",
    "WORDS",
    "ad_of",
    "any_shadowed",
    "cast_shadow",
    "cast_shadows",
    "content",
    "fact_of",
    "facts_from",
    "kind_of",
    "newest_of",
    "older",
    "shadowed",
    "ticks_of",
    "time_word",
    "twins",
    "type_of",
]

WORDS = 3
EXPOSURE, ENGAGEMENT, CONTROL, FACT = 0, 1, 2, 3
TYPE_SHIFT = 2
RETARGETING = 1 << 7
SHADOW = 1 << 8
UNMEASURABLE = 1 << 9
INVALID = 1 << 11
"""Of an event on its way only: it is not taken in."""

VIEWABLE = 2
"""The type of an exposure that was seen."""

CLICK, CONVERSION, HIDDEN, COMPLAINT, OTHER = 1, 4, 5, 6, 31
"""Types of engagements; what OTHER is, its ad's labels say."""

OPT_OUT, OPT_IN, CONSENT, LESS_OFTEN, ERASE, LINK, HIDE = 0, 1, 2, 3, 4, 5, 6
"""Types of controls. Of these, CONSENT, ERASE and LINK are never entries of a row."""

ZONE, GRANT, REFUSAL, CUT = 0, 1, 2, 3
"""Types of facts. The ad of a ZONE is its name; a CUT is the newest entry that was pushed out."""

FACTS = 4
"""The most facts that a row holds."""

MAX_TIME = (1 << 51) - 1
"""The latest time an entry can have, in ticks."""

_TIME_SHIFT = np.uint64(12)
_KIND = np.uint64(3)
_TYPE_SHIFT, _TYPE = np.uint64(TYPE_SHIFT), np.uint64(31)
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
    """EXPOSURE, ENGAGEMENT, CONTROL or FACT."""
    return integer(word0 & _KIND)


@compiled
def type_of(word0: np.uint64) -> int:
    """The entry's type within its kind."""
    return integer((word0 >> _TYPE_SHIFT) & _TYPE)


@compiled
def shadowed(word0: np.uint64) -> bool:
    """Whether a smaller entry stands for the same event or exposure."""
    return bool((word0 & _SHADOW) != _NOTHING)


@compiled
def ad_of(word2: np.uint64) -> int:
    """The ad's number in its partition's `Labels`."""
    return integer(word2 & _AD)


@compiled
def facts_from(entry: NDArray[np.uint64], length: int) -> int:
    """Where a row's facts begin: how many other entries it holds."""
    at = length
    while at > 0 and kind_of(entry[at - 1, 0]) == FACT:
        at -= 1
    return at


@compiled
def fact_of(entry: NDArray[np.uint64], length: int, wanted: int) -> int:
    """Where the fact of this type stands, or -1."""
    at = length - 1
    while at >= 0 and kind_of(entry[at, 0]) == FACT:
        if type_of(entry[at, 0]) == wanted:
            return at
        at -= 1
    return -1


@compiled
def newest_of(entry: NDArray[np.uint64], length: int) -> int:
    """The newest time of a row that is not empty: *now*, as far as the row knows."""
    now = ticks_of(entry[0, 0])
    at = length - 1
    while at > 0 and kind_of(entry[at, 0]) == FACT:
        now = max(now, ticks_of(entry[at, 0]))
        at -= 1
    return now


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
    # As `twins` says, but for what does not change on the way.
    kind, event, exposure = kind_of(entry[at, 0]), entry[at, 1], entry[at, 2] >> _AD_BITS
    for i in range(length):
        alike = entry[i, 1] == event
        if kind == EXPOSURE:
            alike = alike or entry[i, 2] >> _AD_BITS == exposure
        if alike and kind_of(entry[i, 0]) == kind and i != at:
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
