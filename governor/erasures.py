"""Who was erased, of one partition: marks that keep a replay from bringing a person back.

A mark is a keyed hash of the row key (SipHash-2-4), with the time of the erasure: nobody without
the key can tell whose it is, nor try ids against it. It stays until the partition's newest event
is the retention later; by then the input topics hold nothing older than the erasure.
Changelog records have the key ``e`` and the eight bytes of the mark, and as value eight bytes of
ticks, little-endian.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from governor.compiled import allocating, compiled, integer
from governor.events import Columns
from governor.siphash import key_of, siphash

__all__ = ["KEY", "Erasures"]

KEY = b"e"
"""What the keys of changelog records begin with."""

_TIME = struct.Struct("<q")
_MARK = struct.Struct("<Q")
_FREE = np.uint64(0)
_ONE = np.uint64(1)


class Erasures:
    """Marks of one partition; those changed since `take` go to the changelog.

    Args:
        secret: what the hash is keyed by. Under another secret old marks say nothing.
        retention: how long a mark stays, in ticks of event time.
    """

    def __init__(self, secret: bytes, retention: int) -> None:
        self._secret = key_of(secret)
        self._retention = retention
        self._marks: dict[int, int] = {}
        self._changed: set[int] = set()
        self._slots: NDArray[np.uint64] = np.zeros(16, np.uint64)
        self._until: NDArray[np.int64] = np.zeros(16, np.int64)

    def __len__(self) -> int:
        return len(self._marks)

    def erase(self, key: bytes, ts: int) -> None:
        """Mark what an id had up to ``ts`` as gone for good."""
        mark = self._mark(key)
        if ts > self._marks.get(mark, -1):
            self._enter(mark, ts)
            self._changed.add(mark)

    def erased(self, key: bytes) -> int | None:
        """The time up to which an id was erased."""
        return self._marks.get(self._mark(key)) if self._marks else None

    def hits(self, columns: Columns) -> NDArray[np.bool_]:
        """Which rows of ``columns`` were erased before they came."""
        if not self._marks:
            return np.zeros(len(columns), np.bool_)
        return _hits(
            self._slots, self._until, self._secret[0], self._secret[1],
            columns.text, columns.user_start, columns.user_size, columns.ts,
        )  # fmt: skip

    def expire(self, watermark: int) -> None:
        """Drop the marks that no event can meet any more.

        Args:
            watermark: the partition's newest event time.
        """
        old = [mark for mark, ts in self._marks.items() if ts < watermark - self._retention]
        for mark in old:
            del self._marks[mark]
            self._changed.add(mark)
        if old:
            self._index(len(self._slots))

    def take(self) -> list[tuple[bytes, bytes | None]]:
        """Keys and values for the changelog: what changed since the last call."""
        changed, self._changed = self._changed, set()
        return [(KEY + _MARK.pack(mark), _value(self._marks.get(mark))) for mark in sorted(changed)]

    def all(self) -> list[tuple[bytes, bytes | None]]:
        """Keys and values of all marks."""
        return [(KEY + _MARK.pack(mark), _value(ts)) for mark, ts in self._marks.items()]

    def load(self, key: bytes, value: bytes | None) -> None:
        """Take over a changelog record; the key without its first byte."""
        (mark,) = _MARK.unpack(key)
        if value is None:
            if self._marks.pop(mark, None) is not None:
                self._index(len(self._slots))
        else:
            self._enter(mark, _TIME.unpack(value)[0])

    def _mark(self, key: bytes) -> int:
        return int(siphash(*self._secret, np.frombuffer(key, np.uint8), 0, len(key))) or 1

    def _enter(self, mark: int, ts: int) -> None:
        self._marks[mark] = ts
        if 2 * len(self._marks) > len(self._slots):
            self._index(4 * len(self._slots))
        else:
            _add(self._slots, self._until, np.uint64(mark), ts)

    def _index(self, size: int) -> None:
        self._slots, self._until = np.zeros(size, np.uint64), np.zeros(size, np.int64)
        for mark, ts in self._marks.items():
            _add(self._slots, self._until, np.uint64(mark), ts)


def _value(ts: int | None) -> bytes | None:
    return None if ts is None else _TIME.pack(ts)


@compiled
def _add(slots: NDArray[np.uint64], until: NDArray[np.int64], mark: np.uint64, ts: int) -> None:
    mask = np.uint64(len(slots) - 1)
    at = mark & mask
    while slots[at] != _FREE and slots[at] != mark:
        at = (at + _ONE) & mask
    slots[at] = mark
    until[at] = ts


@allocating
def _hits(
    slots: NDArray[np.uint64],
    until: NDArray[np.int64],
    key0: np.uint64,
    key1: np.uint64,
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    ts: NDArray[np.int64],
) -> NDArray[np.bool_]:
    out = np.zeros(len(start), np.bool_)
    mask = np.uint64(len(slots) - 1)
    for i in range(len(start)):
        mark = siphash(key0, key1, text, start[i], size[i])
        if mark == _FREE:
            mark = _ONE
        at = integer(mark & mask)
        while slots[at] != _FREE:
            if slots[at] == mark:
                out[i] = ts[i] <= until[at]
                break
            at = (at + 1) % len(slots)
    return out
