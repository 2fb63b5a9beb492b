"""Rows as changelog records, and back.

A record's key is ``u`` and the user id, ``a`` and eight bytes of ad hash, or ``f`` alone. An ad's
value is its canonical name; what stands under ``f`` is its writer's business. A row's value,
little-endian:

    0    magic (1 byte), version (1; 1 had no facts), entries (2)
    4    digest (8), until (8), as in the row's header
    20   entries as in the row: words 0 and 1 (16), exposure hash (8), ad hash (8)
    end  checksum over key and value (4)

Rows are whole, so the newest record of a key is all there is to know about it; a null value
forgets the row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.ads import ad_hash
from governor.applying import note_kinds, tidy
from governor.compiled import compiled, inlined, integer
from governor.decisions import GRACE, is_idle
from governor.entries import ad_of, newest_of
from governor.hashing import hash_bytes, mix
from governor.labels import Labels
from governor.prefetch import AHEAD, prefetch
from governor.records import Records
from governor.rows import (
    CAPACITIES,
    DIRTY,
    GONE,
    RECHECK,
    UNTIDY,
    USED,
    Rows,
    State,
    add,
    find,
    flags_of,
    grow,
    has_room,
    id_size,
    id_start,
    length_of,
    recheck,
    remove,
    reserve,
    run_of,
    set_length,
)
from governor.rules import RuleArrays
from governor.scopes import NAMED, Ads, Col, Scopes
from governor.scratch import Scratch, ScratchArrays
from governor.words import put_word, word_at

__all__ = [
    "FENCE_KEY",
    "KIND_AD",
    "KIND_USER",
    "VERSION",
    "RowError",
    "ad_records",
    "load",
    "put_key",
    "put_row",
    "recheck_rows",
    "rows_in",
    "settle",
    "size_of",
    "sweep",
]

MAGIC = 0xE7
VERSION = 2
HEAD = 20
ENTRY = 32
CHECKSUM = 4
KIND_USER, KIND_AD, _KIND_FENCE = ord("u"), ord("a"), ord("f")
"""First bytes of keys."""
FENCE_KEY = b"f"
"""The key of a record that is no row and no ad."""

_ROWS, _DIRTY, _NEWEST, _SWEEP = State.ROWS, State.DIRTY, State.NEWEST, State.SWEEP
_UNTIDY = State.UNTIDY
_UNTIDY_FLAG = np.uint64(UNTIDY)
_GRACE = GRACE
_FLAGS = Col.FLAGS
_AD_BITS = np.uint64(24)
_BYTE, _LOW8, _LOW32 = np.uint64(8), np.uint64(0xFF), np.uint64(0xFFFFFFFF)
_NONE = np.uint64(0)

_OK, _WANTS_ROOM, _UNKNOWN_AD, _FOREIGN, _NEWER, _DAMAGED = 0, 1, 2, 3, 4, 5


class RowError(Exception):
    """A changelog record cannot be read as a row.

    `record` is its index among those given; those before it that are rows may be loaded already.
    """

    def __init__(self, text: str, record: int) -> None:
        super().__init__(text)
        self.record = record


def ad_records(ads: list[tuple[int, bytes]]) -> list[tuple[bytes, bytes]]:
    """Keys and values that name ads in the changelog."""
    return [(b"a" + hashed.to_bytes(8, "little"), name) for hashed, name in ads]


@compiled
def size_of(table: Rows) -> int:
    """No more bytes than this take the dirty rows as they are, keys included."""
    size, count = 0, table.state[_DIRTY]
    for k in range(count):
        if k + 4 * AHEAD < count:
            prefetch(table.header, table.dirty[k + 4 * AHEAD])
        header0, header1 = table.header[table.dirty[k], 0], table.header[table.dirty[k], 1]
        size += 1 + id_size(header1) + HEAD + ENTRY * length_of(header0) + CHECKSUM
    return size


@inlined
def put_key(out: NDArray[np.uint8], at: int, table: Rows, row: int) -> int:
    """Write a row's key; where it ends."""
    first, size = id_start(table.header[row, 1]), id_size(table.header[row, 1])
    out[at] = KIND_USER
    for i in range(size):
        out[at + 1 + i] = table.ids[first + i]
    return at + 1 + size


@inlined
def put_row(
    out: NDArray[np.uint8], key: int, at: int, table: Rows, row: int, ad_hash: NDArray[np.uint64]
) -> int:
    """Write a row's value, its key being at ``key`` up to ``at``; where it ends."""
    header0 = table.header[row, 0]
    begin, start, length = at, run_of(header0), length_of(header0)
    out[at], out[at + 1] = MAGIC, VERSION
    out[at + 2], out[at + 3] = length & 0xFF, length >> 8
    put_word(out, at + 4, table.header[row, 2])
    put_word(out, at + 12, table.header[row, 3])
    at += HEAD
    for i in range(start, start + length):
        put_word(out, at, table.arena[i, 0])
        put_word(out, at + 8, table.arena[i, 1])
        put_word(out, at + 16, table.arena[i, 2] >> _AD_BITS)
        put_word(out, at + 24, ad_hash[ad_of(table.arena[i, 2])])
        at += ENTRY
    checksum = _checksum(out, key, begin - key, begin, at - begin)
    for i in range(CHECKSUM):
        out[at + i] = (checksum >> (np.uint64(i) * _BYTE)) & _LOW8
    return at + CHECKSUM


