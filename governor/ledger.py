"""The exposure ledger of one partition: a set of entries per user, exact whatever the order.

`Ledger.apply` changes it, `Ledger.decide` answers, `Ledger.take` hands what changed to the
outbox, `Ledger.load` reads it back from the changelog. The loop that applies events is compiled
and reads like the definition of a row:

- newest first, in the total order of `governor.entries`;
- everything later than the newest event less the history horizon, and of each kind of entry at
  most the newest ``row_limit``;
- the same event again changes nothing; of two entries that stand for one event or one exposure
  the smaller counts and the other is shadowed.

Each of these depends on the set of events and not on their order, so the row does too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from governor import decisions, rowcodec, rows
from governor.compiled import compiled
from governor.entries import (
    CONTROL,
    ENGAGEMENT,
    EXPOSURE,
    WORDS,
    any_shadowed,
    cast_shadow,
    cast_shadows,
    kind_of,
    older,
    shadowed,
    ticks_of,
    time_word,
)
from governor.events import Columns
from governor.hashing import hash_bytes
from governor.labels import Labels
from governor.policy import Cap, Policy, Spacing
from governor.records import Records
from governor.rows import (
    CAPACITIES,
    Rows,
    State,
    add,
    find,
    has_room,
    length_of,
    mark_dirty,
    reserve,
    run_of,
    set_length,
)

__all__ = ["Applied", "Ledger", "Taken"]

APPLIED, DUPLICATE, LATE, DROPPED = 0, 1, 2, 3
OUTCOMES = ("applied", "duplicate", "late", "overflow")
KINDS = {"impressions": EXPOSURE, "engagements": ENGAGEMENT, "controls": CONTROL}

_NEWEST, _OVERFLOW, _DIRTY = State.NEWEST, State.OVERFLOW, State.DIRTY
_AD_BITS = np.uint64(24)
_EXPOSURE_BITS = np.uint64((1 << 40) - 1)


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of the events of one batch."""

    outcome: NDArray[np.uint8]
    """One of the indices of `OUTCOMES` for each event."""

    def counts(self) -> dict[str, int]:
        """Events by outcome."""
        tally = np.bincount(self.outcome, minlength=len(OUTCOMES))
        return {name: int(count) for name, count in zip(OUTCOMES, tally, strict=True)}


@dataclass(frozen=True, slots=True)
class Taken:
    """What a flush publishes; the ledger counts it as published."""

    decisions: Records
    """Keyed by user id; a null value withdraws the decision."""
    changelog: Records
    """Names of ads that rows speak of for the first time, then whole rows."""
    users: int
    """Rows taken."""
    by_rule: NDArray[np.int64]
    """Throttles in the decisions published, by rule, in the policy's order."""
    withdrawn: int
    """Tombstones among the decisions."""


