"""What several flushes changed, as one: of each row only what it was in the end.

Kafka compacts what lies in its log for a while. What is overwritten before it is written at all
costs neither the network nor the log anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled, integer
from governor.hashing import hash_bytes
from governor.prefetch import AHEAD, prefetch
from governor.records import Records
from governor.rowcodec import KIND_AD, KIND_USER

__all__ = ["as_one"]

_NONE = np.uint64(0)
_ONE = np.uint64(1)
_B32 = np.uint64(32)
_LOW32 = np.uint64(0xFFFFFFFF)


def as_one(parts: Sequence[Records]) -> list[Records]:
    """Changelog records of one partition, of each user the newest row only; buffers are shared.

    The names of ads come first, then rows, then what else there is, each kind in order. A worker
    may be killed when some of it is written, and every beginning of it must be sound: rows need
    the names of their ads, and a mark that somebody was erased says that the row is gone.

    Args:
        parts: what each flush changed, in order; at least one. No key is null.
    """
    if len(parts) == 1:
        return list(parts)
    kinds = [part.buffer[part.key_start] for part in parts]
    names = [_only(part, kind == KIND_AD) for part, kind in zip(parts, kinds, strict=True)]
    rows = [_only(part, kind == KIND_USER) for part, kind in zip(parts, kinds, strict=True)]
    others = [
        _only(part, (kind != KIND_AD) & (kind != KIND_USER))
        for part, kind in zip(parts, kinds, strict=True)
    ]
    return [one for one in (*names, *_newest(rows), *others) if len(one)]


def _only(part: Records, these: NDArray[np.bool_]) -> Records:
    return part if these.all() else part.select(np.flatnonzero(these))


def _newest(parts: Sequence[Records]) -> list[Records]:
    """The same parts, each without the records whose key comes again behind them."""
    begins = np.cumsum([0, *map(len, parts)])
    sizes = np.concatenate([part.key_size for part in parts])
    ends = np.cumsum(sizes)
    starts, count = ends - sizes, len(sizes)
    keys = np.empty(int(sizes.sum()), np.uint8)
    for part, begin in zip(parts, begins.tolist(), strict=False):
        _copy(part.buffer, part.key_start, part.key_size, keys, starts[begin:])
    kept = np.ones(count, np.bool_)
    _keep(keys, starts, sizes, np.zeros(1 << (2 * count).bit_length(), np.uint64), kept)
    return [
        _only(part, here) for part, here in zip(parts, np.split(kept, begins[1:-1]), strict=True)
    ]


@compiled
def _copy(
    buffer: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    out: NDArray[np.uint8],
    at: NDArray[np.int64],
) -> None:
    for i in range(len(start)):
        if i + AHEAD < len(start):
            prefetch(buffer, start[i + AHEAD])
        for byte in range(size[i]):
            out[at[i] + byte] = buffer[start[i] + byte]


@compiled
def _keep(
    keys: NDArray[np.uint8],
    start: NDArray[np.int64],
    size: NDArray[np.int64],
    slots: NDArray[np.uint64],
    kept: NDArray[np.bool_],
) -> None:
    """From the last record on, enter each key that is new: half its hash, and where it is."""
    mask = np.uint64(len(slots) - 1)
    for i in range(len(start) - 1, -1, -1):
        hashed = hash_bytes(keys, start[i], size[i])
        at = hashed & mask
        while slots[at] != _NONE:
            other = integer(slots[at] & _LOW32) - 1
            if slots[at] >> _B32 == hashed >> _B32 and _same(
                keys, start[i], size[i], start[other], size[other]
            ):
                kept[i] = False
                break
            at = (at + _ONE) & mask
        if kept[i]:
            slots[at] = (hashed & ~_LOW32) | np.uint64(i + 1)


@compiled
def _same(keys: NDArray[np.uint8], one: int, size: int, other: int, other_size: int) -> bool:
    same = size == other_size
    byte = 0
    while same and byte < size:
        same = keys[one + byte] == keys[other + byte]
        byte += 1
    return same