@compiled
def _checksum(
    buffer: NDArray[np.uint8], key_start: int, key_size: int, start: int, size: int
) -> np.uint64:
    return mix(hash_bytes(buffer, key_start, key_size), hash_bytes(buffer, start, size)) & _LOW32


def rows_in(changelog: Records) -> int:
    """How many of these records are rows, or their ends."""
    return int(np.count_nonzero(changelog.buffer[changelog.key_start] == KIND_USER))


@compiled
def settle(table: Rows) -> int:
    """Count dirty rows as taken and forget those that are gone; return how many there were."""
    count = table.state[_DIRTY]
    for k in range(count):
        row = table.dirty[k]
        if flags_of(table.header[row, 1]) & GONE:
            remove(table, row)
        else:
            table.header[row, 1] &= ~np.uint64(DIRTY | RECHECK)
    table.state[_DIRTY] = 0
    return integer(count)


@compiled
def sweep(table: Rows, rules: RuleArrays, horizon: int, limit: int) -> None:
    """Have rows looked at whose decision has run out or which nobody asks about any more.

    Looks at ``limit`` rows from where it stopped last; `Ledger.take` does what is due.
    """
    state = table.state
    watermark = state[_NEWEST]
    for _ in range(min(limit, state[_ROWS])):
        if state[_DIRTY] == len(table.dirty):
            return
        row = state[_SWEEP]
        if row >= state[_ROWS]:
            row = 0
        state[_SWEEP] = row + 1
        if not flags_of(table.header[row, 1]) & USED:
            continue
        ran_out = (
            table.header[row, 2] != _NONE and integer(table.header[row, 3]) <= watermark - _GRACE
        )
        if ran_out or is_idle(table, row, rules, horizon):
            recheck(table, row)


@compiled
def recheck_rows(table: Rows, first: int, limit: int) -> int:
    """Have ``limit`` rows from ``first`` on evaluated anew; return where it stopped."""
    row = first
    while row < table.state[_ROWS] and limit > 0 and table.state[_DIRTY] < len(table.dirty):
        if flags_of(table.header[row, 1]) & USED:
            recheck(table, row)
            limit -= 1
        row += 1
    return row


def load(
    table: Rows,
    labels: Labels,
    records: Records,
    rules: RuleArrays,
    scopes: Scopes,
    scratch: Scratch,
    horizon: int,
    row_limit: int,
) -> tuple[Rows, int, RowError | None]:
    """Rows with those of the records in place of their own; how many were read; what stopped it.

    Of a row written under a longer horizon or a higher limit, what these keep; of one with an ad
    whose name has not been read, as soon as all names have been.

    The rows that were given are not to be used any more, also where it stopped at a record that
    cannot be read: they may have grown before.
    """
    if (unnamed := _load_ads(labels, records)) is not None:
        return table, 0, unnamed
    done = 0
    count = 0
    while True:
        known = labels.ad_hash[: len(labels)]
        order = np.argsort(known, kind="stable")
        done, status, detail, read = _load_rows(
            table, records.buffer, records.key_start, records.key_size, records.value_start,
            records.value_size, known[order], order, rules, scopes.ads,
            scratch.sized(slots=scopes.slots), horizon, row_limit, done,
        )  # fmt: skip
        count += read
        if status == _OK:
            if table.state[State.UNTIDY] and not labels.unnamed:
                _tidy_rows(
                    table, rules, scopes.ads, scratch.sized(slots=scopes.slots), horizon, row_limit
                )
            return table, count, None
        if status == _UNKNOWN_AD:
            labels.reserve(int(detail))
        elif status == _WANTS_ROOM:
            table = grow(table, entries=int(CAPACITIES[-1]), id_bytes=int(records.key_size[done]))
        else:
            return table, count, RowError(_explain(records, done, status), done)


def _load_ads(labels: Labels, records: Records) -> RowError | None:
    first = records.buffer[np.minimum(records.key_start, len(records.buffer) - 1)]
    for i in np.flatnonzero((records.key_size == 9) & (first == KIND_AD)):
        key, name = records.key(int(i)), records.value(int(i))
        if key is None or name is None or key[1:] != ad_hash(name).to_bytes(8, "little"):
            return RowError(_explain(records, int(i), _DAMAGED), int(i))
        labels.load(name)
    return None


def _explain(records: Records, i: int, status: int) -> str:
    where = f"changelog record at offset {records.offset[i]}"
    if status == _NEWER:
        return (
            f"{where} was written by a newer version of the governor: "
            "upgrade this worker before it takes the partition"
        )
    if status == _FOREIGN:
        return f"{where} is not the governor's: is GOVERNOR_TOPIC_PREFIX another system's?"
    return (
        f"{where} is damaged (length or checksum): delete it by producing a null value under its "
        "key, which forgets that user's row"
    )


