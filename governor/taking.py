"""What a flush publishes of the rows that changed, in one walk over them.

Of each its decision, if it is not the one that was last taken, and the row itself. Both while the
row is in the processor's caches: it comes from far away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.decisions import GRACE, is_idle, sized
from governor.encoding import encode, size_bound
from governor.evaluation import digest_of, evaluate, last_until, supply
from governor.fatigue.worn import Worn
from governor.jsontext import put
from governor.labels import Labels
from governor.records import Records
from governor.rowcodec import put_key, put_row, size_of
from governor.rows import (
    GONE,
    RECHECK,
    Rows,
    State,
    ask_next,
    flags_of,
    id_size,
    id_start,
)
from governor.rules import RuleArrays, Rules, RuleTexts
from governor.scopes import Ads, Scopes
from governor.scratch import Found, Scratch, ScratchArrays

__all__ = ["take"]

_NEWEST, _DIRTY = State.NEWEST, State.DIRTY
_GRACE = GRACE
_RULE = Found.RULE
_GONE, _RECHECK = np.uint64(GONE), np.uint64(RECHECK)
_WANTS = -1
_DONE, _RECORDS, _BYTES, _ROWS, _ROW_BYTES = 0, 1, 2, 3, 4
"""How far a walk is: dirty rows done, decisions and their bytes, rows and theirs."""


def take(
    table: Rows,
    rules: Rules,
    labels: Labels,
    scopes: Scopes,
    scratch: Scratch,
    named: list[tuple[bytes, bytes]],
    decided_at: int,
    horizon: int,
    again: bool,
) -> tuple[Records, Records, NDArray[np.int64], int]:
    """Decisions of dirty rows that differ from what was last taken, and note them as taken; the
    named ads, then every dirty row but those only evaluated anew, to the same decision.

    With ``again`` decisions that do not differ as well. Rows that nobody can ask about any more
    are marked GONE on the way.

    Returns:
        Decisions, changelog records, throttles by rule and then by control, withdrawn decisions.
    """
    count = int(table.state[State.DIRTY])
    head = Records.of([(key, value, 0) for key, value in named])
    decided = _Growing(count, np.empty(4096 + 320 * count, np.uint8))
    changed = _Growing(
        len(head) + count, np.empty(len(head.buffer) + int(size_of(table)), np.uint8)
    )
    changed.begin(head)
    by_rule = np.zeros(len(rules.arrays.hash), np.int64)
    progress = np.array([0, 0, 0, len(head), len(head.buffer)], np.int64)
    while True:
        arrays = sized(scratch, rules, scopes, table.dirty[:count], table)
        wanted = _take(
            table, rules.arrays, rules.texts, scopes.ads, scopes.worn, arrays, labels.ad_hash,
            decided_at, horizon, again, *decided.arrays(), *changed.arrays(), by_rule, progress,
        )  # fmt: skip
        if wanted == 0:
            break
        if wanted == _WANTS:
            supply(labels, scopes, arrays)
        else:
            decided.grow(int(progress[_BYTES]), int(wanted))
    records = decided.records(int(progress[_RECORDS]), int(progress[_BYTES]))
    rows = changed.records(int(progress[_ROWS]), int(progress[_ROW_BYTES]))
    return records, rows, by_rule, int(np.count_nonzero(records.value_size < 0))


@dataclass
class _Growing:
    """Records being written, values behind their keys."""

    most: int
    out: NDArray[np.uint8]

    def __post_init__(self) -> None:
        self.columns = np.zeros((3, self.most), np.int64)

    def begin(self, head: Records) -> None:
        """Have these in front."""
        self.out[: len(head.buffer)] = head.buffer
        self.columns[:, : len(head)] = head.key_start, head.key_size, head.value_size

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The bytes; the start and size of each key, and the size of each value."""
        return self.out, self.columns

    def grow(self, used: int, by: int) -> None:
        """Have room for ``by`` bytes more behind those used, and then some."""
        grown = np.empty(2 * len(self.out) + by, np.uint8)
        grown[:used] = self.out[:used]
        self.out = grown

    def records(self, count: int, size: int) -> Records:
        """The first of them."""
        start, key_size, value_size = self.columns[:, :count]
        nothing = np.zeros(count, np.int64)
        return Records(
            self.out[:size], nothing, nothing, start, key_size, start + key_size, value_size
        )


@compiled
def _take(
    table: Rows,
    rules: RuleArrays,
    texts: RuleTexts,
    ads: Ads,
    worn: Worn,
    scratch: ScratchArrays,
    ad_hash: NDArray[np.uint64],
    decided_at: int,
    horizon: int,
    again: bool,
    out: NDArray[np.uint8],
    decided: NDArray[np.int64],
    row_out: NDArray[np.uint8],
    changed: NDArray[np.int64],
    by_rule: NDArray[np.int64],
    progress: NDArray[np.int64],
) -> int:
    """Go on until all dirty rows are done (0), ``out`` is too short (by how much at most), or
    something must be supplied (-1)."""
    watermark = table.state[_NEWEST]
    for k in range(progress[_DONE], table.state[_DIRTY]):
        progress[_DONE] = k
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
            at = progress[_BYTES]
            bound = size_bound(table, row, texts, ads, scratch, found)
            if at + bound > len(out):
                return bound
            header1 = table.header[row, 1]
            record = progress[_RECORDS]
            decided[0, record] = at
            decided[1, record] = id_size(header1)
            at = put(out, at, table.ids, id_start(header1), id_size(header1))
            if found == 0:
                decided[2, record] = -1
            else:
                begin = at
                at = encode(out, at, table, row, rules, texts, ads, scratch, found, decided_at)
                decided[2, record] = at - begin
                for i in range(found):
                    by_rule[scratch.found[i, _RULE]] += 1
            table.header[row, 1] &= ~_RECHECK
            table.header[row, 2] = digest
            table.header[row, 3] = np.uint64(last)
            progress[_RECORDS] += 1
            progress[_BYTES] = at
        if flags_of(table.header[row, 1]) & (RECHECK | GONE) != RECHECK:
            record, key = progress[_ROWS], progress[_ROW_BYTES]
            at = put_key(row_out, key, table, row)
            changed[0, record], changed[1, record], changed[2, record] = key, at - key, -1
            progress[_ROW_BYTES] = at
            if not flags_of(table.header[row, 1]) & GONE:
                progress[_ROW_BYTES] = put_row(row_out, key, at, table, row, ad_hash)
                changed[2, record] = progress[_ROW_BYTES] - at
            progress[_ROWS] += 1
    progress[_DONE] = table.state[_DIRTY]
    return 0
