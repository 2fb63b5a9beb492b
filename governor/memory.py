"""Large arrays that grow in place and whose memory goes back when they do.

Each has a mapping of its own with room to grow that costs nothing before it is written to. On the
heap, growing copies, holds old and new at once, and leaves holes of every size that the array ever
had: of a hundred bytes that rows took, the process had given a third to holes.

Arrays of many megabytes are on huge pages where the system has them, or half the time of a look at
a row anywhere goes into finding its page. The last page of each is begun and not full, which is
why small arrays are not. An array that was small before has small pages already, which are put
together when it has grown.
"""

from __future__ import annotations

import mmap
import sys
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["longer", "zeros"]

MAPPED_FROM = 1 << 20
"""Bytes from which on an array has a mapping of its own."""

ROOM = 8
"""How many times its size an array can grow to before it is copied."""

HUGE_FROM = 1 << 23
"""Bytes from which on it is on huge pages."""

HUGE_PAGE = 1 << 21

# Python does not name it on every system that has it.
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
_HUGE = getattr(mmap, "MADV_HUGEPAGE", None)
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
    if isinstance(mapping, mmap.mmap) and length * array.strides[0] <= _room(mapping):
        return _placed(mapping, shape, array.dtype)
    out = zeros(shape, array.dtype)
    out[: len(array)] = array
    return out


def _mapping(size: int) -> mmap.mmap:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    try:
        return mmap.mmap(-1, ROOM * size + HUGE_PAGE, flags | _NO_RESERVE)
    except (OSError, OverflowError):  # address space is limited, or memory is not overcommitted
        return mmap.mmap(-1, size + HUGE_PAGE, flags)


def _start(mapping: mmap.mmap) -> int:
    """The first place in a mapping where a huge page can begin."""
    whole = np.frombuffer(mapping, np.uint8)
    return int(-whole.ctypes.data % HUGE_PAGE)


def _room(mapping: mmap.mmap) -> int:
    return len(mapping) - _start(mapping)


def _placed(mapping: mmap.mmap, shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    """An array at the start of a mapping, on huge pages if it is large."""
    start = _start(mapping)
    array = np.ndarray(shape, kind, buffer=mapping, offset=start)
    if array.nbytes >= HUGE_FROM and _HUGE is not None:
        whole = array.nbytes // HUGE_PAGE * HUGE_PAGE
        for advice in (_HUGE, _COLLAPSE):
            with suppress(OSError):  # the kernel has none of it, or no such page free: as it was
                mapping.madvise(advice, start, whole)
    return array
