"""A log of events as columns, in the order of their times.

However the log was cut into batches and in whatever order these came, `Log` is the same: events
stand by time, exposures before engagements before controls of the same instant, then by the hash
of their ids, then by what they say. That is the order in which a person met them, as far as the
log can tell.

An event that names several ids has a *row* for each, one after the other, the user's first; most
events have one row.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor import rows
from governor.compiled import compiled
from governor.events import Columns
from governor.hashing import hash_bytes
from governor.labels import Labels
from governor.rows import Rows, State, add, find, has_room

__all__ = ["Log", "Logbook"]

MANY = 32
"""Events at one instant that a simple sort is still good for."""


@dataclass(frozen=True, slots=True)
class Log:
    """Events in order; every column from ``who`` on has one element a row.

    Some 60 bytes an event, and some 50 a person besides their id.
    """

    labels: Labels
    """Names the ads; a ledger that replays the log must number them alike (`numbered`)."""
    text: NDArray[np.uint8]
    """Keys of people's rows, end to end."""
    key_start: NDArray[np.int64]
    key_size: NDArray[np.int64]
    who: NDArray[np.int32]
    source: NDArray[np.int32]
    """Which event the row is of: 0 and on, in order."""
    ts: NDArray[np.int64]
    what: NDArray[np.int16]
    event: NDArray[np.uint64]
    exposure: NDArray[np.uint64]
    ad: NDArray[np.int32]
    zone: NDArray[np.int32]
    consent: NDArray[np.int8]

    def __len__(self) -> int:
        """Events, not rows."""
        return int(self.source[-1]) + 1 if len(self.source) else 0

    @property
    def people(self) -> int:
        """Distinct ids of all types."""
        return len(self.key_start)

    @property
    def first(self) -> NDArray[np.int64]:
        """Where each event's rows begin."""
        return np.flatnonzero(np.diff(self.source, prepend=-1)).astype(np.int64)

    def kinds(self) -> NDArray[np.int64]:
        """EXPOSURE, ENGAGEMENT or CONTROL of each event."""
        return (self.what[self.first] & 3).astype(np.int64)

    def key(self, person: int) -> str:
        """The key of a person's row."""
        start, size = int(self.key_start[person]), int(self.key_size[person])
        return self.text[start : start + size].tobytes().decode()

    def columns(self, begin: int, end: int) -> Columns:
        """The rows from ``begin`` to before ``end`` as a ledger takes them."""
        which = slice(begin, end)
        who = self.who[which]
        return Columns(
            self.text,
            self.key_start[who],
            self.key_size[who],
            self.ts[which],
            self.what[which].astype(np.int64),
            self.event[which],
            self.exposure[which],
            self.ad[which].astype(np.int64),
            np.full(len(who), -1, np.int64),
            self.source[which].astype(np.int64),
            self.zone[which].astype(np.int64),
            self.consent[which].astype(np.int64),
        )

    def of_people(self, chosen: NDArray[np.bool_]) -> Log:
        """Only the events of some people: those chosen by their number; of all their ids."""
        wanted = np.zeros(len(self), np.bool_)
        wanted[self.source[chosen[self.who]]] = True
        rows = wanted[self.source]
        source = np.cumsum(wanted, dtype=np.int32)[self.source[rows]] - np.int32(1)
        columns = {name: getattr(self, name)[rows] for name in _BY_ROW}
        return replace(self, source=source, **columns)

    def numbered(self, labels: Labels) -> None:
        """Have other, empty labels give the log's ads the same numbers."""
        for number, name in enumerate(self.labels.ad_names):
            assert name is not None
            if labels.load(name) != number:
                raise ValueError("these labels know ads already: give those of a new ledger")


