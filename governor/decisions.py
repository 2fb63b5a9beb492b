"""The decision of one row, and whether anybody asks for it any more."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled, inlined
from governor.encoding import encode, size_bound
from governor.entries import newest_of
from governor.evaluation import evaluate, supply
from governor.kept import held_by_controls
from governor.labels import Labels
from governor.rows import (
    Rows,
    State,
    length_of,
    run_of,
)
from governor.rules import RuleArrays, Rules
from governor.scopes import Scopes
from governor.scratch import Scratch, ScratchArrays
from governor.ticks import SECOND

__all__ = ["GRACE", "encode_one", "found_in", "is_idle", "sized"]

GRACE = 3600 * SECOND
"""How long a decision that has run out may stay on the topic, in ticks behind the watermark. One
device's clock may run ahead of all others; what is withdrawn has run out by everybody's."""

_NEWEST = State.NEWEST


def found_in(
    table: Rows, row: int, rules: Rules, labels: Labels, scopes: Scopes, scratch: Scratch
) -> int:
    """Evaluate one row: how much is in force on it; what, is in ``scratch.arrays.found``."""
    while True:
        arrays = sized(scratch, rules, scopes, np.array([row], np.int64), table)
        found = int(evaluate(table, row, rules.arrays, scopes.ads, scopes.worn, arrays))
        if found >= 0:
            return found
        supply(labels, scopes, arrays)


def encode_one(
    table: Rows, row: int, rules: Rules, labels: Labels, scopes: Scopes, scratch: Scratch
) -> bytes | None:
    """The decision record of one row, or None when nothing holds."""
    found = found_in(table, row, rules, labels, scopes, scratch)
    if found == 0:
        return None
    arrays, ads = scratch.arrays, scopes.ads
    size = size_bound(table, row, rules.texts, ads, arrays, found)
    out = np.empty(size, np.uint8)
    end = encode(out, 0, table, row, rules.arrays, rules.texts, ads, arrays, found, 0)
    return out[:end].tobytes()


def sized(
    scratch: Scratch, rules: Rules, scopes: Scopes, rows: NDArray[np.int64], table: Rows
) -> ScratchArrays:
    """Working memory with room for all that can be in force on one of these rows."""
    found = (int(_longest_row(table, rows)) + 1) * (len(rules.policy.rules) + 3)
    return scratch.sized(slots=scopes.slots, found=found)


@compiled
def _longest_row(table: Rows, rows: NDArray[np.int64]) -> int:
    longest = 0
    for row in rows:
        longest = max(longest, length_of(table.header[row, 0]))
    return longest


@inlined
def is_idle(table: Rows, row: int, rules: RuleArrays, horizon: int) -> bool:
    """Whether nobody asks about a row any more: it is empty, or two horizons behind the newest
    event, and nothing that the person said is in force."""
    length = length_of(table.header[row, 0])
    if length == 0:
        return True
    entry = table.arena[run_of(table.header[row, 0]) :]
    watermark = table.state[_NEWEST]
    if newest_of(entry, length) > watermark - 2 * horizon:
        return False
    return not held_by_controls(entry, length, rules, watermark)