@compiled
def _load_rows(
    table: Rows,
    buffer: NDArray[np.uint8],
    key_start: NDArray[np.int64],
    key_size: NDArray[np.int64],
    value_start: NDArray[np.int64],
    value_size: NDArray[np.int64],
    known: NDArray[np.uint64],
    order: NDArray[np.int64],
    rules: RuleArrays,
    ads: Ads,
    scratch: ScratchArrays,
    horizon: int,
    row_limit: int,
    first: int,
) -> tuple[int, int, np.uint64, int]:
    """Load records from ``first`` on; where it stopped, why, the unknown ad, rows read."""
    read = 0
    ads_of_row = scratch.ad
    for i in range(first, len(key_start)):
        if key_size[i] < 1:
            return i, _FOREIGN, _NONE, read
        kind = buffer[key_start[i]]
        if kind in (KIND_AD, _KIND_FENCE):
            continue
        if kind != KIND_USER:
            return i, _FOREIGN, _NONE, read
        at, size = key_start[i] + 1, key_size[i] - 1
        hashed = hash_bytes(buffer, at, size)
        row = find(table, hashed, buffer, at, size)
        if value_size[i] < 0:
            if row >= 0:
                remove(table, row)
            read += 1
            continue
        status = _check(buffer, key_start[i], key_size[i], value_start[i], value_size[i])
        if status != _OK:
            return i, status, _NONE, read
        begin = value_start[i]
        length = integer(buffer[begin + 2]) | (integer(buffer[begin + 3]) << 8)
        for k in range(length):
            wanted = word_at(buffer, begin + HEAD + ENTRY * k + 24)
            where = np.searchsorted(known, wanted)
            if where == len(known) or known[where] != wanted:
                return i, _UNKNOWN_AD, wanted, read
            ads_of_row[k] = order[where]
        if not has_room(table, row, length, size):
            return i, _WANTS_ROOM, _NONE, read
        if row < 0:
            row = add(table, hashed, buffer, at, size)
        set_length(table, row, 0)
        reserve(table, row, length)
        set_length(table, row, length)
        table.header[row, 2] = word_at(buffer, begin + 4)
        table.header[row, 3] = word_at(buffer, begin + 12)
        start = run_of(table.header[row, 0])
        for k in range(length):
            entry = begin + HEAD + ENTRY * k
            table.arena[start + k, 0] = word_at(buffer, entry)
            table.arena[start + k, 1] = word_at(buffer, entry + 8)
            table.arena[start + k, 2] = (word_at(buffer, entry + 16) << _AD_BITS) | np.uint64(
                ads_of_row[k]
            )
        # What the row holds shows before the names of its ads do, which may stand behind it.
        note_kinds(table, row)
        named = True
        for k in range(length):
            named = named and bool(ads.ad[ads_of_row[k], _FLAGS] & NAMED)
        if named:
            table.header[row, 1] &= ~_UNTIDY_FLAG
            tidy(table, row, rules, ads, scratch, horizon, row_limit)
        else:
            table.header[row, 1] |= _UNTIDY_FLAG
            table.state[_UNTIDY] = 1
        newest = newest_of(table.arena[start:], length_of(table.header[row, 0]))
        if newest > table.state[_NEWEST]:
            table.state[_NEWEST] = newest
        read += 1
    return len(key_start), _OK, _NONE, read


@compiled
def _tidy_rows(
    table: Rows, rules: RuleArrays, ads: Ads, scratch: ScratchArrays, horizon: int, row_limit: int
) -> None:
    """Tidy the rows that were read before the names of their ads."""
    for row in range(table.state[_ROWS]):
        if flags_of(table.header[row, 1]) & UNTIDY:
            table.header[row, 1] &= ~_UNTIDY_FLAG
            tidy(table, row, rules, ads, scratch, horizon, row_limit)
    table.state[_UNTIDY] = 0


@compiled
def _check(buffer: NDArray[np.uint8], key_start: int, key_size: int, start: int, size: int) -> int:
    """Whether a row's value is what its head says."""
    if size < HEAD + ENTRY + CHECKSUM:
        return _DAMAGED
    if buffer[start] != MAGIC:
        return _FOREIGN
    if buffer[start + 1] > VERSION:
        return _NEWER
    length = integer(buffer[start + 2]) | (integer(buffer[start + 3]) << 8)
    if length < 1 or length > CAPACITIES[-1] or size != HEAD + ENTRY * length + CHECKSUM:
        return _DAMAGED
    checksum = _checksum(buffer, key_start, key_size, start, size - CHECKSUM)
    for i in range(CHECKSUM):
        if buffer[start + size - CHECKSUM + i] != (checksum >> (np.uint64(i) * _BYTE)) & _LOW8:
            return _DAMAGED
    return _OK