class Ledger:
    """Rows of one partition.

    Args:
        policy: the rules that `decide` and `take` answer by.
        horizon: how far back a row looks, in ticks; no rule may look further.
        row_limit: how many exposures, engagements and controls each a row holds.
    """

    def __init__(self, policy: Policy, *, horizon: int, row_limit: int = 128) -> None:
        windows = (rule.window for rule in policy.rules if isinstance(rule, Cap | Spacing))
        longest = max(windows, default=0)
        if longest > horizon:
            raise ValueError(f"a rule looks back {longest} ticks, beyond the horizon of {horizon}")
        if 3 * row_limit > CAPACITIES[-1]:
            raise ValueError(f"row_limit is at most {CAPACITIES[-1] // 3}, not {row_limit}")
        self.policy = policy
        self.horizon = horizon
        self.row_limit = row_limit
        self.rules = decisions.compile_rules(policy)
        self.labels = Labels(self.rules.dimensions)
        self._rows = rows.empty()
        self._scratch = decisions.Scratch()

    def __len__(self) -> int:
        return int(self._rows.state[State.USERS])

    @property
    def entries(self) -> int:
        """Exposures, engagements and controls held."""
        return int(self._rows.state[State.ENTRIES])

    @property
    def overflow(self) -> int:
        """Entries dropped by the row limit since the ledger was made."""
        return int(self._rows.state[State.OVERFLOW])

    @property
    def dirty(self) -> int:
        """Rows changed since they were last taken."""
        return int(self._rows.state[State.DIRTY])

    @property
    def newest(self) -> int:
        """The newest event time applied or loaded, in ticks: the partition's watermark."""
        return int(self._rows.state[State.NEWEST])

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self._rows)

    def apply(self, columns: Columns) -> Applied:
        """Enter events into the rows of their users."""
        outcome = np.zeros(len(columns), np.uint8)
        done = 0
        while True:
            done = _apply(
                self._rows,
                columns.text,
                columns.user_start,
                columns.user_size,
                columns.ts,
                columns.what,
                columns.event,
                columns.exposure,
                columns.ad,
                self.labels.ad_hash,
                self.horizon,
                self.row_limit,
                outcome,
                done,
            )
            if done == len(columns):
                break
            self._make_room(int(columns.user_size[done]))
        if rows.wasteful(self._rows):
            self._rows = rows.compact(self._rows)
        return Applied(outcome)

    def decide(self, user_id: str) -> dict[str, Any] | None:
        """The throttles that hold for a user at the newest event of the row; changes nothing.

        Returns:
            ``{"id": ..., "throttles": [...]}`` as in the decision record, or None when there are
            none.
        """
        row = self._find(user_id)
        if row < 0:
            return None
        text = decisions.encode_one(self._rows, row, self.rules, self.labels, self._scratch)
        if text is None:
            return None
        record: dict[str, Any] = msgspec.json.decode(text)
        return {"id": record["id"], "throttles": record["throttles"]}

    def live(self, user_id: str) -> dict[str, int] | None:
        """How many exposures, engagements and controls of a user count; changes nothing.

        Returns:
            By topic of the events, or None when there is no row.
        """
        row = self._find(user_id)
        if row < 0:
            return None
        start, length = run_of(self._rows.header[row, 0]), length_of(self._rows.header[row, 0])
        words = self._rows.arena[start : start + length, 0]
        kinds = Counter(kind_of(word) for word in words if not shadowed(word))
        return {topic: kinds[kind] for topic, kind in KINDS.items()}

    def take(self, decided_at: int) -> Taken:
        """What changed since the last call, encoded: decisions and changelog rows.

        Args:
            decided_at: the time to write into the decisions, in ticks.
        """
        named = rowcodec.ad_records(self.labels.unwritten())
        taken, by_rule, withdrawn = decisions.take(
            self._rows, self.rules, self.labels, self._scratch, decided_at, self.horizon
        )
        changelog = rowcodec.encode(self._rows, self.labels, named)
        users = int(rowcodec.settle(self._rows))
        return Taken(taken, changelog, users, by_rule, withdrawn)

    def sweep(self, limit: int) -> None:
        """Look at the next ``limit`` rows: withdraw decisions that have run out by `newest`, and
        forget rows whose newest entry is older than twice the horizon.

        A row between one horizon and two is of use only to an event that late; one that arrives
        later still meets a new row.
        """
        rowcodec.sweep(self._rows, self.horizon, limit)

    def load(self, changelog: Records) -> int:
        """Replace rows by those of the changelog, in log order.

        Returns:
            The rows read, tombstones included.

        Raises:
            rowcodec.RowError: a record is not a row of this format, or is damaged.
        """
        self._rows, count = rowcodec.load(
            self._rows, self.labels, changelog, self.horizon, self.row_limit
        )
        if rows.wasteful(self._rows):
            self._rows = rows.compact(self._rows)
        return count

    def describe(self) -> Mapping[str, int]:
        """Sizes for metrics."""
        state = self._rows.state
        return {
            "users": len(self),
            "entries": self.entries,
            "bytes": self.nbytes,
            "overflow": int(state[State.OVERFLOW]),
            "ads": len(self.labels),
        }

    def _find(self, user_id: str) -> int:
        text = np.frombuffer(user_id.encode(), np.uint8)
        return int(_row_of(self._rows, text))

    def _make_room(self, id_bytes: int) -> None:
        self._rows = rows.grow(self._rows, entries=int(CAPACITIES[-1]), id_bytes=id_bytes)


