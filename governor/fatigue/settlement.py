"""Settlement: which exposures were answered, when, and when it is known that one was not.

An engagement answers the exposure that it names; one that names none that the row holds, the
newest that has all its labels and whose window it falls into: the last touch. It must come within
the attribution window of its type for that exposure (`rules.attribution_windows`). A ``hide`` or a
``complaint`` is no answer.

All of it is computed over the row's set of entries, so it does not matter which side came first;
an engagement that comes late changes the answer, and nothing has been counted that it would have
to take back. An exposure is *settled* when its longest window has passed, by whatever clock the
caller goes by: a row's newest event for decisions, the partition's for curves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled, inlined
from governor.entries import (
    COMPLAINT,
    ENGAGEMENT,
    EXPOSURE,
    HIDDEN,
    OTHER,
    ad_of,
    kind_of,
    shadowed,
    ticks_of,
    type_of,
)
from governor.reactions import exposure_of
from governor.scopes import LABELLED, Ads, Col, agrees
from governor.scratch import Row, ScratchArrays

__all__ = ["UNANSWERED", "join", "settles_at"]

UNANSWERED = 1 << 62
"""Later than every time, in ticks."""

_BARE = Row.BARE
_FLAGS, _CUSTOM, _WINDOWS = Col.FLAGS, Col.TYPE, Col.WINDOWS


@compiled
def join(entry: NDArray[np.uint64], ads: Ads, scratch: ScratchArrays) -> None:
    """Note in ``scratch.answer`` the time of each exposure's first answer, or UNANSWERED.

    ``scratch.row`` says how many entries there are. Of entries that are no exposures, and of
    exposures that count for nothing, it is UNANSWERED.
    """
    bare = scratch.row[_BARE]
    for i in range(bare):
        scratch.answer[i] = UNANSWERED
    for j in range(bare):
        if kind_of(entry[j, 0]) != ENGAGEMENT or shadowed(entry[j, 0]):
            continue
        kind = type_of(entry[j, 0])
        if kind in (HIDDEN, COMPLAINT):
            continue
        if kind == OTHER and ads.ad[ad_of(entry[j, 2]), _CUSTOM] > OTHER:
            kind = ads.ad[ad_of(entry[j, 2]), _CUSTOM]
        ts = ticks_of(entry[j, 0])
        shown = exposure_of(entry, bare, j)
        if shown < 0:
            shown = _last_touch(entry, ads, bare, j, kind)
        elif ts - ticks_of(entry[shown, 0]) >= _window(entry, ads, shown, kind):
            shown = -1
        if shown >= 0:
            scratch.answer[shown] = min(scratch.answer[shown], ts)


@compiled
def _last_touch(entry: NDArray[np.uint64], ads: Ads, bare: int, j: int, kind: int) -> int:
    """The newest exposure with an engagement's labels, no later than it, that it answers; or -1."""
    if not ads.ad[ad_of(entry[j, 2]), _FLAGS] & LABELLED:
        return -1
    ts = ticks_of(entry[j, 0])
    for i in range(bare):
        shown = ticks_of(entry[i, 0])
        if shown > ts or kind_of(entry[i, 0]) != EXPOSURE or shadowed(entry[i, 0]):
            continue
        if ts - shown < _window(entry, ads, i, kind) and agrees(
            ads, ad_of(entry[j, 2]), ad_of(entry[i, 2])
        ):
            return i
    return -1


@inlined
def _window(entry: NDArray[np.uint64], ads: Ads, i: int, kind: int) -> int:
    """For how long a type of engagement answers the exposure ``i``."""
    return int(ads.window[ads.ad[ad_of(entry[i, 2]), _WINDOWS], kind])


@inlined
def settles_at(entry: NDArray[np.uint64], ads: Ads, i: int) -> int:
    """When it is known whether anything answers the exposure ``i``: no engagement of this time or
    later can."""
    return ticks_of(entry[i, 0]) + _window(entry, ads, i, 0)
