"""The rows of one partition as arrays: where they lie, how they are found, how they grow.

A row is a header of four words and a run of entries in the arena, newest first. Runs come in size
classes; a run that is outgrown goes to its class's free list. Users are found through an open
table of 64-bit slots (half hash, half row number), so a look-up touches one slot, one header and
the id it compares.

    header 0   start of the run (40 bits) | entries (16 bits) | size class (8 bits)
    header 1   start of the id (40 bits) | id length (16 bits) | flags (8 bits)
    header 2   digest of the decision that was last taken for publication, 0 for none
    header 3   the time in ticks at which that decision has run out
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled, inlined, integer
from governor.entries import WORDS
from governor.hashing import hash_bytes
from governor.memory import longer, shorter, zeros
from governor.prefetch import AHEAD, prefetch

__all__ = ["CAPACITIES", "Rows", "State", "compact", "empty", "grow"]

CAPACITIES = np.array(
    [0, 2, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 512]
    + [640, 768, 1024, 1280, 1536, 2048, 2560, 3136],
    np.int64,
)
"""Entries that a run of each size class holds."""

DIRTY, USED, GONE, OTHERS, RECHECK, UNTIDY = 1, 2, 4, 8, 16, 32
"""Flags: changed since it was last taken; in use; to be removed with the next flush; holds
engagements or controls; to be evaluated anew, but unchanged since it was last taken; as it was
written, since an ad of it has no name yet."""


class State:
    """What the numbers in `Rows.state` are."""

    ROWS = 0  # headers handed out, free ones included
    USERS = 1  # rows in use
    ARENA = 2  # entries of arena handed out
    DEAD = 3  # entries of arena in free lists
    IDS = 4  # bytes of ids handed out
    DEAD_IDS = 5  # bytes of ids of removed rows
    DIRTY = 6  # rows in the dirty list
    FREE_ROW = 7  # head of the free list of headers, plus one
    NEWEST = 8  # newest event time seen
    ENTRIES = 9  # entries held
    OVERFLOW = 10  # entries dropped by the row limit since the start
    SWEEP = 11  # next row that the sweep looks at
    UNTIDY = 12  # whether any row may be
    SIZE = 13


# numba sees class attributes as constants only through globals
_ROWS, _USERS, _ARENA, _DEAD = State.ROWS, State.USERS, State.ARENA, State.DEAD
_ENTRIES = State.ENTRIES
_IDS, _DEAD_IDS, _DIRTY, _FREE_ROW = State.IDS, State.DEAD_IDS, State.DIRTY, State.FREE_ROW

_B8, _B16, _B24, _B32 = np.uint64(8), np.uint64(16), np.uint64(24), np.uint64(32)
_LOW8, _LOW16 = np.uint64(0xFF), np.uint64(0xFFFF)
_LOW32 = np.uint64(0xFFFFFFFF)
_NONE = np.uint64(0)
_ASKED = 24  # entries of a row: of longer ones the processor itself notices how they are read
_ONE = np.uint64(1)


class Rows(NamedTuple):
    """The arrays; see the module's text."""

    header: NDArray[np.uint64]  # (rows, 4)
    arena: NDArray[np.uint64]  # (entries, 3)
    slots: NDArray[np.uint64]  # power of two
    ids: NDArray[np.uint8]
    dirty: NDArray[np.int64]
    free: NDArray[np.int64]  # head of the free list of each size class, plus one
    state: NDArray[np.int64]


def empty(rows: int = 64) -> Rows:
    """Rows of nobody, with room for a few."""
    return Rows(
        np.zeros((rows, 4), np.uint64),
        np.zeros((4 * rows, WORDS), np.uint64),
        np.zeros(2 * rows, np.uint64),
        np.zeros(16 * rows, np.uint8),
        np.zeros(rows, np.int64),
        np.zeros(len(CAPACITIES), np.int64),
        np.zeros(State.SIZE, np.int64),
    )


def grow(rows: Rows, *, entries: int, id_bytes: int) -> Rows:
    """The same rows with room for one more user, a run of ``entries`` and ``id_bytes``.

    Arrays grow by a quarter, each when it is its turn; see `governor.memory`.
    """
    state = rows.state
    header, arena, slots, ids, dirty = rows.header, rows.arena, rows.slots, rows.ids, rows.dirty
    if state[State.ROWS] + 1 > len(header):
        header = _longer(header, 1)
    if state[State.DIRTY] + 1 > len(dirty):
        dirty = _longer(dirty, 1)
    if state[State.ARENA] + entries > len(arena):
        arena = _longer(arena, entries)
    if state[State.IDS] + id_bytes > len(ids):
        ids = _longer(ids, id_bytes)
    grown = rows._replace(header=header, arena=arena, ids=ids, dirty=dirty)
    if crowded(state[State.USERS] + 1, len(slots)):
        grown = grown._replace(slots=zeros((2 * len(slots),), np.uint64))
        reindex(grown)
    return grown


