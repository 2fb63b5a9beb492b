"""Of records of which some overwrite others, the newest of each key: what compaction would leave.

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

__all__ = ["newest"]

_NONE = np.uint64(0)
_ONE = np.uint64(1)
_B32 = np.uint64(32)
_LOW32 = np.uint64(0xFFFFFFFF)


def newest(parts: Sequence[Records]) -> list[Records]:
    """The same parts, each without the records whose key comes again behind them.

    In order, and sharing the buffers. There may be parts left with nothing in them. A null key is
    nobody's, and its records stay.
    """
    begins = np.cumsum([0, *map(len, parts)])
    sizes = np.concatenate([part.key_size for part in parts])
    starts = np.cumsum(np.maximum(sizes, 0)) - np.maximum(sizes, 0)
    count = len(sizes)
    keys = np.empty(int(np.maximum(sizes, 0).sum()), np.uint8)
    for part, begin in zip(parts, begins.tolist(), strict=False):
        _copy(part.buffer, part.key_start, part.key_size, keys, starts[begin:])
    kept = np.ones(count, np.bool_)
    _keep(keys, starts, sizes, np.zeros(1 << (2 * count).bit_length(), np.uint64), kept)
    return [
        part if here.all() else part.select(np.nonzero(here)[0])
        for part, here in zip(parts, np.split(kept, begins[1:-1]), strict=True)
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
        if size[i] < 0:
            continue
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