@compiled
def _apply(
    table: Rows,
    text: NDArray[np.uint8],
    user_start: NDArray[np.int64],
    user_size: NDArray[np.int64],
    ts: NDArray[np.int64],
    what: NDArray[np.int64],
    event: NDArray[np.uint64],
    exposure: NDArray[np.uint64],
    ad: NDArray[np.int64],
    ad_hash: NDArray[np.uint64],
    horizon: int,
    row_limit: int,
    outcome: NDArray[np.uint8],
    first: int,
) -> int:
    """Apply events from ``first`` on; return where it stopped for want of room."""
    new = np.zeros(WORDS, np.uint64)
    for i in range(first, len(ts)):
        hashed = hash_bytes(text, user_start[i], user_size[i])
        row = find(table, hashed, text, user_start[i], user_size[i])
        entries = 1
        if row >= 0:
            entries = min(length_of(table.header[row, 0]) + 1, 3 * row_limit)
        if table.state[_DIRTY] == len(table.dirty) or not has_room(
            table, row, entries, user_size[i]
        ):
            return i
        if row < 0:
            row = add(table, hashed, text, user_start[i], user_size[i])
        new[0] = time_word(ts[i], what[i])
        new[1] = event[i]
        new[2] = ((exposure[i] & _EXPOSURE_BITS) << _AD_BITS) | np.uint64(ad[i])
        outcome[i] = insert(table, row, new, ad_hash, horizon, row_limit)
        if outcome[i] == APPLIED:
            mark_dirty(table, row)
            if ts[i] > table.state[_NEWEST]:
                table.state[_NEWEST] = ts[i]
    return len(ts)


@compiled
def _row_of(table: Rows, text: NDArray[np.uint8]) -> int:
    return find(table, hash_bytes(text, 0, len(text)), text, 0, len(text))


@compiled
def insert(
    table: Rows,
    row: int,
    new: NDArray[np.uint64],
    ad_hash: NDArray[np.uint64],
    horizon: int,
    row_limit: int,
) -> int:
    """Put one entry into a row; say what became of it."""
    start, length = run_of(table.header[row, 0]), length_of(table.header[row, 0])
    entry = table.arena[start:]
    now = ticks_of(new[0])
    if length > 0 and now <= ticks_of(entry[0, 0]) - horizon:
        return LATE

    at = 0
    order = 1
    while at < length:
        order = older(new, entry[at], ad_hash)
        if order != 1:
            break
        at += 1
    if at < length and order == 0:
        return DUPLICATE

    kept = length
    if at == 0:
        while kept > 0 and ticks_of(entry[kept - 1, 0]) <= now - horizon:
            kept -= 1

    same_kind, oldest = 0, -1
    for i in range(kept):
        if kind_of(entry[i, 0]) == kind_of(new[0]):
            same_kind += 1
            oldest = i
    if same_kind == row_limit:
        table.state[_OVERFLOW] += 1
        if oldest < at:
            return DROPPED
        for i in range(oldest, kept - 1):
            for word in range(WORDS):
                entry[i, word] = entry[i + 1, word]
        kept -= 1

    set_length(table, row, kept)
    reserve(table, row, kept + 1)
    entry = table.arena[run_of(table.header[row, 0]) :]
    for i in range(kept, at, -1):
        for word in range(WORDS):
            entry[i, word] = entry[i - 1, word]
    for word in range(WORDS):
        entry[at, word] = new[word]
    set_length(table, row, kept + 1)

    if kept < length and any_shadowed(entry, kept + 1):
        cast_shadows(entry, kept + 1)
    else:
        cast_shadow(entry, kept + 1, at)
    return APPLIED
