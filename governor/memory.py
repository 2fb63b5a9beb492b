"""Large arrays that grow in place and whose memory goes back when they do.

Each has a mapping of its own with room to grow that costs nothing before it is written to. On the
heap, growing copies, holds old and new at once, and leaves holes of every size that the array ever
had: of a hundred bytes that rows took, the process had given a third to holes.

Arrays of many megabytes are on huge pages where the system has them, or half the time of a look at
a row anywhere goes into finding its page. The last page of each is begun and not full, which is
why small arrays are not. An array that was small before has small pages already; `put_together`
makes them huge ones, which takes tens of milliseconds and can wait.
"""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["longer", "put_together", "shorter", "zeros"]

MAPPED_FROM = 1 << 20
"""Bytes from which on an array has a mapping of its own."""

ROOM = 8
"""How many times its size an array can grow to before it is copied."""

LEAST_ROOM = 1 << 26
"""Bytes that any array with a mapping of its own can grow to."""

HUGE_FROM = 1 << 23
"""Bytes from which on it is on huge pages."""

HUGE_PAGE = 1 << 21

# Python does not name it on every system that has it.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
_HUGE = getattr(mmap, "MADV_HUGEPAGE", None)
_LETS_GO = sys.platform == "linux"
"""Whether memory that is said not to be needed goes at once, and is zeros when it comes again."""
_COLLAPSE = 25  # MADV_COLLAPSE, since Linux 6.1: pages that are written to become huge at once


def zeros(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray:  # type: ignore[type-arg]
    """An array of zeros."""
    kind = np.dtype(dtype)
    size = kind.itemsize * int(np.prod(shape))
    if size < MAPPED_FROM:
        return np.zeros(shape, kind)
    return _placed(_mapping(size), shape, kind)


def longer(array: NDArray, length: int) -> NDArray:  # type: ignore[type-arg]
    """The same array with ``length`` rows, the new ones zeros.

    It shares its memory with the old one where that has room, so the old one is not to be used
    any more.
    """
    shape = (length, *array.shape[1:])
    mapping = array.base
    if isinstance(mapping, _Mapping) and length * array.strides[0] <= _room(mapping):
        if _HUGE is not None and array.nbytes < HUGE_FROM <= length * array.strides[0]:
            mapping.small = array.nbytes
        return _placed(mapping, shape, array.dtype)
    out = zeros(shape, array.dtype)
    out[: len(array)] = array
    return out


def shorter(array: NDArray, length: int) -> NDArray:  # type: ignore[type-arg]
    """The first ``length`` rows of an array, or all where it has no more; the memory of the others
    goes back. The old one is not to be used any more."""
    if length >= len(array):
        return array
    mapping = array.base
    if not isinstance(mapping, _Mapping):
        return array[:length].copy()
    start, size, end = _start(mapping), length * array.strides[0], array.nbytes
    kept = end
    if _LETS_GO:
        page = HUGE_PAGE if end >= HUGE_FROM else mmap.PAGESIZE
        part = min(end, -(-size // page) * page)
        with suppress(OSError):  # pages are locked, or there is nothing to let go of
            mapping.madvise(mmap.MADV_DONTNEED, start + part, end - part)
            kept = part
    mapping.small = min(mapping.small, size)
    np.frombuffer(mapping, np.uint8)[start + size : start + kept] = 0  # for `longer`
    return _placed(mapping, (length, *array.shape[1:]), array.dtype)


def put_together(array: NDArray) -> bool:  # type: ignore[type-arg]
    """Put small pages that an array has from when it was small together; whether it had any."""
    mapping = array.base
    if not isinstance(mapping, _Mapping) or not mapping.small:
        return False
    with suppress(OSError):  # the kernel has none of it, or no such page free: as it was
        mapping.madvise(_COLLAPSE, _start(mapping), -(-mapping.small // HUGE_PAGE) * HUGE_PAGE)
    mapping.small = 0
    return True


class _Mapping(mmap.mmap):
    small = 0
    """Bytes at its start that are on small pages though the array has become large."""


def _mapping(size: int) -> _Mapping:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    for room in (max(LEAST_ROOM, ROOM * size), ROOM * size):
        # Address space may be limited, or memory not overcommitted.
        with suppress(OSError, OverflowError):
            return _Mapping(-1, room + HUGE_PAGE, flags | _NO_RESERVE)
    return _Mapping(-1, size + HUGE_PAGE, flags)


def _start(mapping: _Mapping) -> int:
    """The first place in a mapping where a huge page can begin."""
    whole = np.frombuffer(mapping, np.uint8)
    return int(-whole.ctypes.data % HUGE_PAGE)


def _room(mapping: _Mapping) -> int:
    return len(mapping) - _start(mapping)


def _placed(mapping: _Mapping, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    """An array at the start of a mapping, on huge pages if it is large."""
    start = _start(mapping)
    array = np.ndarray(shape, kind, buffer=mapping, offset=start)
    if array.nbytes >= HUGE_FROM and _HUGE is not None:
        with suppress(OSError):  # the kernel has none of it
            mapping.madvise(_HUGE, start, array.nbytes // HUGE_PAGE * HUGE_PAGE)
    return array
