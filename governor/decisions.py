"""Decisions of rows that changed: which are new since they were last taken, encoded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled, inlined
from governor.encoding import encode, size_bound
from governor.entries import newest_of
from governor.evaluation import digest_of, evaluate, last_until, supply
from governor.fatigue.worn import Worn
from governor.jsontext import put
from governor.kept import held_by_controls
from governor.labels import Labels
from governor.records import Records
from governor.rows import (
    GONE,
    RECHECK,
    Rows,
    State,
    ask_next,
    id_size,
    id_start,
    length_of,
    run_of,
)
from governor.rules import RuleArrays, Rules, RuleTexts
from governor.scopes import Ads, Scopes
from governor.scratch import Found, Scratch, ScratchArrays
from governor.ticks import SECOND

__all__ = ["GRACE", "encode_one", "found_in", "is_idle", "take"]

GRACE = 3600 * SECOND
"""How long a decision that has run out may stay on the topic, in ticks behind the watermark. One
device's clock may run ahead of all others; what is withdrawn has run out by everybody's."""

_NEWEST, _DIRTY = State.NEWEST, State.DIRTY
_GRACE = GRACE
_RULE = Found.RULE
_GONE, _RECHECK = np.uint64(GONE), np.uint64(RECHECK)
_WANTS = -1


def found_in(
    table: Rows, row: int, rules: Rules, labels: Labels, scopes: Scopes, scratch: Scratch
) -> int:
    """Evaluate one row: how much is in force on it; what, is in ``scratch.arrays.found``."""
    while True:
        arrays = _sized(scratch, rules, scopes, np.array([row], np.int64), table)
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


def take(
    table: Rows,
    rules: Rules,
    labels: Labels,
    scopes: Scopes,
    scratch: Scratch,
    decided_at: int,
    horizon: int,
    again: bool,
) -> tuple[Records, NDArray[np.int64], int]:
    """Decisions of dirty rows that differ from what was last taken, and note them as taken.

    With ``again`` those that do not differ as well.

    Rows that nobody can ask about any more are marked GONE on the way.

    Returns:
        The records, throttles by rule, tombstones.
    """
    count = int(table.state[State.DIRTY])
    starts = np.zeros(count, np.int64)
    key_size = np.zeros(count, np.int64)
    value_size = np.zeros(count, np.int64)
    by_rule = np.zeros(len(rules.arrays.hash), np.int64)
    out = np.empty(4096 + 320 * count, np.uint8)
    progress = np.zeros(3, np.int64)  # dirty rows done, records, bytes
    while True:
        arrays = _sized(scratch, rules, scopes, table.dirty[:count], table)
        wanted = _take(
            table, rules.arrays, rules.texts, scopes.ads, scopes.worn, arrays, decided_at, horizon,
            again, out, starts, key_size, value_size, by_rule, progress,
        )  # fmt: skip
        if wanted == 0:
            break
        if wanted == _WANTS:
            supply(labels, scopes, arrays)
            continue
        grown = np.empty(2 * len(out) + wanted, np.uint8)
        grown[: progress[2]] = out[: progress[2]]
        out = grown
    n = int(progress[1])
    starts, key_size, value_size = starts[:n], key_size[:n], value_size[:n]
    nothing = np.zeros(n, np.int64)
    records = Records(
        out[: progress[2]], nothing, nothing, starts, key_size, starts + key_size, value_size
    )
    return records, by_rule, int(np.count_nonzero(value_size < 0))


def _sized(
    scratch: Scratch, rules: Rules, scopes: Scopes, rows: NDArray[np.int64], table: Rows
) -> ScratchArrays:
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


@compiled
def _take(
    table: Rows,
    rules: RuleArrays,
    texts: RuleTexts,
    ads: Ads,
    worn: Worn,
    scratch: ScratchArrays,
    decided_at: int,
    horizon: int,
    again: bool,
    out: NDArray[np.uint8],
    starts: NDArray[np.int64],
    key_size: NDArray[np.int64],
    value_size: NDArray[np.int64],
    by_rule: NDArray[np.int64],
    progress: NDArray[np.int64],
) -> int:
    """Go on until all dirty rows are done (0), ``out`` is too short (by how much at most), or
    something must be supplied (-1)."""
    watermark = table.state[_NEWEST]
    for k in range(progress[0], table.state[_DIRTY]):
        progress[0] = k
        ask_next(table, table.dirty, k, table.state[_DIRTY])
        row = table.dirty[k]
        found = evaluate(table, row, rules, ads, worn, scratch)
        if found < 0:
            return _WANTS
        last = last_until(scratch, found)
        if is_idle(table, row, rules, horizon):
            table.header[row, 1] |= _GONE
            found = 0
        if last <= watermark - _GRACE:
            found = 0
        digest = digest_of(rules, ads, scratch, found)
        if again or digest != table.header[row, 2]:
            at = progress[2]
            bound = size_bound(table, row, texts, ads, scratch, found)
            if at + bound > len(out):
                return bound
            header1 = table.header[row, 1]
            record = progress[1]
            starts[record] = at
            key_size[record] = id_size(header1)
            at = put(out, at, table.ids, id_start(header1), id_size(header1))
            if found == 0:
                value_size[record] = -1
            else:
                begin = at
                at = encode(out, at, table, row, rules, texts, ads, scratch, found, decided_at)
                value_size[record] = at - begin
                for i in range(found):
                    by_rule[scratch.found[i, _RULE]] += 1
            table.header[row, 1] &= ~_RECHECK
            table.header[row, 2] = digest
            table.header[row, 3] = np.uint64(last)
            progress[1] += 1
            progress[2] = at
    progress[0] = table.state[_DIRTY]
    return 0
