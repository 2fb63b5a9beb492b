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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from governor import decisions, explaining, rowcodec, rows, taking, union
from governor.applying import apply_events, enter
from governor.compiled import compiled
from governor.entries import CONTROL, ENGAGEMENT, EXPOSURE, kind_of, shadowed
from governor.evaluation import supply
from governor.events import MAX_ID_BYTES, Columns
from governor.excluding import excluded
from governor.fatigue.histories import History, histories_of
from governor.fatigue.sampling import Marks, Sampled, Shares, choose
from governor.fatigue.versions import Version
from governor.hashing import hash_bytes
from governor.holding import DONE, FULL, NARROW, UNHEARD, Governing, Spoken
from governor.image import Image, image_of, put_back
from governor.kept import HARD_LIMIT
from governor.labels import Labels
from governor.memory import put_together
from governor.policy import Cap, Policy, Spacing
from governor.records import Records
from governor.rows import (
    CAPACITIES,
    GONE,
    Rows,
    State,
    add,
    find,
    length_of,
    mark_dirty,
    run_of,
    set_length,
)
from governor.rules import compile_rules
from governor.scopes import Scopes
from governor.scratch import Scratch
from governor.survey import Survey, survey

__all__ = ["Applied", "Ledger", "Taken"]

KINDS = {"impressions": EXPOSURE, "engagements": ENGAGEMENT, "controls": CONTROL}
OUTCOMES = ("applied", "duplicate", "late", "overflow", "refused", "excluded", "erased")
"""In the order of the codes of `governor.applying`."""

