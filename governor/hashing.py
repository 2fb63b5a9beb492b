"""64-bit hashes of byte strings, compiled.

MurmurHash64A (Appleby 2008, public domain), eight bytes a step. The values are part of the
changelog format: changing them orphans every stored row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from governor.compiled import allocating, compiled
from governor.words import word_at

__all__ = ["hash_bytes", "hash_spans", "mix"]

_M = np.uint64(0xC6A4A7935BD1E995)
_SEED = np.uint64(0x9E3779B97F4A7C15)
_R = np.uint64(47)
_ONE = np.uint64(1)
_BYTE = np.uint64(8)
_FMIX1 = np.uint64(0xFF51AFD7ED558CCD)
_FMIX2 = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT33 = np.uint64(33)


@compiled
def hash_bytes(buffer: NDArray[np.uint8], start: int, size: int) -> np.uint64:
    """The hash of ``buffer[start:start + size]``; never zero."""
    h = _SEED ^ (np.uint64(size) * _M)
    blocks = size // 8
    for block in range(blocks):
        k = word_at(buffer, start + 8 * block)
        k *= _M
        k ^= k >> _R
        k *= _M
        h ^= k
        h *= _M
    tail = size - 8 * blocks
    if tail > 0:
        at = start + 8 * blocks
        k = np.uint64(0)
        for byte in range(tail):
            k |= np.uint64(buffer[at + byte]) << (np.uint64(byte) * _BYTE)
        h ^= k
        h *= _M
    h ^= h >> _R
    h *= _M
    h ^= h >> _R
    if h == np.uint64(0):
        return _ONE
    return h


@allocating
def hash_spans(
    buffer: NDArray[np.uint8], start: NDArray[np.int64], size: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """The hashes of many spans of one buffer."""
    out = np.empty(len(start), np.uint64)
    for i in range(len(start)):
        out[i] = hash_bytes(buffer, start[i], size[i])
    return out


@compiled
def mix(a: np.uint64, b: np.uint64) -> np.uint64:
    """One hash of two, order mattering."""
    h = a ^ (b * _M)
    h ^= h >> _SHIFT33
    h *= _FMIX1
    h ^= h >> _SHIFT33
    h *= _FMIX2
    h ^= h >> _SHIFT33
    return h