def room_for_dirty(rows: Rows, more: int) -> Rows:
    """The same rows with room for ``more`` in the dirty list, as far as there are so many."""
    wanted = min(int(rows.state[State.DIRTY]) + more, int(rows.state[State.ROWS]))
    if wanted <= len(rows.dirty):
        return rows
    return rows._replace(dirty=_longer(rows.dirty, wanted - len(rows.dirty)))


def _longer(array: NDArray, by: int) -> NDArray:  # type: ignore[type-arg]
    return longer(array, len(array) + max(by, len(array) // 4))


@compiled
def crowded(users: int, slots: int) -> bool:
    """Whether the table of slots is too full for quick look-ups."""
    return users * 10 > slots * 7


@compiled
def run_of(header0: np.uint64) -> int:
    """Where the row's entries start."""
    return integer(header0 >> _B24)


@compiled
def length_of(header0: np.uint64) -> int:
    """How many entries the row holds."""
    return integer((header0 >> _B8) & _LOW16)


@compiled
def class_of(header0: np.uint64) -> int:
    """The size class of the row's run."""
    return integer(header0 & _LOW8)


@compiled
def run_word(start: int, length: int, size_class: int) -> np.uint64:
    """Header word 0."""
    return (np.uint64(start) << _B24) | (np.uint64(length) << _B8) | np.uint64(size_class)


@compiled
def id_start(header1: np.uint64) -> int:
    """Where the row's id starts."""
    return integer(header1 >> _B24)


@compiled
def id_size(header1: np.uint64) -> int:
    """Bytes of the row's id."""
    return integer((header1 >> _B8) & _LOW16)


@compiled
def flags_of(header1: np.uint64) -> int:
    """DIRTY, USED, GONE."""
    return integer(header1 & _LOW8)


@compiled
def find(rows: Rows, hashed: np.uint64, text: NDArray[np.uint8], start: int, size: int) -> int:
    """The row of an id, or -1."""
    mask = np.uint64(len(rows.slots) - 1)
    at = hashed & mask
    while rows.slots[at] != _NONE:
        slot = rows.slots[at]
        if slot >> _B32 == hashed >> _B32:
            row = integer(slot & _LOW32) - 1
            header1 = rows.header[row, 1]
            if id_size(header1) == size:
                first = id_start(header1)
                same = True
                for i in range(size):
                    if rows.ids[first + i] != text[start + i]:
                        same = False
                        break
                if same:
                    return row
        at = (at + _ONE) & mask
    return -1


@compiled
def hint(rows: Rows, hashed: np.uint64) -> int:
    """The row that an id with this hash most likely has, or -1, from a look at the table alone."""
    mask = np.uint64(len(rows.slots) - 1)
    at = hashed & mask
    while rows.slots[at] != _NONE:
        if rows.slots[at] >> _B32 == hashed >> _B32:
            return integer(rows.slots[at] & _LOW32) - 1
        at = (at + _ONE) & mask
    return -1


@inlined
def ask(rows: Rows, row: int) -> None:
    """Have a row's id and entries fetched, its header being there."""
    header0, header1 = rows.header[row, 0], rows.header[row, 1]
    first = id_start(header1)
    prefetch(rows.ids, first)
    prefetch(rows.ids, first + id_size(header1) - 1)
    start = run_of(header0)
    # Two entries are shorter than a line; the place of the next one, behind the last, is written.
    for entry in range(start, start + min(length_of(header0), _ASKED) + 2, 2):
        prefetch(rows.arena, entry)


@inlined
def ask_next(rows: Rows, these: NDArray[np.int64], k: int, end: int) -> None:
    """Of rows that are gone through, have what comes soon after the k-th fetched."""
    if k + 2 * AHEAD < end:
        prefetch(rows.header, these[k + 2 * AHEAD])
    if k + AHEAD < end:
        ask(rows, these[k + AHEAD])


@compiled
def place(slots: NDArray[np.uint64], hashed: np.uint64, row: int) -> None:
    """Enter a row that is not in the table yet."""
    mask = np.uint64(len(slots) - 1)
    at = hashed & mask
    while slots[at] != _NONE:
        at = (at + _ONE) & mask
    slots[at] = (hashed & ~_LOW32) | np.uint64(row + 1)


@compiled
def row_hash(rows: Rows, row: int) -> np.uint64:
    """The hash of a row's id."""
    header1 = rows.header[row, 1]
    return hash_bytes(rows.ids, id_start(header1), id_size(header1))


@compiled
def reindex(rows: Rows) -> None:
    """Enter every row into an empty table."""
    for row in range(rows.state[_ROWS]):
        if flags_of(rows.header[row, 1]) & USED:
            place(rows.slots, row_hash(rows, row), row)


@compiled
def add(rows: Rows, hashed: np.uint64, text: NDArray[np.uint8], start: int, size: int) -> int:
    """A new empty row; the caller has made room for it."""
    state = rows.state
    if state[_FREE_ROW] > 0:
        row = state[_FREE_ROW] - 1
        state[_FREE_ROW] = integer(rows.header[row, 0])
    else:
        row = state[_ROWS]
        state[_ROWS] += 1
    first = state[_IDS]
    for i in range(size):
        rows.ids[first + i] = text[start + i]
    state[_IDS] += size
    state[_USERS] += 1
    rows.header[row, 0] = _NONE
    rows.header[row, 1] = (np.uint64(first) << _B24) | (np.uint64(size) << _B8) | np.uint64(USED)
    rows.header[row, 2] = _NONE
    rows.header[row, 3] = _NONE
    place(rows.slots, hashed, row)
    return integer(row)


@compiled
def remove(rows: Rows, row: int) -> None:
    """Forget a row; the slots behind its own move up, so that look-ups need no gravestones."""
    state, slots = rows.state, rows.slots
    mask = np.uint64(len(slots) - 1)
    at = row_hash(rows, row) & mask
    while integer(slots[at] & _LOW32) != row + 1:
        at = (at + _ONE) & mask
    hole = at
    while True:
        at = (at + _ONE) & mask
        if slots[at] == _NONE:
            break
        home = row_hash(rows, integer(slots[at] & _LOW32) - 1) & mask
        if ((at - home) & mask) >= ((at - hole) & mask):
            slots[hole] = slots[at]
            hole = at
    slots[hole] = _NONE
    release(rows, rows.header[row, 0])
    state[_ENTRIES] -= length_of(rows.header[row, 0])
    state[_DEAD_IDS] += id_size(rows.header[row, 1])
    state[_USERS] -= 1
    rows.header[row, 1] = _NONE
    rows.header[row, 2] = _NONE
    rows.header[row, 3] = _NONE
    rows.header[row, 0] = np.uint64(state[_FREE_ROW])
    state[_FREE_ROW] = row + 1


@compiled
def release(rows: Rows, header0: np.uint64) -> None:
    """Put a run on its class's free list."""
    size_class = class_of(header0)
    if size_class > 0:
        start = run_of(header0)
        rows.arena[start, 0] = np.uint64(rows.free[size_class])
        rows.free[size_class] = start + 1
        rows.state[_DEAD] += CAPACITIES[size_class]


@compiled
def reserve(rows: Rows, row: int, entries: int) -> None:
    """Give the row a run that holds ``entries``, its own entries copied.

    The caller has made room in the arena.
    """
    header0 = rows.header[row, 0]
    if entries <= CAPACITIES[class_of(header0)]:
        return
    size_class = class_for(entries)
    if rows.free[size_class] > 0:
        start = rows.free[size_class] - 1
        rows.free[size_class] = integer(rows.arena[start, 0])
        rows.state[_DEAD] -= CAPACITIES[size_class]
    else:
        start = rows.state[_ARENA]
        rows.state[_ARENA] += CAPACITIES[size_class]
    old, length = run_of(header0), length_of(header0)
    for i in range(length):
        for word in range(WORDS):
            rows.arena[start + i, word] = rows.arena[old + i, word]
    release(rows, header0)
    rows.header[row, 0] = run_word(start, length, size_class)


@compiled
def class_for(entries: int) -> int:
    """The smallest size class that holds so many entries."""
    size_class = 0
    while CAPACITIES[size_class] < entries:
        size_class += 1
    return size_class


@compiled
def has_room(rows: Rows, row: int, entries: int, id_bytes: int) -> bool:
    """Whether `add` (of a row below 0) and `reserve` find what they need."""
    state = rows.state
    if state[_ARENA] + CAPACITIES[class_for(entries)] > len(rows.arena):
        return False
    if row >= 0:
        return True
    return (
        (state[_FREE_ROW] > 0 or state[_ROWS] < len(rows.header))
        and state[_IDS] + id_bytes <= len(rows.ids)
        and not crowded(state[_USERS] + 1, len(rows.slots))
    )


@compiled
def set_length(rows: Rows, row: int, length: int) -> None:
    """Note how many entries the row holds now."""
    header0 = rows.header[row, 0]
    rows.state[_ENTRIES] += length - length_of(header0)
    rows.header[row, 0] = run_word(run_of(header0), length, class_of(header0))


@compiled
def mark_dirty(rows: Rows, row: int) -> None:
    """Have the row, which has changed, taken with the next flush."""
    rows.header[row, 1] &= ~np.uint64(RECHECK)
    if not flags_of(rows.header[row, 1]) & DIRTY:
        _list(rows, row)


@compiled
def recheck(rows: Rows, row: int) -> None:
    """Have the row evaluated with the next flush; it is written only if its decision differs."""
    if not flags_of(rows.header[row, 1]) & DIRTY:
        rows.header[row, 1] |= np.uint64(RECHECK)
        _list(rows, row)


@compiled
def _list(rows: Rows, row: int) -> None:
    rows.header[row, 1] |= np.uint64(DIRTY)
    rows.dirty[rows.state[_DIRTY]] = row
    rows.state[_DIRTY] += 1


def wasteful(rows: Rows, share: int) -> bool:
    """Whether free lists or removed ids hold more than one in ``share`` of what there is."""
    state = rows.state
    return bool(
        state[State.DEAD] > 4096 + state[State.ARENA] // share
        or state[State.DEAD_IDS] > 65536 + state[State.IDS] // share
    )


def compact(rows: Rows) -> Rows:
    """The same rows, their entries and ids moved together and nothing between them.

    They move down within their arrays, in the order in which they lie there: to take other memory,
    and to go through the rows by number, takes several times as long.
    """
    header = rows.header[: rows.state[State.ROWS]]
    used = np.flatnonzero(header[:, 1] & np.uint64(USED))
    by_run, by_id = _in_order(used, header[used, 0]), _in_order(used, header[used, 1])
    rows.free[:] = 0
    _slide_entries(rows, by_run)
    if rows.state[State.DEAD_IDS]:
        _slide_ids(rows, by_id)
    entries, id_bytes = int(rows.state[State.ARENA]), int(rows.state[State.IDS])
    return rows._replace(
        arena=shorter(rows.arena, entries + entries // 8 + 64),
        ids=shorter(rows.ids, id_bytes + id_bytes // 8 + 256),
    )


def _in_order(used: NDArray[np.int64], words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Rows in the order of what lies where these header words say."""
    return used[np.argsort(words >> _B24)]


@compiled
def _slide_entries(rows: Rows, order: NDArray[np.int64]) -> None:
    used = 0
    for k in range(len(order)):
        if k + AHEAD < len(order):
            prefetch(rows.header, order[k + AHEAD])
        row = order[k]
        header0 = rows.header[row, 0]
        start, length, size_class = run_of(header0), length_of(header0), class_of(header0)
        if start > used:
            for i in range(length):
                for word in range(WORDS):
                    rows.arena[used + i, word] = rows.arena[start + i, word]
            for i in range(length, CAPACITIES[size_class]):
                for word in range(WORDS):
                    rows.arena[used + i, word] = _NONE  # nobody's entries stay in an image
            rows.header[row, 0] = run_word(used, length, size_class)
        used += CAPACITIES[size_class]
    rows.state[_ARENA], rows.state[_DEAD] = used, 0


@compiled
def _slide_ids(rows: Rows, order: NDArray[np.int64]) -> None:
    used = 0
    for k in range(len(order)):
        row = order[k]
        header1 = rows.header[row, 1]
        first, size = id_start(header1), id_size(header1)
        if first > used:
            for i in range(size):
                rows.ids[used + i] = rows.ids[first + i]
            rows.header[row, 1] = (
                (np.uint64(used) << _B24) | (np.uint64(size) << _B8) | (header1 & _LOW8)
            )
        used += size
    rows.state[_IDS], rows.state[_DEAD_IDS] = used, 0