@dataclass
class Logbook:
    """Takes batches of a log in any order, and makes a `Log` of them."""

    labels: Labels = field(default_factory=Labels)
    _people: Rows = field(default_factory=rows.empty)
    _parts: list[tuple[NDArray[Any], ...]] = field(default_factory=list)
    _events: int = 0

    def __len__(self) -> int:
        return self._events

    def add(self, columns: Columns) -> None:
        """Take in events; their ads are numbered in `labels`."""
        if not len(columns):
            return
        who = np.zeros(len(columns), np.int32)
        done = 0
        while done < len(who):
            done = _number(
                self._people, columns.text, columns.user_start, columns.user_size, who, done
            )
            if done < len(who):
                size = int(columns.user_size[done])
                self._people = rows.grow(self._people, entries=0, id_bytes=size)
        # Of one event the user's row comes first, as it does in the columns.
        number, source = np.unique(columns.source, return_inverse=True)
        self._parts.append(
            (
                who,
                (self._events + source).astype(np.int32),
                columns.ts,
                columns.what.astype(np.int16),
                columns.event,
                columns.exposure,
                columns.ad.astype(np.int32),
                columns.zone.astype(np.int32),
                columns.consent.astype(np.int8),
            )
        )
        self._events += len(number)

    def _ties(self, columns: list[NDArray[Any]]) -> _Ties:
        _, source, _, what, event, exposure, ad, _, _ = columns
        return _Ties(what & 3, event, what, exposure, self.labels.ad_hash[ad], source)

    def closed(self) -> Log:
        """The log of all that was taken in; the logbook is empty afterwards."""
        table = self._people
        people = int(table.state[State.USERS])
        header = table.header[:people, 1]
        start = (header >> np.uint64(24)).astype(np.int64)
        size = ((header >> np.uint64(8)) & np.uint64(0xFFFF)).astype(np.int64)
        text = table.ids[: int(table.state[State.IDS])].copy()
        text.flags.writeable = False  # as every other text is: numba tells them apart
        parts, self._parts, self._events = self._parts, [], 0
        self._people = rows.empty()
        columns = _concatenated(parts)
        order = _in_order(columns[2], self._ties(columns))
        if order is not None:
            columns = [column[order] for column in columns]
        del parts
        who, source, *others = columns
        renumbered = np.cumsum(np.diff(source, prepend=-1) != 0, dtype=np.int32) - np.int32(1)
        return Log(self.labels, text, start, size, who, renumbered, *others)


class _Ties(NamedTuple):
    """By what rows of one instant stand in order, the first that differs decides."""

    kind: NDArray[np.int16]
    event: NDArray[np.uint64]
    what: NDArray[np.int16]
    exposure: NDArray[np.uint64]
    ad: NDArray[np.uint64]
    source: NDArray[np.int32]


_BY_ROW = ("who", "ts", "what", "event", "exposure", "ad", "zone", "consent")

_DTYPES = (
    np.int32, np.int32, np.int64, np.int16, np.uint64, np.uint64, np.int32, np.int32, np.int8,
)  # fmt: skip


def _concatenated(parts: Iterable[tuple[NDArray[Any], ...]]) -> list[NDArray[Any]]:
    parts = list(parts)
    if not parts:
        return [np.zeros(0, dtype) for dtype in _DTYPES]
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _in_order(ts: NDArray[Any], ties: _Ties) -> NDArray[np.int64] | None:
    """The order of the rows by time, then by `_Ties`; None where they are in order."""
    if not len(ts):
        return None
    order = np.argsort(ts, kind="stable")
    sorted_ts = ts[order]
    begins = np.flatnonzero(np.diff(sorted_ts, prepend=sorted_ts[0] - 1))
    sizes = np.diff(begins, append=len(ts))
    many = sizes > MANY
    for begin, size in zip(begins[many].tolist(), sizes[many].tolist(), strict=True):
        tied = order[begin : begin + size]
        keys = [column[tied] for column in reversed(ties)]
        order[begin : begin + size] = tied[np.lexsort(keys)]
    few = (sizes > 1) & ~many
    _sort_ties(order, begins[few], sizes[few], ties)
    return None if bool((order[1:] > order[:-1]).all()) else order


@compiled
def _sort_ties(
    order: NDArray[np.int64], begins: NDArray[np.int64], sizes: NDArray[np.int64], ties: _Ties
) -> None:
    """Sort each run of rows at one instant by insertion; rows of one event stay as they are."""
    for k in range(len(begins)):
        for i in range(begins[k] + 1, begins[k] + sizes[k]):
            one = order[i]
            at = i
            while at > begins[k] and _before(one, order[at - 1], ties):
                order[at] = order[at - 1]
                at -= 1
            order[at] = one


@compiled
def _before(a: int, b: int, ties: _Ties) -> bool:
    if ties.kind[a] != ties.kind[b]:
        return bool(ties.kind[a] < ties.kind[b])
    if ties.event[a] != ties.event[b]:
        return bool(ties.event[a] < ties.event[b])
    if ties.what[a] != ties.what[b]:
        return bool(ties.what[a] < ties.what[b])
    if ties.exposure[a] != ties.exposure[b]:
        return bool(ties.exposure[a] < ties.exposure[b])
    if ties.ad[a] != ties.ad[b]:
        return bool(ties.ad[a] < ties.ad[b])
    return bool(ties.source[a] < ties.source[b])


@compiled
def _number(
    people: Rows,
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    who: NDArray[np.int32],
    first: int,
) -> int:
    """Give each row the number of its id; return where it stopped for want of room."""
    for i in range(first, len(who)):
        hashed = hash_bytes(text, start[i], size[i])
        person = find(people, hashed, text, start[i], size[i])
        if person < 0:
            if not has_room(people, -1, 0, size[i]):
                return i
            person = add(people, hashed, text, start[i], size[i])
        who[i] = person
    return len(who)
