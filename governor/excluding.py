"""Which events are not taken in: invalid traffic, and ids that the policy excludes; an erasure is
heeded whoever asks for it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import allocating, compiled
from governor.entries import CONTROL, INVALID, TYPE_SHIFT
from governor.events import CONTROL_TYPES, Columns
from governor.rules import Excluded

__all__ = ["excluded"]

_WHAT = (1 << TYPE_SHIFT + 5) - 1
_ERASE = CONTROL | CONTROL_TYPES["erase"] << TYPE_SHIFT


def excluded(columns: Columns, rules: Excluded) -> NDArray[np.uint8]:
    """1 for each event to leave out: of an event that names several ids, all or none."""
    out = (columns.what & INVALID > 0).astype(np.uint8)
    if len(rules.start) > 1:
        _mark(columns.text, columns.user_start, columns.user_size, columns.source, rules, out)
        # Of an id that was not always excluded there may be something to erase.
        out[columns.what & _WHAT == _ERASE] = 0
    return out


@allocating
def _mark(
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    source: NDArray[np.int64],
    rules: Excluded,
    out: NDArray[np.uint8],
) -> None:
    of_record = np.zeros(source.max() + 1 if len(source) > 0 else 0, np.uint8)
    for i in range(len(out)):
        value = start[i]
        for at in range(start[i], start[i] + size[i]):
            if text[at] == 0:
                value = at + 1
        if _is_excluded(text, value, start[i] + size[i] - value, rules):
            of_record[source[i]] = 1
    for i in range(len(out)):
        out[i] |= of_record[source[i]]


@compiled
def _is_excluded(text: NDArray[np.uint8], at: int, size: int, rules: Excluded) -> bool:
    for k in range(len(rules.start) - 1):
        first, length = rules.start[k], rules.start[k + 1] - rules.start[k]
        if length > size or (k < rules.ids and length != size):
            continue
        same = True
        for i in range(length):
            if text[at + i] != rules.text[first + i]:
                same = False
                break
        if same:
            return True
    return False
