"""Memory that is freed stays with the process, where the C library can be told so.

A worker takes and frees a hundred megabytes a second: what was fetched, decisions, rows. By itself
the C library gives large pieces back to the system at once, and what lies free at the heap's end
now and then. In a virtual machine, memory that comes again can be two milliseconds a megabyte, four
times what it takes to fill it. It is worst after something has held the worker up: what is under
way then comes in larger pieces than before, for which there are no holes, and being late makes it
later.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

__all__ = ["keep_freed", "share_one_heap"]

RESERVE = 256 << 20
"""Bytes of addresses at the heap's end, on huge pages; memory they take as they are written to."""

AHEAD = 2
"""The largest pieces that are written to at once, 64 MiB: for the first time that something holds
the worker up."""

TRIES = 8
"""Pieces after which the heap is taken not to grow."""

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_LARGEST_ON_HEAP = 32 << 20
"""The most that glibc takes. Larger pieces are the system's again when they are freed."""
_DEFAULT_PAD = 128 << 10
_NEVER = -1

_HUGE_PAGE = 2 << 20
_HUGE = getattr(mmap, "MADV_HUGEPAGE", None)


def share_one_heap() -> None:
    """Have threads that begin from now on share the heaps that are there: one, as a rule.

    What one of them frees is then there for all; Python's lock has them take turns anyway.
    """
    if (c := _glibc()) is not None:
        c.mallopt(_ARENA_MAX, 1)


def keep_freed() -> None:
    """Give back what is free now, and from now on nothing; a tenth of a second."""
    if (c := _glibc()) is None:
        return
    c.malloc_trim(0)
    c.mallopt(_MMAP_THRESHOLD, _LARGEST_ON_HEAP)
    c.mallopt(_TRIM_THRESHOLD, _NEVER)
    c.mallopt(_TOP_PAD, RESERVE)
    begin = c.sbrk(0)
    # The first may lie in what is free, and the heap not grow for them.
    pieces = [c.malloc(_LARGEST_ON_HEAP - mmap.PAGESIZE)]
    while c.sbrk(0) == begin and len(pieces) < TRIES:
        pieces.append(c.malloc(_LARGEST_ON_HEAP - mmap.PAGESIZE))
    pieces += [c.malloc(_LARGEST_ON_HEAP - mmap.PAGESIZE) for _ in range(AHEAD - 1)]
    c.mallopt(_TOP_PAD, _DEFAULT_PAD)
    first = -(-begin // _HUGE_PAGE) * _HUGE_PAGE
    size = (c.sbrk(0) - first) // _HUGE_PAGE * _HUGE_PAGE
    if size > 0 and _HUGE is not None:
        c.madvise(first, size, _HUGE)
    for piece in filter(None, pieces[-AHEAD:]):
        ctypes.memset(piece, 0, _LARGEST_ON_HEAP - mmap.PAGESIZE)
    for piece in pieces:
        c.free(piece)


def _glibc() -> ctypes.CDLL | None:
    c = ctypes.CDLL(None) if sys.platform == "linux" else None
    if c is None or not hasattr(c, "gnu_get_libc_version"):
        return None
    c.sbrk.restype, c.sbrk.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
    c.malloc.restype, c.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    c.free.argtypes = [ctypes.c_void_p]
    c.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return c
