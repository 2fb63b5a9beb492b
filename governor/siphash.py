"""SipHash-2-4 (Aumasson and Bernstein 2012), compiled: a keyed hash that nobody without the key
can invert by trying ids."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from governor.compiled import compiled
from governor.words import word_at

__all__ = ["key_of", "siphash"]

_I0, _I1 = np.uint64(0x736F6D6570736575), np.uint64(0x646F72616E646F6D)
_I2, _I3 = np.uint64(0x6C7967656E657261), np.uint64(0x7465646279746573)
_64, _BYTE, _LAST = np.uint64(64), np.uint64(8), np.uint64(56)
_FINAL = np.uint64(0xFF)
_R13, _R16, _R17 = np.uint64(13), np.uint64(16), np.uint64(17)
_R21, _R32 = np.uint64(21), np.uint64(32)


def key_of(secret: bytes) -> tuple[np.uint64, np.uint64]:
    """The two halves of the key that a secret of any length gives."""
    digest = blake2b(secret, digest_size=16).digest()
    return (
        np.uint64(int.from_bytes(digest[:8], "little")),
        np.uint64(int.from_bytes(digest[8:], "little")),
    )


@compiled
def _rotated(word: np.uint64, by: np.uint64) -> np.uint64:
    return (word << by) | (word >> (_64 - by))


@compiled
def _rounds(
    v0: np.uint64, v1: np.uint64, v2: np.uint64, v3: np.uint64, count: int
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    for _ in range(count):
        v0 += v1
        v1 = _rotated(v1, _R13) ^ v0
        v0 = _rotated(v0, _R32)
        v2 += v3
        v3 = _rotated(v3, _R16) ^ v2
        v0 += v3
        v3 = _rotated(v3, _R21) ^ v0
        v2 += v1
        v1 = _rotated(v1, _R17) ^ v2
        v2 = _rotated(v2, _R32)
    return v0, v1, v2, v3


@compiled
def siphash(
    key0: np.uint64, key1: np.uint64, buffer: NDArray[np.uint8], start: int, size: int
) -> np.uint64:
    """The hash of ``buffer[start:start + size]`` under a key of two halves."""
    v0, v1, v2, v3 = key0 ^ _I0, key1 ^ _I1, key0 ^ _I2, key1 ^ _I3
    whole = size - size % 8
    for at in range(start, start + whole, 8):
        word = word_at(buffer, at)
        v3 ^= word
        v0, v1, v2, v3 = _rounds(v0, v1, v2, v3, 2)
        v0 ^= word
    word = (np.uint64(size) & _FINAL) << _LAST
    for byte in range(size - whole):
        word |= np.uint64(buffer[start + whole + byte]) << (np.uint64(byte) * _BYTE)
    v3 ^= word
    v0, v1, v2, v3 = _rounds(v0, v1, v2, v3, 2)
    v0 ^= word
    v2 ^= _FINAL
    v0, v1, v2, v3 = _rounds(v0, v1, v2, v3, 4)
    return v0 ^ v1 ^ v2 ^ v3