_MAY_TIDY, _MUST_TIDY = 8, 4
"""One in so many entries, or bytes of ids, unused."""


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
    """Throttles in the decisions published, by rule in the policy's order, then by what people
    say (`governor.rules.CONTROL_REASONS`)."""
    withdrawn: int
    """Tombstones among the decisions."""
    sampled: Sampled
    """Rows taken of people who are observed."""
    newest: int
    """The ledger's newest event time, in ticks: up to it, all has been taken."""


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
        if row_limit > HARD_LIMIT:
            raise ValueError(f"row_limit is at most {HARD_LIMIT}, not {row_limit}")
        self.horizon = horizon
        self.row_limit = row_limit
        self.labels = Labels()
        self.version: Version | None = None
        self._observed: _Observed | None = None
        self._rows = rows.empty()
        self._govern(policy)

    def __len__(self) -> int:
        return int(self._rows.state[State.USERS])

    @property
    def entries(self) -> int:
        """Exposures, engagements, controls and facts held."""
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

    def set_policy(self, policy: Policy) -> None:
        """Answer by another policy from now on. Rows stay; `reevaluate` has them asked anew."""
        self._govern(policy)

    def _govern(self, policy: Policy) -> None:
        windows = (rule.window for rule in policy.rules if isinstance(rule, Cap | Spacing))
        longest = max(windows, default=0)
        if longest > self.horizon:
            raise ValueError(
                f"a rule looks back {longest} ticks, beyond the horizon of {self.horizon}"
            )
        self.policy = policy
        self.rules = compile_rules(policy, horizon=self.horizon)
        if self.version is not None:
            self.rules = self.rules.naming(self.version.name)
        self.scopes = Scopes(self.rules, self.version)
        self.labels.govern(self.scopes)
        self._scratch = Scratch()
        self._next = 0

    def learn(self, version: Version) -> None:
        """Go by other curves from now on. Where no rule asks about curves, nothing changes."""
        self.version = version
        self.rules = self.rules.naming(version.name)
        self.labels.learn(version)
        self._next = 0

    def reevaluate(self, limit: int) -> int:
        """Have up to ``limit`` rows evaluated with the next flush, going on where it stopped.

        Returns:
            How many rows have not been looked at under this policy.
        """
        self._rows = rows.room_for_dirty(self._rows, limit)
        self._next = int(rowcodec.recheck_rows(self._rows, self._next, limit))
        return int(self._rows.state[State.ROWS]) - self._next

    def apply(self, columns: Columns) -> Applied:
        """Enter events into the rows of their users."""
        outcome = np.zeros(len(columns), np.uint8)
        skipped = excluded(columns, self.rules.excluded)
        done = 0
        while True:
            done = apply_events(
                self._rows,
                columns.text,
                columns.user_start,
                columns.user_size,
                columns.ts,
                columns.what,
                columns.event,
                columns.exposure,
                columns.ad,
                columns.zone,
                columns.consent,
                skipped,
                self.labels.ad_hash,
                self.rules.arrays,
                self.scopes.ads,
                self._scratch.sized(slots=self.scopes.slots),
                self.horizon,
                self.row_limit,
                outcome,
                done,
            )
            if done == len(columns):
                break
            self._make_room(int(columns.user_size[done]))
        self._keep_tidy()
        return Applied(outcome)

    def lead(self, step: Callable[[Governing], int], spoken: Spoken) -> None:
        """Have compiled code ask and enter one event after the other, and supply what it misses.

        Args:
            step: goes on where it stopped; it returns 0 at the end, FULL where rows must grow, or
                what `holding.held_back` misses.
            spoken: what is known of controls' labels, kept between calls.
        """
        narrow = 0
        while True:
            scratch = self._scratch.sized(slots=self.scopes.slots, found=narrow)
            code = step(
                Governing(
                    self._rows,
                    self.labels.ad_hash,
                    self.rules.arrays,
                    self.scopes.ads,
                    self.scopes.worn,
                    scratch,
                    spoken.heard,
                    self.horizon,
                    self.row_limit,
                )
            )
            if code == DONE:
                break
            if code == FULL:
                self._make_room(2 * MAX_ID_BYTES)
                self.tidy()
            elif code == NARROW:
                narrow = 2 * len(scratch.found)
            elif code == UNHEARD:
                spoken.hear(int(scratch.want[0]), int(scratch.want[1]), self.labels, self.scopes)
            else:
                supply(self.labels, self.scopes, scratch)
        self._keep_tidy()

    def excluded(self, columns: Columns) -> NDArray[np.bool_]:
        """Which events the policy does not take in: of test ids, and invalid ones."""
        return excluded(columns, self.rules.excluded).astype(np.bool_)

    def decide(self, key: str) -> dict[str, Any] | None:
        """The throttles that hold for an id at the newest event of its row; changes nothing.

        Args:
            key: of the row: a user's id; for another id its type, NUL, and the id.

        Returns:
            ``{"id": ..., "throttles": [...]}`` as in the decision record, or None when there are
            none.
        """
        row = self._find(key)
        if row < 0:
            return None
        text = decisions.encode_one(
            self._rows, row, self.rules, self.labels, self.scopes, self._scratch
        )
        if text is None:
            return None
        record: dict[str, Any] = msgspec.json.decode(text)
        for annotation in ("policy", "curves", "decided_at"):
            del record[annotation]
        return record

    def live(self, key: str) -> dict[str, int] | None:
        """How many exposures, engagements and controls of an id count; changes nothing.

        Returns:
            By topic of the events, or None when there is no row.
        """
        row = self._find(key)
        if row < 0:
            return None
        kinds = Counter(int(kind_of(one[0])) for one in self._entries(row) if not shadowed(one[0]))
        return {topic: kinds[kind] for topic, kind in KINDS.items()}

    def explain(self, key: str) -> dict[str, Any] | None:
        """What each rule says about an id's labels and why, and what holds of the row; None for an
        id without a row."""
        row = self._find(key)
        if row < 0 or length_of(self._rows.header[row, 0]) == 0:
            return None
        told = explaining.explain(
            self._rows, row, self.rules, self.labels, self.scopes, self._scratch
        )
        decision = self.decide(key) or {}
        return {"id": key.rpartition("\0")[2], **told, "throttles": decision.get("throttles", [])}

    def export(self, key: str) -> dict[str, Any] | None:
        """All that is held of an id, readable; None for an id without a row."""
        row = self._find(key)
        if row < 0 or length_of(self._rows.header[row, 0]) == 0:
            return None
        return explaining.export(key, self._entries(row), self.labels)

    def history(self, key: str) -> History | None:
        """What became of an id's exposures; None for an id without a row."""
        found = self.histories([key.encode()])
        return found[0][1] if found else None

    def histories(self, keys: Sequence[bytes]) -> list[tuple[bytes, History]]:
        """What became of the exposures of each id that has a row, by row key."""
        if not keys:
            return []
        text = np.frombuffer(b"".join(keys), np.uint8)
        size = np.array([len(key) for key in keys], np.int64)
        row = np.empty(len(keys), np.int64)
        _rows_of(self._rows, text, np.cumsum(size) - size, size, row)
        there = np.flatnonzero(row >= 0)
        arrays = self._scratch.sized(slots=self.scopes.slots)
        ads = self.scopes.ads
        made = histories_of(self._rows, row[there], self.rules.arrays, ads, self.labels, arrays)
        return list(zip((keys[i] for i in there.tolist()), made, strict=True))

    def raw(self, key: str) -> bytes:
        """An id's raw set as `merge` takes it, of this ledger or another; empty without a row."""
        row = self._find(key)
        if row < 0:
            return b""
        return union.packed(self._entries(row), self.labels)

    def merge(self, key: str, entries: bytes, at: int) -> None:
        """Add the raw set of another row to an id's row.

        Where one of the two refuses consent and the other grants it, the row refuses it as of
        ``at``, the time of the link in ticks: until it is granted later than that.
        """
        if not entries:
            return
        incoming = union.unpacked(entries, self.labels)
        row = self._find(key)
        own = self._entries(row) if row >= 0 else incoming[:0]
        incoming = union.united(own, incoming, at)
        if row < 0:
            text = np.frombuffer(key.encode(), np.uint8)
            self._make_room(len(text))
            row = int(_add(self._rows, text))
        done = 0
        while done < len(incoming):
            done = enter(
                self._rows,
                row,
                incoming,
                self.labels.ad_hash,
                self.rules.arrays,
                self.scopes.ads,
                self._scratch.sized(slots=self.scopes.slots),
                self.horizon,
                self.row_limit,
                done,
            )
            if done < len(incoming):
                self._make_room(0)
        self._make_room(0)
        mark_dirty(self._rows, row)

    def forget(self, key: str) -> None:
        """Let an id's row go: the next flush withdraws its decision and its changelog record."""
        row = self._find(key)
        if row >= 0:
            self._make_room(0)
            _forget(self._rows, row)

    def take(self, decided_at: int, *, again: bool = False) -> Taken:
        """What changed since the last call, encoded: decisions and changelog rows.

        Args:
            decided_at: the time to write into the decisions, in ticks.
            again: include the decisions of changed rows that decide what they did before.
        """
        named = rowcodec.ad_records(self.labels.unwritten())
        taken, changelog, by_rule, withdrawn = taking.take(
            self._rows,
            self.rules,
            self.labels,
            self.scopes,
            self._scratch,
            named,
            decided_at,
            self.horizon,
            again,
        )
        sampled = self._sampled(self._rows.dirty[: self.dirty])
        users = int(rowcodec.settle(self._rows))
        return Taken(taken, changelog, users, by_rule, withdrawn, sampled, self.newest)

    def observe(self, shares: Shares, marks: Marks) -> None:
        """Tell with each flush which of its rows are of people who are observed."""
        self._observed = _Observed(shares, marks)

    def observed(self, first: int, limit: int) -> tuple[list[bytes], int]:
        """Keys of the observed among ``limit`` rows from ``first`` on, and where to go on; 0 at
        the end."""
        end = min(first + limit, int(self._rows.state[State.ROWS]))
        found = self._sampled(np.arange(first, end))
        return found.changed, end if end < self._rows.state[State.ROWS] else 0

    def _sampled(self, some: NDArray[np.int64]) -> Sampled:
        if self._observed is None:
            return Sampled([], [])
        bound = self._observed.bounds(self.labels)
        marks, widest = self._observed.marks, self._observed.shares.widest
        return choose(self._rows, some, marks, bound, widest)

    def sweep(self, limit: int) -> None:
        """Look at the next ``limit`` rows: withdraw decisions that have run out by `newest`, and
        forget rows whose newest entry is older than twice the horizon.

        A row between one horizon and two is of use only to an event that late; one that arrives
        later still meets a new row. What a person has said and is in force keeps a row.
        """
        rowcodec.sweep(self._rows, self.rules.arrays, self.horizon, limit)

    def load(self, changelog: Records) -> int:
        """Replace rows by those of the changelog, in log order.

        Returns:
            The rows read, tombstones included.

        Raises:
            rowcodec.RowError: a record is not a row of this format, or is damaged.
        """
        self._rows, count, failure = rowcodec.load(
            self._rows,
            self.labels,
            changelog,
            self.rules.arrays,
            self.scopes,
            self._scratch,
            self.horizon,
            self.row_limit,
        )
        if failure is not None:
            raise failure
        self._keep_tidy()
        return count

    def tidy(self) -> bool:
        """Move rows together if an eighth of their memory lies unused between them, or put an array
        that has become large onto large pages; whether there was something to do.

        One call takes up to some tens of milliseconds. Nobody has to: where a quarter is unused the
        ledger moves rows itself, and small pages are only slower.
        """
        if rows.wasteful(self._rows, _MAY_TIDY):
            self.compact()
            return True
        return any(put_together(array) for array in self._rows)

    def compact(self) -> None:
        """Move rows together, whatever lies unused between them."""
        self._rows = rows.compact(self._rows)

    def image(self) -> Image:
        """A copy of all that it holds, to `restore` another ledger from."""
        return image_of(self._rows, self.labels)

    def restore(self, arrays: Mapping[str, NDArray]) -> None:  # type: ignore[type-arg]
        """Take the place of a ledger, of which this is the image; this one must be empty.

        Args:
            arrays: see `governor.image.put_back`. They become this ledger's own.
        """
        self._rows = put_back(arrays, self.labels)

    def survey(self, limit: int) -> Survey:
        """What holds of the rows as a whole; the entries of ``limit`` of them are looked at."""
        scratch = self._scratch.sized(slots=self.scopes.slots)
        return survey(self._rows, self.rules.arrays, self.scopes.ads, scratch, limit)

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

    def _find(self, key: str) -> int:
        text = np.frombuffer(key.encode(), np.uint8)
        return int(_row_of(self._rows, text))

    def _entries(self, row: int) -> NDArray[np.uint64]:
        header0 = self._rows.header[row, 0]
        start = run_of(header0)
        return self._rows.arena[start : start + length_of(header0)].copy()

    def _make_room(self, id_bytes: int) -> None:
        self._rows = rows.grow(self._rows, entries=int(CAPACITIES[-1]), id_bytes=id_bytes)

    def _keep_tidy(self) -> None:
        if rows.wasteful(self._rows, _MUST_TIDY):
            self.compact()


