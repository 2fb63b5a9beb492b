"""Where a row lives: Kafka's default partitioner for keys, compiled.

MurmurHash2 (Appleby 2008, public domain) of the key as Kafka's Java clients take it, its sign bit
cleared, modulo the number of partitions. Producers with other partitioners exist; the governor's
rows, and all that it writes, are where this function says.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import allocating, compiled, integer

__all__ = ["partition_of", "partitions_of"]

# 32-bit arithmetic in 64-bit words: a product of two never overflows, and is cut afterwards.
_SEED = np.uint64(0x9747B28C)
_M = np.uint64(0x5BD1E995)
_LOW32 = np.uint64(0xFFFFFFFF)
_POSITIVE = np.uint64(0x7FFFFFFF)
_R = np.uint64(24)
_B8, _B13, _B15, _B16 = np.uint64(8), np.uint64(13), np.uint64(15), np.uint64(16)


@compiled
def _murmur2(buffer: NDArray[np.uint8], start: int, size: int) -> np.uint64:
    h = _SEED ^ np.uint64(size)
    end = start + size
    at = start
    while end - at >= 4:
        k = np.uint64(buffer[at]) | (np.uint64(buffer[at + 1]) << _B8)
        k |= (np.uint64(buffer[at + 2]) << _B16) | (np.uint64(buffer[at + 3]) << _R)
        k = (k * _M) & _LOW32
        k = ((k ^ (k >> _R)) * _M) & _LOW32
        h = ((h * _M) & _LOW32) ^ k
        at += 4
    rest = end - at
    if rest > 2:
        h ^= np.uint64(buffer[at + 2]) << _B16
    if rest > 1:
        h ^= np.uint64(buffer[at + 1]) << _B8
    if rest > 0:
        h = ((h ^ np.uint64(buffer[at])) * _M) & _LOW32
    h = ((h ^ (h >> _B13)) * _M) & _LOW32
    return h ^ (h >> _B15)


@allocating
def partitions_of(
    text: NDArray[np.uint8], start: NDArray[np.int64], size: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """The partition, of ``count``, of each key that lies at ``start`` in ``text``."""
    out = np.empty(len(start), np.int64)
    for i in range(len(start)):
        out[i] = integer(_murmur2(text, start[i], size[i]) & _POSITIVE) % count
    return out


def partition_of(key: bytes, count: int) -> int:
    """The partition, of ``count``, of one key."""
    text = np.frombuffer(key, np.uint8)
    return int(partitions_of(text, np.zeros(1, np.int64), np.array([len(key)]), count)[0])