class _Observed:
    """Who is observed, as it concerns the ads of one partition."""

    def __init__(self, shares: Shares, marks: Marks) -> None:
        self.shares, self.marks = shares, marks
        self._bound: NDArray[np.uint64] = np.zeros(0, np.uint64)

    def bounds(self, labels: Labels) -> NDArray[np.uint64]:
        """The largest mark that is observed, by ad."""
        known = len(self._bound)
        if known < len(labels):
            new = [
                self.shares.bound(labels.labels_of(ad).get("campaign"))
                for ad in range(known, len(labels))
            ]
            self._bound = np.concatenate((self._bound, np.array(new, np.uint64)))
        return self._bound


@compiled
def _row_of(table: Rows, text: NDArray[np.uint8]) -> int:
    return find(table, hash_bytes(text, 0, len(text)), text, 0, len(text))


@compiled
def _rows_of(
    table: Rows,
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    row: NDArray[np.int64],
) -> None:
    """The row of each id; -1 where it has none, or an empty one."""
    for k in range(len(start)):
        row[k] = find(table, hash_bytes(text, start[k], size[k]), text, start[k], size[k])
        if row[k] >= 0 and length_of(table.header[row[k], 0]) == 0:
            row[k] = -1


@compiled
def _add(table: Rows, text: NDArray[np.uint8]) -> int:
    return add(table, hash_bytes(text, 0, len(text)), text, 0, len(text))


@compiled
def _forget(table: Rows, row: int) -> None:
    set_length(table, row, 0)
    table.header[row, 1] |= np.uint64(GONE)
    mark_dirty(table, row)
